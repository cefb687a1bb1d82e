"""The tokens of a report: what is at each id, and an entry for each token that migrations or roles set apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

from tokmigrate.audit.token_history import TokenHistory, read_token_histories
from tokmigrate.audit.training import TokenTraining, Training
from tokmigrate.model.documents.roles import ROLES, special_token
from tokmigrate.model.documents.state import Made
from tokmigrate.model.formats.byte_letters import is_byte_level, text_of_letters
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE, FLAGS
from tokmigrate.state.rows import TokenEventType, TokenRow
from tokmigrate.vocabulary.tokens import is_tombstone

Kind = Literal["base", "added", "renamed", "moved", "reinitialised", "placeholder", "spare"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What is at an id: a token of the baseline, one that migrations added or changed, or none in use."""

# The first of these events that a token has is its kind.
_BY_EVENT: Mapping[TokenEventType, Kind] = {
    TokenEventType.ADDED: "added",
    TokenEventType.REINITIALISED: "reinitialised",
    TokenEventType.RENAMED: "renamed",
    TokenEventType.MOVED: "moved",
}
# Of a row whose values came from a file it is not known.
_TRAINED = {Training.TRAINED: True, Training.UNTRAINED: False, Training.MOVED: False, Training.PARTLY: False}

# The letters for space, line feed, tab and carriage return, which readers of vocabularies know.
_WELL_KNOWN = str.maketrans("", "", "ĠĊĉč")


def new_rows(snapshot: Snapshot) -> dict[int, Made]:
    """Return the rows that migrations made, as the stamp has them."""
    # One that only the shorter tensors got has no revision: the others had it before.
    return {row: made for row, made in snapshot.state.lineage.fresh() if isinstance(made, Made) and made.revision}


def histories_by_id(snapshot: Snapshot, rows: Iterable[TokenRow]) -> tuple[dict[int, TokenHistory], list[TokenHistory]]:
    """Return the history of each token by its id, a placeholder's being that of the removed token; and the others.

    Args:
        snapshot: The model.
        rows: The events of the migrations that it has, the earliest first.
    """
    tokenizer = snapshot.state.tokenizer
    by_id: dict[int, TokenHistory] = {}
    removed: list[TokenHistory] = []
    for history in read_token_histories(rows):
        if history.token is not None:
            if history.token in tokenizer.ids:
                by_id[tokenizer.ids[history.token]] = history
            continue
        number = history.events[-1].event.old_id
        if number is not None and is_tombstone(tokenizer.texts.get(number, "")) and number not in by_id:
            by_id[number] = history
        else:
            removed.append(history)
    return by_id, removed


def kinds_by_id(snapshot: Snapshot, histories: Mapping[int, TokenHistory]) -> Iterator[Kind]:
    """Yield what is at each id, from 0; where the ledger has nothing, the stamp tells what is not of the baseline."""
    state, made = snapshot.state, new_rows(snapshot)
    texts = state.tokenizer.texts
    moved = {
        row for start, piece in state.lineage.kept() if piece.start != start for row in range(start, start + len(piece))
    }
    for number in range(max(state.rows, max(texts, default=-1) + 1)):
        text = texts.get(number)
        if text is None:
            yield "spare"
        elif is_tombstone(text):
            yield "placeholder"
        else:
            events = {row.event.event for row in histories[number].events} if number in histories else ()
            found = next((kind for event, kind in _BY_EVENT.items() if event in events), None)
            yield found or ("added" if number in made else "moved" if number in moved else "base")


def runs_of(kinds: Sequence[Kind]) -> list[dict[str, Any]]:
    """Return what is at the ids as runs: a kind, the first id and the last."""
    starts = [number for number, kind in enumerate(kinds) if number == 0 or kinds[number - 1] != kind]
    stops = [*starts[1:], len(kinds)]
    return [{"kind": kinds[start], "first": start, "last": stop - 1} for start, stop in zip(starts, stops, strict=True)]


def token_entries(
    snapshot: Snapshot,
    histories: Mapping[int, TokenHistory],
    removed: Iterable[TokenHistory],
    kinds: Sequence[Kind],
    training: Mapping[int, TokenTraining],
) -> Iterator[dict[str, Any]]:
    """Yield an entry for each token that a migration changed, and each added or special one, by id; removed ones last.

    Args:
        snapshot: The model.
        histories: The histories by id.
        removed: Those of removed tokens without a placeholder.
        kinds: What is at each id.
        training: The training of the rows that migrations initialised, by id.
    """
    tokenizer, made = snapshot.state.tokenizer, new_rows(snapshot)
    roles: dict[str | None, list[str]] = {}
    for role in ROLES:
        roles.setdefault(special_token(snapshot.state, role), []).append(role)
    for number, text in sorted(tokenizer.texts.items()):
        added = tokenizer.token(text)
        if kinds[number] != "base" or added is not None or text in roles:
            trained = training.get(number) if kinds[number] != "placeholder" else None
            entry = _entry(text, number, kinds[number], histories.get(number), trained)
            entry["flags"] = [flag for flag in FLAGS if added is not None and getattr(added, flag)]
            entry["roles"] = roles.get(text, [])
            if number in made:
                entry["revision"] = entry["revision"] or made[number].revision
            yield entry
    for history in removed:
        yield _entry(history.events[-1].event.token, None, "removed", history, None)


def _entry(
    text: str, number: int | None, kind: str, history: TokenHistory | None, trained: TokenTraining | None
) -> dict[str, Any]:
    events = [row.event for row in history.events] if history else []
    figures = trained.figures if trained else {}
    return {
        "token": text,
        "id": number,
        "kind": kind,
        "flags": [],
        "roles": [],
        "init": next((event.init for event in reversed(events) if event.init is not None), None),
        "trained": _TRAINED.get(trained.training) if trained else None,
        "training": trained.training.value if trained else None,
        "figures": {side: {"change": each.change, "likeness": each.likeness} for side, each in figures.items()},
        "revision": events[-1].revision if events else None,
        "events": [{**asdict(event), "event": event.event.value} for event in events],
    }


def byte_level_readings(snapshot: Snapshot) -> dict[int, str]:
    """Return by id what tokens stand for, where a byte-level vocabulary writes them in letters that nobody can read."""
    if not is_byte_level(snapshot.state.documents[FILE]):
        return {}
    tokenizer = snapshot.state.tokenizer
    return {
        number: text_of_letters(token)
        for token, number in tokenizer.vocabulary.items()
        if token not in tokenizer.added and not token.translate(_WELL_KNOWN).isascii()
    }
