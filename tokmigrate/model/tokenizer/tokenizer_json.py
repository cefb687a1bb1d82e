"""tokenizer.json as a document: which token has which id, its merges, and how a token is added to it.

The tokenizers library does not read the `id` in `added_tokens` when it loads a file. A token whose text is in the
model's vocabulary has the id it has there. Any other gets the next id: until tokenizers 0.22 the one after all that
added tokens have, from 0.23 on the one after the vocabulary and those outside of it (`AddedVocabulary::add_tokens`;
both were tried). So all three must agree.
"""

from __future__ import annotations

import json
import operator
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any

from blake3 import blake3

from tokmigrate.errors import OperationError, OutOfStepError, TokenizerError, in_one_line
from tokmigrate.memo import Memo
from tokmigrate.model.formats.json_text import Json, replace_at, walk
from tokmigrate.model.tokenizer.library import library_errors, open_tokenizer
from tokmigrate.model.tokenizer.vocabulary import Vocabulary, read_vocabulary
from tokmigrate.vocabulary.ids import AddedToken, Layered, Run, runs

BYTE = re.compile("<0x[0-9A-F]{2}>")
_UNREADABLE = "correct the operation that set this part; else restore the file, or install a newer tokenizers"


def list_ids(vocabulary: Mapping[str, int], added: Iterable[str]) -> Iterator[tuple[str, frozenset[int]]]:
    """Yield each added token, in the order of the file, with the ids that versions of the library give it."""
    after_all = after_outside = len(vocabulary)
    for content in added:
        known = vocabulary.get(content)
        if known is None:
            yield content, frozenset({after_all, after_outside})
            after_all, after_outside = after_all + 1, after_outside + 1
        else:
            yield content, frozenset({known})
            after_all = max(after_all, known + 1)


def with_tokens_inside(
    vocabulary: Mapping[str, int], entries: Sequence[Mapping[str, Any]], model: Mapping[str, Any]
) -> dict[str, int]:
    """Return the vocabulary with the added tokens in it that loading would otherwise give another id.

    Raises OperationError where one of `entries`, the `added_tokens` of the file, cannot be inside.
    """
    inside = dict(vocabulary)
    written = {entry["content"]: entry for entry in entries}
    # Each that goes in makes the vocabulary larger, and moves those that are still outside.
    while wrong := next((text for text, given in list_ids(inside, written) if given != {written[text]["id"]}), None):
        check_can_be_inside(written[wrong], model)
        inside[wrong] = written[wrong]["id"]
    return inside


