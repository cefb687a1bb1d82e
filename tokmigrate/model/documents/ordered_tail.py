"""The last ids of a vocabulary where they mean something by their order: Whisper's timestamps.

transformers takes `no_timestamps_token_id + 1` for the first timestamp and every id from there on for one 20 ms later,
and the id before `no_timestamps_token_id` for the one of silence. The languages follow `<|startoftranscript|>`, in the
order of its table.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.peculiarities import IDS_AFTER_THE_LAST
from tokmigrate.model.documents.state import GENERATION, ModelState
from tokmigrate.vocabulary.renumbering import Renumbering

NO_TIMESTAMPS = "<|notimestamps|>"
_SILENCE = ("<|nospeech|>", "<|nocaptions|>")
_TASKS = ("<|translate|>", "<|transcribe|>")
LANGUAGES = "lang_to_id"


@dataclass(frozen=True)
class OrderedTail:
    """The ids that stay together and last.

    Args:
        start: The first of them.
        stop: The first id behind them.
    """

    start: int
    stop: int

    def is_kept(self, renumbering: Renumbering) -> bool:
        """Return whether they all move by the same number, and no other id comes to stand among or behind them."""
        start = renumbering.new(self.start)
        if start is None:
            return False
        shift = start - self.start
        inside = range(self.start, self.stop)
        return all(renumbering.new(number) == number + shift for number in inside) and not any(
            (new or 0) >= start and renumbering.touches(old)
            for old, new in renumbering.moves.items()
            if old not in inside
        )


def ordered_tail(state: ModelState) -> OrderedTail | None:
    """Return the ids of a model that mean something by their order, None for a model without such ids."""
    if state.traits.model_type not in IDS_AFTER_THE_LAST:
        return None
    texts = state.tokenizer.texts
    last = max(texts)
    first = state.tokenizer.ids.get(NO_TIMESTAMPS)
    if first is None:
        return OrderedTail(last + 1, max(last + 1, state.vocab_size))
    start = first - 1 if texts.get(first - 1) in _SILENCE else first
    # Older tokenizers end at <|notimestamps|>, and all rows behind it are timestamps.
    return OrderedTail(start, last + 1 if last > first else state.vocab_size)


def place_of_languages(state: ModelState) -> int:
    """Return the id that the next language gets, behind those that there are.

    Raises:
        OperationError: The model has no languages.
    """
    if ordered_tail(state) is not None:
        known = (state.documents.get(GENERATION) or {}).get(LANGUAGES)
        if known:
            return int(max(known.values())) + 1
        found = [state.tokenizer.ids[token] for token in _TASKS if token in state.tokenizer.ids]
        if found:
            return min(found)
    raise OperationError(
        f"this {state.traits.model_type} model has no tokens of languages", hint="leave out `language: true`"
    )


def with_languages(state: ModelState, tokens: tuple[str, ...]) -> ModelState:
    """Return the state in which generation_config.json lists `tokens`, which it has to have, as languages."""
    known = (state.documents.get(GENERATION) or {}).get(LANGUAGES)
    if not known:
        return state
    added = {token: state.tokenizer.ids[token] for token in tokens}
    return state.with_value(GENERATION, (LANGUAGES,), {**known, **added})


def tail_move(before: ModelState, after: ModelState) -> str | None:
    """Return in words what becomes of the ids that stay last, None where they stay where they are."""
    old, new = ordered_tail(before), ordered_tail(after)
    if old is None or new is None or old == new:
        return None
    ids = after.tokenizer.ids
    texts = before.tokenizer.texts
    first = texts.get(old.start, f"id {old.start}")
    moved = min((n for token, n in before.tokenizer.ids.items() if ids.get(token, n) != n), default=old.start)
    ahead = (
        f"'{texts[moved]}' and the ids behind it move up by {ids[texts[moved]] - moved}; " if moved < old.start else ""
    )
    return (
        f"{ahead}'{first}' and the {old.stop - old.start - 1} ids behind it move up by {new.start - old.start} as one"
        " block; data that hold their ids have to be tokenized again"
    )
