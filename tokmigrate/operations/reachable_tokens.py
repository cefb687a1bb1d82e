"""Which tokens an operation leaves that no text can produce any more, as the tokenizers library says."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.byte_letters import letters_of_bytes
from tokmigrate.model.probe.worker import call_worker
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer, model_kind
from tokmigrate.vocabulary.tokens import is_tombstone

_FEW = 8
"""Up to so many texts are looked for one after the other."""


def unreachable_tokens(before: ModelState, after: ModelState) -> tuple[str, ...]:
    """Return the tokens of the model's vocabulary that text can produce before, and cannot produce after.

    Args:
        before: The state before an operation.
        after: The state after it.

    Raises:
        TokenizerError: The tokenizers library cannot load one of the two.
    """
    old, new = before.tokenizer, after.tokenizer
    tokens = {
        token: now
        for token in _in_question(old, new)
        # An added token is matched before the model is asked.
        if token not in old.added and (now := _text_after(token, old, new)) is not None
    }
    if not tokens:
        return ()
    request = {"before": old.document, "after": new.document, "tokens": tokens}
    return tuple(call_worker("reachability", request, after.traits.worker)["unreachable"])


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
    changed = {token for token in old if token not in new} | {token for token in new if token not in old}
    # Among equal scores the order of a Unigram vocabulary decides.
    is_reordered = kind == "Unigram" and [each for each in old if each in new] != [each for each in new if each in old]
    # A word piece may have been the only one that another could stand behind.
    is_behind_others = kind == "WordPiece" and changed
    parts = ("normalizer", "pre_tokenizer")
    if is_reordered or is_behind_others or any(before.document.get(part) != after.document.get(part) for part in parts):
        return old
    for token in after.added:
        if token not in before.added and not is_tombstone(token):
            changed |= {token, token.replace(" ", "\u2581"), letters_of_bytes(token.encode("utf-8", "surrogatepass"))}
    if len(changed) <= _FEW:
        return (token for token in old if any(each in token for each in changed))
    lengths = {len(token) for token in changed}
    return (token for token in old if not changed.isdisjoint(_slices(token, lengths)))


def _slices(text: str, lengths: Collection[int]) -> Iterator[str]:
    return (text[start : start + length] for length in lengths for start in range(len(text) - length + 1))
