"""The files that repeat what tokenizer.json says of ids, kept in step with it."""

from __future__ import annotations

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.state import ADDED_TOKENS, TOKENIZER_CONFIG, VOCAB_JSON, VOCAB_TXT, ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.vocabulary.renumbering import Renumbering


def with_ids_of_companions(state: ModelState, renumbering: Renumbering) -> ModelState:
    """Return the state with added_tokens_decoder, added_tokens.json, vocab.json and vocab.txt in step.

    Args:
        state: The state before.
        renumbering: What becomes of ids.

    Raises:
        OperationError: A file has no way to say it.
    """
    decoder = (state.documents.get(TOKENIZER_CONFIG) or {}).get("added_tokens_decoder")
    if isinstance(decoder, dict):
        state = state.with_value(TOKENIZER_CONFIG, ("added_tokens_decoder",), _by_id(decoder, renumbering))
    for name in (ADDED_TOKENS, VOCAB_JSON):
        if name in state.documents:
            state = state.with_document(name, _by_text(state.documents[name], renumbering, name))
    if VOCAB_TXT in state.documents:
        state = state.with_document(VOCAB_TXT, _lines(str(state.documents[VOCAB_TXT]), renumbering))
    return state


def _by_id(decoder: Json, renumbering: Renumbering) -> Json:
    moved = {renumbering.new(int(number)): entry for number, entry in decoder.items()}
    left = sorted(((number, entry) for number, entry in moved.items() if number is not None), key=lambda item: item[0])
    return {str(number): entry for number, entry in left}


def _by_text(ids: Json, renumbering: Renumbering, file: str) -> Json:
    """Return a map of texts to ids, in rising order where it was."""
    if not all(isinstance(number, int) for number in ids.values()):
        raise OperationError("not a map of tokens to ids", where=file, hint="remove it if tokenizer.json is in use")
    moved = [(content, renumbering.new(number)) for content, number in ids.items()]
    left = [(content, number) for content, number in moved if number is not None]
    if list(ids.values()) == sorted(ids.values()):
        left.sort(key=lambda item: item[1])
    return dict(left)


def _lines(text: str, renumbering: Renumbering) -> str:
    """Return a list of tokens, one a line, whose line is the id."""
    lines = text.split("\n")
    end = lines.pop() if lines[-1] == "" else None
    moved = {renumbering.new(number): line for number, line in enumerate(lines)}
    moved.pop(None, None)
    if set(moved) != set(range(len(moved))):
        raise OperationError(
            "a line would be left without a token",
            where=VOCAB_TXT,
            hint="remove the file: tokenizer.json says all that it says",
        )
    ordered = [moved[number] for number in range(len(moved))]
    return "\n".join(ordered if end is None else [*ordered, end])