def check_can_be_inside(entry: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Raise OperationError for an added token that the model would find where it is not matched as an added token."""
    if entry.get("single_word") and _can_make(model, entry["content"]):
        raise OperationError(
            f"'{entry['content']}' matches whole words only, and can have id {entry['id']} only as a plain token",
            where="tokenizer.json",
            hint="leave out `single_word`, or leave the token where it is, or close the gap before it",
        )


def _can_make(model: Mapping[str, Any], token: str) -> bool:
    """Return whether a tokenizer's model could make a token of a part of a longer word, were it in the vocabulary."""
    if "merges" not in model or model.get("ignore_merges") or token == model.get("unk_token"):
        return True
    # A BPE makes single letters, bytes, and what its merges make: no merge makes a token that is not in the vocabulary.
    letter = token.removeprefix(continuing_prefix(model)).removesuffix(model.get("end_of_word_suffix") or "")
    return len(letter) <= 1 or bool(model.get("byte_fallback") and BYTE.fullmatch(token))


Merge = tuple[str, str]


def merges_of(model: Mapping[str, Json]) -> list[Merge]:
    """Return the merges of the `model` of tokenizer.json, in either notation."""
    return [split(merge) for merge in model.get("merges") or []]


def split(merge: Json) -> Merge:
    """Return the two parts of a merge as a file writes it."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def continuing_prefix(model: Mapping[str, Json]) -> str:
    """Return what a piece that continues a word begins with, "" where it is spelled like others."""
    return str(model.get("continuing_subword_prefix") or "")


def product(merge: Merge, prefix: str) -> str:
    """Return what a merge makes; the prefix of a continuing piece goes."""
    return merge[0] + merge[1].removeprefix(prefix)


def find_spaced(merges: Iterable[Merge]) -> str | None:
    """Return the first part of merges that `left right` on a line cannot hold, None where there is none."""
    return next((part for merge in merges for part in merge if any(mark in part for mark in " \n\r")), None)


def without(merges: Iterable[Json], gone: frozenset[str], prefix: str) -> list[Json]:
    """Return the merges, as the file writes them, that neither make nor use a token of `gone`."""
    return [
        merge for merge in merges if not gone.intersection(split(merge)) and product(split(merge), prefix) not in gone
    ]


FILE = "tokenizer.json"
SECTIONS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
"""The parts of its pipeline besides the model."""


def model_kind(document: Json) -> str:
    """Return the kind of a tokenizer's model; some old files do not name it."""
    model = document["model"]
    if "type" in model:
        return str(model["type"])
    if "merges" in model:
        return "BPE"
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "continuing_subword_prefix" in model else "WordLevel"


@dataclass(frozen=True)
class Tokenizer:
    """A view of the parsed tokenizer.json, which is never changed."""

    document: Mapping[str, Any]

    @cached_property
    def model(self) -> Vocabulary:
        """The tokens of the tokenizer's model."""
        return read_vocabulary(self.document["model"]["vocab"])

    @property
    def vocabulary(self) -> dict[str, int]:
        """The id of each token of the tokenizer's model, without the added ones."""
        return self.model.ids

    @cached_property
    def added(self) -> dict[str, tuple[AddedToken, int]]:
        """The added tokens with their ids, in the order of the file."""
        found: dict[str, tuple[AddedToken, int]] = {}
        for entry in self.document.get("added_tokens") or []:
            found[entry["content"]] = (read_entry(entry), int(entry["id"]))
        return found

    @cached_property
    def ids(self) -> Mapping[str, int]:
        added = {content: number for content, (_, number) in self.added.items()}
        if any(self.vocabulary.get(content, number) != number for content, number in added.items()):
            return self.vocabulary | added
        return Layered(self.vocabulary, {each: added[each] for each in added if each not in self.vocabulary})

    @cached_property
    def texts(self) -> Mapping[int, str]:
        ids = self.ids
        own = {number: content for content, number in ids.own.items()} if isinstance(ids, Layered) else {}
        if not isinstance(ids, Layered) or not self.model.texts.keys().isdisjoint(own):
            return {number: content for content, number in ids.items()}
        return Layered(self.model.texts, own)

    @cached_property
    def id_runs(self) -> tuple[Run, ...]:
        """The ids that have a token, as runs in rising order."""
        return runs(sorted(self.texts))

    @cached_property
    def highest(self) -> int:
        """The highest id, -1 without any token."""
        return max(self.model.highest, max((number for _, number in self.added.values()), default=-1))

    @cached_property
    def fingerprint(self) -> str:
        """What two tokenizers have in common that give the same ids, now and after the same migrations.

        The first half of the BLAKE3 digest of all tokens with their ids, those of the model and the added ones
        apart, as JSON with sorted keys. How the file is laid out and what else it says does not count.
        """
        added = {content: number for content, (_, number) in self.added.items()}
        said = json.dumps([self.vocabulary, added], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return blake3(said.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def unknown(self) -> str | None:
        """The token that the model writes for what it does not know, None without one."""
        model = self.document["model"]
        if model.get("unk_token") is not None:
            return str(model["unk_token"])
        return self.texts.get(model["unk_id"]) if model.get("unk_id") is not None else None

    def list_free(self, rows: int) -> Iterator[int]:
        """Yield the ids below `rows` that no token has, in rising order."""
        texts = self.texts
        shared = texts.shared if isinstance(texts, Layered) else {}
        # A vocabulary without a gap is not gone through.
        start = len(shared) if self.model.highest + 1 == len(shared) else 0
        return (number for number in range(start, rows) if number not in texts)

    def token(self, content: str) -> AddedToken | None:
        found = self.added.get(content)
        return found[0] if found else None

    def check(self) -> Tokenizer:
        """Return itself; raises OutOfStepError where the ids written down are not those that loading gives."""
        size = len(self.vocabulary)
        if len(set(self.vocabulary.values())) != size:
            hint = "restore the file, or give one of them an id of its own"
            raise OutOfStepError("two tokens of model.vocab have one id", where=FILE, hint=hint)
        for content, given in list_ids(self.vocabulary, self.added):
            written = self.added[content][1]
            if given != {written}:
                either = " or ".join(map(str, sorted(given))) + (", by the library's version" if len(given) > 1 else "")
                raise OutOfStepError(
                    f"'{content}' is written with id {written}, but loading the file gives it id {either}",
                    where=FILE,
                    hint="the ids in added_tokens are not read; put the tokens in order or into model.vocab",
                )
        if len(self.texts) != len(self.ids):
            raise OutOfStepError("two tokens have one id", where=FILE, hint="model.vocab has a hole: restore the file")
        return self

    def with_token(self, token: AddedToken) -> Tokenizer:
        """Return a view of the file with `token` added; a token of the vocabulary keeps its id."""
        *_, (_, given) = list_ids(self.vocabulary, [*self.added, token.content])
        # Behind a hole in the vocabulary the library gives an id twice, or one that depends on its version.
        crowded = token.content not in self.vocabulary and (len(given) > 1 or min(given) in self.texts)
        number = self.highest + 1 if crowded else min(given)
        listed = self._with_entries([write_entry(token, number)])
        if not crowded:
            return listed
        if not isinstance(self.document["model"]["vocab"], dict):
            hint = "restore the file that the model was published with"
            raise TokenizerError("its vocabulary leaves no free id", where=FILE, hint=hint)
        inside = with_tokens_inside(self.vocabulary, listed.document["added_tokens"], self.document["model"])
        return Tokenizer(replace_at(listed.document, ("model", "vocab"), inside))

    def with_tokens(self, tokens: Sequence[AddedToken]) -> Tokenizer:
        """Return a view of the file with `tokens` added as `with_token` adds them one by one; no text occurs twice."""
        reached = self
        for is_inside, group in groupby(tokens, lambda token: token.content in self.vocabulary):
            if is_inside:
                reached = reached._with_entries(write_entry(token, self.vocabulary[token.content]) for token in group)
            else:
                reached = reached._with_outside(list(group))
        return reached

    def with_merges(self, merges: Sequence[Merge], ids: Mapping[str, int]) -> Tokenizer:
        """Return a view of a BPE's file with these merges and no others, and the new tokens that they make, with `ids`.

        Raises OperationError where an added token cannot be in the vocabulary.
        """
        held = self.document["model"].get("merges") or []
        if held and isinstance(held[0], str) and not any(" " in part for merge in merges for part in merge):
            written: list[Any] = [f"{left} {right}" for left, right in merges]
        else:
            written = [list(merge) for merge in merges]
        document = replace_at(self.with_model_tokens(ids).document, ("model", "merges"), written)
        return Tokenizer(document).check()

    def with_model_tokens(self, ids: Mapping[str, int], scores: Mapping[str, float] | None = None) -> Tokenizer:
        """Return a view of the file with tokens of the model behind all ids, of a Unigram with their scores.

        Added tokens that would get another id on loading go into the vocabulary with the id that they have.

        Raises:
            OperationError: One of them cannot.
        """
        model = self.document["model"]
        vocabulary: Any = with_tokens_inside({**self.vocabulary, **ids}, self.document.get("added_tokens") or [], model)
        if isinstance(model["vocab"], list):
            texts = {number: text for text, number in vocabulary.items()}
            behind = (texts[number] for number in range(len(model["vocab"]), len(texts)))
            vocabulary = [*model["vocab"], *([text, (scores or {}).get(text, 0.0)] for text in behind)]
        return Tokenizer(replace_at(self.document, ("model", "vocab"), vocabulary))

    def _with_outside(self, tokens: Sequence[AddedToken]) -> Tokenizer:
        reached = self
        for place, token in enumerate(tokens):
            reached = reached.with_token(token)
            number = reached.ids[token.content]
            if token.content not in reached.vocabulary and number == reached.highest:
                # From the end of all ids on, each gets the next one.
                return reached._with_entries(
                    write_entry(each, number + 1 + more) for more, each in enumerate(tokens[place + 1 :])
                )
        return reached

    def _with_entries(self, new: Iterable[Mapping[str, Any]]) -> Tokenizer:
        """Return a view of the file with further entries of `added_tokens`, each before the first higher id."""
        entries = [*(self.document.get("added_tokens") or [])]
        # A file may list them in any order: what counts is the highest id so far.
        highest = [*accumulate((entry["id"] for entry in entries), max)]
        for entry in new:
            place = bisect_right(highest, entry["id"])
            entries.insert(place, entry)
            highest.insert(place, entry["id"])
        return Tokenizer(replace_at(self.document, ("added_tokens",), entries))

    def pieces(self, text: str) -> tuple[int, ...]:
        """Return the ids that the tokenizers library gives `text`, without special tokens around it."""
        tokenizer = _OPEN.get(self.document, self._open)
        with library_errors(lambda cause: _cannot_tokenize(text, cause)):
            return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    def split_spelling(self, spelled: str) -> tuple[int, ...]:
        """Return the ids of the tokens that the model makes of a text in the vocabulary's own spelling."""
        tokenizer = _OPEN.get(self.document, self._open)
        with library_errors(lambda cause: _cannot_tokenize(spelled, cause)):
            return tuple(token.id for token in tokenizer.model.tokenize(spelled))

    def _open(self) -> Any:
        with library_errors(
            lambda cause: TokenizerError(
                f"the tokenizers library cannot load it: {cause}", where=FILE, hint=_UNREADABLE
            )
        ):
            tokenizer = open_tokenizer(self.document)
        # A template can repeat or drop a text. Threads share the tokenizer, so it goes once and for all.
        tokenizer.post_processor = None
        return tokenizer


_OPEN: Memo[Any] = Memo(2, operator.is_)
"""What the library holds of a large file takes ten times its bytes, and the states of a plan may have many files."""
_VIEWS: Memo[Tokenizer] = Memo(4, operator.is_)


def view(document: Json) -> Tokenizer:
    """Return a view of a document: the same for the same document, since its tables take their time."""
    return _VIEWS.get(document, lambda: Tokenizer(document))


def _cannot_tokenize(text: str, cause: str) -> TokenizerError:
    return TokenizerError(
        f"the tokenizers library cannot tokenize '{in_one_line(text)}': {cause}",
        where=FILE,
        hint="choose a text that consists of tokens of this tokenizer, or another init strategy, such as `mean`",
    )


def write_entry(token: AddedToken, number: int) -> dict[str, Any]:
    """Return the entry of a token in the list `added_tokens`."""
    return {"id": number} | {name: getattr(token, name) for name in ("content", *FLAGS)}


def read_entry(entry: Mapping[str, Any]) -> AddedToken:
    """Return the token of an entry of `added_tokens`, or of `added_tokens_decoder` in tokenizer_config.json."""
    return AddedToken(entry["content"], **{name: bool(entry.get(name, False)) for name in FLAGS})


FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def post_processor_tokens(document: Json) -> Iterator[str]:
    """Yield the text of every token that the post-processor puts around a text."""
    for path, held in walk(document.get("post_processor")):
        if isinstance(held, list) and path[-1:] in (("sep",), ("cls",)):
            yield held[0]
        elif isinstance(held, list) and path[-1:] == ("tokens",):
            yield from held
