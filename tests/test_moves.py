"""Tokens that move together are one row of the ledger, and each of them keeps its history."""

from __future__ import annotations

import json
import sqlite3
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import TOKENS, Made, llama, migrated
from test_token_events import ids_of, removing

from tokmigrate.audit.blame import blame_text
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.errors import DriftError
from tokmigrate.state.database import open_state
from tokmigrate.state.rows import Outcome, TokenEvent, TokenEventType, TokensMoved
from tokmigrate.state.transfer import export_ledger, import_ledger, read_export, read_imported
from tokmigrate.vocabulary.ids import moves_of


def compacted(root: Path) -> Made:
    """A model whose first word was removed, so that all tokens behind it moved."""
    return migrated(root / "w", llama(root / "m"), removing("ing", ids="compact"))


def stored(made: Made, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(made.state.place) as raw:
        return list(raw.execute(query))


@given(st.dictionaries(st.integers(0, 40), st.integers(-2, 2), max_size=20))
def test_moves_hold_each_token_once_with_its_ids(shifts: dict[int, int]) -> None:
    moved = [(f"t{number}", number, number + shift) for number, shift in shifts.items()]
    moves = moves_of(moved)
    assert sorted(each for move in moves for each in move.each()) == sorted(moved)
    assert [each for move in moves for each in move.reverse.each()] == [
        (token, new, old) for move in moves for token, old, new in move.each()
    ]
    assert all(one.stop != two.start or one.shift != two.shift for one, two in pairwise(moves))


def test_a_compaction_is_one_row(tmp_path: Path) -> None:
    made = compacted(tmp_path)
    (removed,) = stored(made, "SELECT old_id FROM token_events")
    assert stored(made, "SELECT start, stop, shift, event_type FROM token_moves") == [
        (removed[0] + 1, TOKENS, -1, "moved")
    ]
    downgrade(made.workspace, made.entry("m"), "base")
    assert stored(made, "SELECT start, stop, shift, event_type FROM token_moves WHERE number = 2") == [
        (removed[0], TOKENS - 1, 1, "reverted")
    ]
    assert made.state.verify_chain() is None
    number = ids_of(tmp_path / "m")["</s>"]
    (model,) = blame_text(made.workspace, [made.entry("m")], "</s>")
    told = [
        (event.row.event.event, event.row.event.old_id, event.row.event.token_id) for event in model.tokens[0].events
    ]
    assert told == [(TokenEventType.MOVED, number, number - 1), (TokenEventType.REVERTED, number - 1, number)]


def test_an_edited_move_breaks_the_chain(tmp_path: Path) -> None:
    made = compacted(tmp_path)
    with sqlite3.connect(made.state.place) as raw:
        raw.execute("DROP TRIGGER token_moves_fixed")
        raw.execute("UPDATE token_moves SET shift = -2")
    broken = made.state.verify_chain()
    assert broken is not None
    assert broken.run_id == made.state.runs(None, 1)[0].id
    with pytest.raises(DriftError, match=broken.run_id):
        import_ledger(open_state("sqlite:///other.db", tmp_path), export_ledger(made.state), "there")


def test_moves_are_exported_and_imported(tmp_path: Path) -> None:
    made = compacted(tmp_path)
    state = made.state
    (tmp_path / "ledger.jsonl").write_text("".join(export_ledger(state).json_lines()), "utf-8")
    other = open_state("sqlite:///other.db", tmp_path)
    import_ledger(other, read_export(tmp_path / "ledger.jsonl"), "there")
    (ledger,) = read_imported(other)
    (model,) = state.list_models()
    assert ledger.token_events(model) == state.token_events(model)
    assert other.verify_chain() is None


def test_the_outcome_of_an_interrupted_run_keeps_its_moves() -> None:
    (move,) = moves_of([("a", 4, 3), ("b", 5, 4)])
    outcome = Outcome(
        tokens=(TokenEvent("r", TokenEventType.REMOVED, "x", None, 3), TokensMoved("r", TokenEventType.MOVED, move))
    )
    assert Outcome.of(json.loads(json.dumps(outcome.payload()))) == outcome
