"""The operation `extend_vocab`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, TypeAdapter

from tokmigrate.errors import OperationError
from tokmigrate.formatting import format_count, format_quoted
from tokmigrate.init import InitSpec
from tokmigrate.model.documents.architecture_quirks import ordered_tail
from tokmigrate.model.documents.slow_tokenizer_files import IN_ANOTHER_FORMAT, list_slow_files, with_merged_pieces
from tokmigrate.model.documents.state import MERGES, VOCAB_JSON, ModelState
from tokmigrate.model.references.token_texts import without_placeholders
from tokmigrate.model.tokenizer.byte_level import is_byte_level
from tokmigrate.model.tokenizer.token_meaning import SPACE
from tokmigrate.model.tokenizer.tokenizer_json import (
    BYTE,
    FILE,
    Merge,
    continuing_prefix,
    find_spaced,
    merges_of,
    model_kind,
    product,
)
from tokmigrate.operations.operation import Context, Footprint, Risk, TokenChanges
from tokmigrate.operations.row_changes import with_joined_tokens
from tokmigrate.operations.token_checks import find_unreachable
from tokmigrate.operations.token_lists import TokenListOperation, read_list
from tokmigrate.vocabulary.ids import is_tombstone

_MERGES = "the merges of the tokenizer"


def _to_merge(value: Any) -> Any:
    """Return the two parts of a merge that is written as one text, as in merges.txt."""
    parts = value.split(" ") if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or len(parts) != 2:
        raise ValueError("a merge is two tokens with a space between them, or a list of two tokens")
    return tuple(parts)


MergeField = Annotated[
    tuple[Annotated[str, Field(min_length=1)], Annotated[str, Field(min_length=1)]],
    BeforeValidator(_to_merge, json_schema_input_type=str | tuple[str, str]),
]


SUBTOKENS = {"strategy": "subtokens", "output": "first_piece"}
"""How the row of a token is initialised from the old tokens that it is joined from."""


Reuse = Literal["placeholders"] | None


class ExtendVocab(TokenListOperation):
    """Append merges to a BPE, and give each token that they make an id and a row.

    The merges come after all that the tokenizer has, in the order given. So text is tokenized as before, and then
    neighbouring tokens are joined: every boundary between two tokens is one that was there before, old ids keep their
    meaning, and data tokenized before stays valid. A token that the vocabulary has already gets no second id.

    A SentencePiece model beside tokenizer.json follows. SentencePiece makes a piece of any two that give its text, so
    tokenizer.json gets all these merges then, and both tokenize text alike.

    With `reuse: placeholders` they take the ids that `remove_tokens` left with `ids: tombstone`, so that the matrix
    stays as it is. `subtokens` reads the rows of the old tokens that a new one is joined from.
    """

    name: ClassVar[str] = "extend_vocab"
    shorthand: ClassVar[str | None] = "merges"
    lists: ClassVar[Mapping[str, str]] = {"merges": "merges_file"}

    merges: tuple[MergeField, ...] = Field(
        default=(),
        min_length=1,
        description="The merges, each as in merges.txt, `left right`, or as a list of two tokens.",
    )
    merges_file: str | None = Field(
        default=None, min_length=1, description="A file with one merge a line, or a `.json` file with a list of merges."
    )
    reuse: Reuse = Field(
        default=None,
        description="`placeholders`: new tokens take the ids and rows that removed tokens left, the lowest first.",
    )
    init: InitSpec | None = Field(default=None, description="How the rows are initialised.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        made = _append(state, self.merges, self.reuse)
        after = _with_files(made.state, self.merges, made.ids)
        return with_joined_tokens(state, after, context, self.init, made.ids, made.sources)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        new = {token: number for token, number in after.tokenizer.ids.items() if token not in before.tokenizer.ids}
        reused = sum(number in before.tokenizer.texts for number in new.values())
        return Risk.caution(
            f"text with {format_quoted([*new] or [''.join(merge) for merge in self.merges])} has fewer tokens; "
            + (f"the ids of {format_count(reused, 'removed token')} mean new ones; other" if reused else "old")
            + " ids and tokenized data stay valid"
        )

    def token_changes(self) -> TokenChanges:
        return TokenChanges(extended=self._products())

    def footprint(self) -> Footprint:
        parts = {part for merge in self.merges for part in merge}
        writes = (*Footprint.name_tokens(self._products()), _MERGES)
        return Footprint.of(writes, (*Footprint.name_tokens(parts), *Footprint.name_init(self.init)))

    def token_changes_in(self, state: ModelState) -> TokenChanges:
        # The vocabulary had a token before if another merge makes it too. Beside a SentencePiece model new tokens have
        # merges that are not listed; these are among the last.
        model = state.documents[FILE]["model"]
        prefix = continuing_prefix(model)
        merges, listed = merges_of(model), {*self.merges}
        made = [product(merge, prefix) for merge in merges]
        products = dict.fromkeys(product(merge, prefix) for merge in self.merges)
        start = len(made)
        if list_slow_files(state):
            last = max((rank for rank, token in enumerate(made) if token in products), default=-1)
            start = 1 + max((rank for rank in range(last) if made[rank] not in products), default=-1)
        old = {token for merge, token in zip(merges[:start], made, strict=False) if merge not in listed}
        new = {*made} - old
        return TokenChanges(extended=tuple(token for token in products if token in new))

    def expected(self, state: ModelState, context: Context) -> ModelState:  # noqa: ARG002
        known = dict.fromkeys(merges_of(state.documents[FILE]["model"]))
        if known.keys() >= {*self.merges}:
            return state
        # The ids are not compared here: where merges are missing it was not applied.
        merges = [*(known | dict.fromkeys(self.merges))]
        return state.with_document(FILE, state.tokenizer.with_merges(merges, {}).document)

    @classmethod
    def read_items(cls, file: str, data: bytes) -> tuple[Merge, ...]:
        return tuple(read_list(file, data, TypeAdapter(list[MergeField])))

    @classmethod
    def format_items(cls, items: Sequence[Merge]) -> Sequence[Any]:
        return [" ".join(merge) for merge in items] if find_spaced(items) is None else items

    def _products(self) -> tuple[str, ...]:
        # Without the prefix of a continuing piece, which only the tokenizer knows and few have.
        return tuple(dict.fromkeys(left + right for left, right in self.merges))


def reachable_merges(state: ModelState, merges: Sequence[Merge], reuse: Reuse = None) -> tuple[Merge, ...]:
    """Return the merges without those that make a token that no text produces, or are made of one.

    Raises:
        OperationError: The tokenizer cannot have one of them.
    """
    made = _append(state, merges, reuse)
    lost = set(find_unreachable(made.state, made.ids))
    prefix = continuing_prefix(state.documents[FILE]["model"])
    kept: list[Merge] = []
    for merge in merges:
        token = product(merge, prefix)
        if lost.isdisjoint((*merge, token)):
            kept.append(merge)
        elif token in made.ids:
            lost.add(token)
    return tuple(kept)


@dataclass(frozen=True)
class _Extended:
    """A state with merges appended to tokenizer.json, the ids of the new tokens, and the old ones that each joins."""

    state: ModelState
    ids: Mapping[str, int]
    sources: Mapping[str, tuple[int, ...]]


def _append(state: ModelState, merges: Sequence[Merge], reuse: Reuse) -> _Extended:
    """Return the state with merges appended; raises OperationError for one that the tokenizer cannot have."""
    sources = _read_merges(state, merges)
    tokenizer = state.tokenizer
    free = sorted(number for token, (_, number) in tokenizer.added.items() if is_tombstone(token)) if reuse else []
    ids = dict(zip(sources, chain(free, count(tokenizer.highest + 1)), strict=False))
    appended = [*merges_of(tokenizer.document["model"]), *merges]
    for name, data in list_slow_files(state):
        followed, appended = with_merged_pieces(name, data, tokenizer, ids)
        state = state.with_document(name, followed)
    if reused := free[: len(ids)]:
        state = without_placeholders(state, {tokenizer.texts[number] for number in reused})
    return _Extended(state.with_document(FILE, state.tokenizer.with_merges(appended, ids).document), ids, sources)


def _read_merges(state: ModelState, merges: Sequence[Merge]) -> dict[str, tuple[int, ...]]:
    """Return the new tokens that merges make, in their order, each with the old ones that it is joined from."""
    document, tokenizer = state.documents[FILE], state.tokenizer
    if model_kind(document) != "BPE":
        raise OperationError(
            f"a {model_kind(document)} tokenizer has no merges", where=FILE, hint="add whole words with add_words"
        )
    tail = ordered_tail(state)
    if tail is not None:
        raise OperationError(tail.describe(state.traits.model_type), hint="no token can be appended")
    model = document["model"]
    known = set(merges_of(model))
    prefix = continuing_prefix(model)
    vocabulary, has_letters = tokenizer.vocabulary, is_byte_level(document)
    sources: dict[str, tuple[int, ...]] = {}
    for number, merge in enumerate(merges, 1):
        made = product(merge, prefix)
        for part in merge:
            if part not in vocabulary and part not in sources:
                raise _fault(number, merge, f"'{part}' is not a token of the tokenizer's model, nor made before")
            if part in tokenizer.added:
                raise _fault(number, merge, f"'{part}' is an added token, which is never merged")
            if model.get("byte_fallback") and BYTE.fullmatch(part):
                raise _fault(number, merge, f"'{part}' is a byte: the decoder could not read what it is merged into")
        if merge in known:
            raise _fault(number, merge, "the tokenizer has this merge already")
        if made in tokenizer.added:
            raise _fault(number, merge, f"'{made}' is an added token, which is matched before any merge")
        if not has_letters and SPACE in made.lstrip(SPACE):
            raise _fault(number, merge, f"'{made}' goes over the border of a word")
        known.add(merge)
        if made not in vocabulary and made not in sources:
            sources[made] = tuple(source for part in merge for source in (sources.get(part) or (vocabulary[part],)))
    return sources


def _fault(number: int, merge: Merge, reason: str) -> OperationError:
    return OperationError(f"merge {number}, '{merge[0]} {merge[1]}': {reason}", hint="leave the merge out")


def _with_files(state: ModelState, merges: Sequence[Merge], ids: Mapping[str, int]) -> ModelState:
    """Return the state whose vocab.json and merges.txt follow; raises OperationError where a file cannot."""
    if VOCAB_JSON in state.documents:
        state = state.with_document(VOCAB_JSON, {**state.documents[VOCAB_JSON], **ids})
    if MERGES in state.documents:
        spaced = find_spaced(merges)
        if spaced is not None:
            raise OperationError(f"it cannot hold '{spaced}', which has a space", where=MERGES, hint=IN_ANOTHER_FORMAT)
        text = str(state.documents[MERGES])
        lines = "".join(f"{left} {right}\n" for left, right in merges)
        state = state.with_document(MERGES, f"{text}\n{lines}" if text and not text.endswith("\n") else text + lines)
    return state
