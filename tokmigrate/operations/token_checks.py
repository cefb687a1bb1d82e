"""What operations check of tokens: that they are known, not in use, and that text can still produce them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping

from tokmigrate.errors import OperationError, suggest
from tokmigrate.formatting import format_quoted
from tokmigrate.model.documents.chat_template import find_in_templates
from tokmigrate.model.documents.roles import text_of
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.token_texts import find_named_tokens
from tokmigrate.model.tokenizer.byte_level import is_byte_level, letters_of_bytes
from tokmigrate.model.tokenizer.tokenizer_json import BYTE, FILE, Tokenizer, model_kind, post_processor_tokens
from tokmigrate.model.worker.worker import call_worker
from tokmigrate.operations.operation import Risk
from tokmigrate.settings import WorkerLimits
from tokmigrate.vocabulary.ids import is_tombstone


def id_of(state: ModelState, content: str) -> int:
    """Return the id of the token `content`; raises OperationError, with the nearest one, where it is none."""
    found = state.tokenizer.ids.get(content)
    if found is None:
        near = suggest(content, state.tokenizer.ids)
        raise OperationError(
            f"'{content}' is not a token of this tokenizer",
            hint=f"{near} If not, add it first with add_tokens" if near else "add it first with add_tokens",
        )
    return found


def risk_of_added(before: ModelState, after: ModelState) -> Risk | None:
    """Return the risk of tokens that text is made of and that became added ones, None where there are none."""
    old = before.tokenizer
    added = [token for token in after.tokenizer.added if token in old.vocabulary and token not in old.added]
    if not added:
        return None
    reason = f"text that contains {format_quoted(added)} is tokenized differently: a token with a role is never split"
    return Risk.caution(reason)


def check_not_in_use(state: ModelState, gone: frozenset[str]) -> None:
    """Raise OperationError, naming the place, where a token of `gone` is used."""
    for file, place, token in find_uses(state, gone):
        if token in gone:
            raise OperationError(
                f"'{token}' is used by {place}", where=file, hint="let another token do that first, or keep it"
            )
    letters = sorted(filter(find_letters(state.documents[FILE]), gone & state.tokenizer.vocabulary.keys()))
    if letters:
        are = "is a letter" if len(letters) == 1 else "are letters"
        raise OperationError(
            f"{format_quoted(letters)} {are} of the alphabet; some text could not be written any more",
            hint="keep all letters and bytes",
        )


def find_uses(state: ModelState, gone: frozenset[str]) -> Iterator[tuple[str, str, str | None]]:
    """Yield the tokens that files name, with file and place; of those in chat templates the added ones of `gone`."""
    document = state.documents[FILE]
    for token in post_processor_tokens(document):
        yield FILE, "the post-processor", token
    yield FILE, "padding", (document.get("padding") or {}).get("pad_token")
    yield FILE, "the model, for what is unknown", state.tokenizer.unknown
    for file, path, entry in find_named_tokens(state):
        # A token that is only listed loses its place in the list.
        if path[0] != "added_tokens_decoder" and not isinstance(path[-1], int):
            yield file, f"'{'.'.join(map(str, path))}'", text_of(entry)
    # A word of the vocabulary stands in a template by chance; an added token does not.
    named = sorted(token for token in gone if token in state.tokenizer.added)
    for token, template in find_in_templates(state, named).items():
        yield template.file, template.kind, token


def find_letters(document: Json) -> Callable[[str], bool]:
    """Return what tells whether a token of the model is one of the letters or bytes that all text is made of."""
    has_letters, has_bytes = is_byte_level(document), bool(document["model"].get("byte_fallback"))
    return lambda token: has_bytes if BYTE.fullmatch(token) else has_letters and len(token) == 1


_FEW = 32
"""Up to so many texts are looked for one after the other."""


def unreachable_tokens(before: ModelState, after: ModelState) -> tuple[str, ...]:
    """Return the tokens of the model's vocabulary that text can produce before an operation, and cannot after it."""
    old, new = before.tokenizer, after.tokenizer
    tokens = {
        token: now
        for token in _in_question(old, new)
        # An added token is matched before the model is asked.
        if token not in old.added and (now := _text_after(token, old, new)) is not None
    }
    return find_lost(old, new, tokens, after.traits.worker)


def find_lost(
    before: Tokenizer | None, after: Tokenizer, tokens: Mapping[str, str], limits: WorkerLimits
) -> tuple[str, ...]:
    """Return those of `tokens`, as they are after, that text produces before and not after; all are of the models.

    With None for `before` it returns all that text does not produce after.
    """
    if not tokens:
        return ()
    # Without the post-processor, whose template can drop a text.
    old, new = (
        each and json.dumps({**each.document, "post_processor": None}, ensure_ascii=False) for each in (before, after)
    )
    request = {"before": old, "after": new, "tokens": tokens}
    return tuple(call_worker("reachability", request, limits)["unreachable"])


def find_unreachable(state: ModelState, tokens: Iterable[str]) -> tuple[str, ...]:
    """Return those of `tokens`, of the model's vocabulary, that no text produces.

    What `ignore_merges` finds counts as unreachable: only as a whole word, and not in every program, is it a token.

    Raises:
        TokenizerError: The tokenizers library cannot load the tokenizer.
    """
    document = state.tokenizer.document
    if document["model"].get("ignore_merges"):
        document = {**document, "model": {**document["model"], "ignore_merges": False}}
    return find_lost(None, Tokenizer(document), {token: token for token in tokens}, state.traits.worker)


def _text_after(token: str, old: Tokenizer, new: Tokenizer) -> str | None:
    """Return the text that a token has after an operation, None where it went or became an added one."""
    text = token
    if token not in new.ids:
        text = new.texts.get(old.ids[token], token)
        if text in old.ids or is_tombstone(text):
            return None
    return text if text in new.vocabulary and text not in new.added else None


def _in_question(before: Tokenizer, after: Tokenizer) -> Iterable[str]:
    """Return the tokens whose own text may be tokenized differently; all others are as reachable as before."""
    old, new = before.vocabulary, after.vocabulary
    kind = model_kind(before.document)
    # A copy: the result of `^` has room for the whole vocabulary, and going through it takes as long.
    changed: set[str] = set() if old is new else set(old.keys() ^ new.keys())
    # Among equal scores the order of a Unigram vocabulary decides.
    is_reordered = (
        kind == "Unigram"
        and old is not new
        and [each for each in old if each in new] != [each for each in new if each in old]
    )
    # A word piece may have been the only one that another could stand behind.
    is_behind_others = kind == "WordPiece" and changed
    parts = ("normalizer", "pre_tokenizer")
    if is_reordered or is_behind_others or any(before.document.get(part) != after.document.get(part) for part in parts):
        return old
    for token in after.added:
        if token not in before.added and not is_tombstone(token):
            changed |= {token, token.replace(" ", "\u2581"), letters_of_bytes(token.encode("utf-8", "surrogatepass"))}
    if len(changed) <= _FEW:
        return before.model.find_containing(changed)
    lengths = {len(token) for token in changed}
    least = min(lengths)
    beginnings = {token[:least] for token in changed}

    def begins(token: str, start: int) -> bool:
        return token[start : start + least] in beginnings and any(
            token[start : start + length] in changed for length in lengths
        )

    return (token for token in old if any(begins(token, start) for start in range(len(token) - least + 1)))
