"""The state: nothing is lost under races and crashes, and the ledger notices every edit."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from tokmigrate.errors import BusyError, DriftError, StorageError, UnknownNameError, UsageError
from tokmigrate.state.database import State, open_state, open_state_if_present
from tokmigrate.state.rows import (
    AppliedRecord,
    Direction,
    Happened,
    ModelRow,
    OperationRow,
    Origin,
    Outcome,
    Status,
    TokenEvent,
)
from tokmigrate.state.schema import LEDGER, SET_ONCE, metadata, operations, tokens
from tokmigrate.state.who import Who, git_commit, identify, library_versions

URL = "sqlite:///.tokmigrate/state.db"
WHO = Who("ada", "analytical-engine", 1843, libraries={"python": "3.11"}, git_commit="c0ffee")
EVENT = TokenEvent("aaaa", Happened.ADDED, "<|im_start|>", 32000, init={"strategy": "mean"}, row_digest="d1")


@pytest.fixture
def state(tmp_path: Path) -> State:
    return open_state(URL, tmp_path)


@pytest.fixture
def model(state: State, tmp_path: Path) -> ModelRow:
    return state.model_for("demo", tmp_path / "demo", "lineage")


def record(revision: str, position: int, undo: str | None = "u") -> AppliedRecord:
    return AppliedRecord(revision, position, f"v1:{revision}", f"Do {revision}", undo, {"a": "1"}, {"a": "2"})


def begun(state: State, model: ModelRow, direction: Direction = Direction.UPGRADE) -> OperationRow:
    return state.begin(
        model,
        direction,
        from_revision=None,
        to_revision="aaaa",
        revisions=["aaaa"],
        generation_before=None,
        generation_after="g1",
        who=WHO,
    )


def upgraded(state: State, model: ModelRow, outcome: Outcome) -> OperationRow:
    operation = begun(state, model)
    state.prepare(operation.id, outcome)
    return state.finish(operation.id)


def downgraded(state: State, model: ModelRow, revisions: tuple[str, ...]) -> OperationRow:
    operation = begun(state, model, Direction.DOWNGRADE)
    state.prepare(operation.id, Outcome(reverted=revisions))
    return state.finish(operation.id)


def revisions_of(state: State, model: ModelRow) -> list[str]:
    return [row.record.revision for row in state.applied_now(model)]


def database_of(state: State) -> Path:
    return Path(state.place)


# --- opening


def test_reading_makes_no_database(tmp_path: Path) -> None:
    assert open_state_if_present(URL, tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").touch()
    assert open_state_if_present("sqlite:///empty.db", tmp_path) is None
    made = open_state(URL, tmp_path)
    assert database_of(made) == tmp_path / ".tokmigrate" / "state.db"
    again = open_state_if_present(URL, tmp_path)
    assert again is not None
    assert again.place == made.place


def test_durable_settings(state: State) -> None:
    with state.reading() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert found == {"journal_mode": "delete", "synchronous": 3, "foreign_keys": 1}


def test_a_newer_schema_is_refused(state: State, tmp_path: Path) -> None:
    with sqlite3.connect(database_of(state)) as raw:
        raw.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")
    for opened in (open_state, open_state_if_present):
        with pytest.raises(DriftError, match="schema version 2") as raised:
            opened(URL, tmp_path)
        assert raised.value.hint is not None


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "mysql://host/db", "not a url", "nonsense://x", "sqlite:///file:x?uri=true"],
)
def test_urls_that_cannot_be_meant(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_state(url, tmp_path)
    assert raised.value.hint is not None
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_or_foreign_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "damaged.db").write_bytes(b"this is no database, and it is long enough" * 100)
    with sqlite3.connect(tmp_path / "foreign.db") as raw:
        raw.execute("CREATE TABLE models (x)")
    with sqlite3.connect(tmp_path / "foreign-meta.db") as raw:
        raw.execute("CREATE TABLE meta (x)")
    for name in ("damaged", "foreign", "foreign-meta"):
        with pytest.raises(StorageError) as raised:
            open_state(f"sqlite:///{name}.db", tmp_path)
        assert raised.value.hint is not None
    with sqlite3.connect(tmp_path / "foreign.db") as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("models",)]


def test_the_schema_compiles_for_postgresql() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    tables = "".join(str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables)
    assert "CREATE TABLE applied" in tables
    assert "AUTOINCREMENT" not in tables
    indexes = {
        str(index.name): str(CreateIndex(index).compile(dialect=dialect))
        for table in metadata.tables.values()
        for index in table.indexes
    }
    assert "WHERE status IN ('STAGING', 'PREPARED')" in indexes["one_active_operation"]
    assert "WHERE reverted_by IS NULL" in indexes["applied_once"]


# --- models and tags


def test_a_model_is_its_resolved_path(state: State, tmp_path: Path) -> None:
    first = state.model_for("demo", tmp_path / "demo")
    (tmp_path / "alias").symlink_to(tmp_path / "demo")
    second = state.model_for("renamed", tmp_path / "alias", "lineage")
    third = state.model_for("renamed", tmp_path / "x" / ".." / "demo", "another")
    assert first.id == second.id == third.id
    assert (first.lineage, second.lineage, third.lineage) == ("", "lineage", "lineage")
    assert third.name == "renamed"
    assert state.known_models() == (third,)


def test_tags(state: State) -> None:
    assert state.tag("release") is None
    state.set_tag("release", "aaaa")
    state.set_tag("release", "bbbb")
    state.set_tag("alpha", "aaaa")
    assert state.tag("release") == "bbbb"
    assert list(state.all_tags().items()) == [("alpha", "aaaa"), ("release", "bbbb")]


# --- the life of an operation


def test_up_and_down_leave_their_history(state: State, model: ModelRow) -> None:
    up = upgraded(state, model, Outcome(applied=(record("aaaa", 0), record("bbbb", 1)), tokens=(EVENT,)))
    assert up.status is Status.APPLIED
    assert up.who == WHO
    assert up.finished is not None
    assert up.finished >= up.started
    assert up.payload is None
    down = downgraded(state, model, ("bbbb",))
    again = upgraded(state, model, Outcome(applied=(record("bbbb", 1, undo="v"),)))
    assert [(row.record, row.operation_id) for row in state.applied_now(model)] == [
        (record("aaaa", 0), up.id),
        (record("bbbb", 1, undo="v"), again.id),
    ]
    assert [(row.record.revision, row.reverted_by) for row in state.applied_ever(model)] == [
        ("aaaa", None),
        ("bbbb", down.id),
        ("bbbb", None),
    ]
    assert [row.id for row in state.operations(model, None)] == [again.id, down.id, up.id]
    assert [row.id for row in state.operations(None, 1)] == [again.id]
    assert state.verify_chain() is None


def test_finish_is_idempotent(state: State, model: ModelRow) -> None:
    outcome = Outcome(applied=(record("aaaa", 0),), tokens=(EVENT,))
    operation = upgraded(state, model, outcome)
    assert state.finish(operation.id) == operation
    assert len(state.applied_ever(model)) == len(state.token_events(model)) == 1
    down = downgraded(state, model, ("aaaa",))
    assert state.finish(down.id) == down


def test_the_payload_survives_for_recovery(state: State, model: ModelRow, tmp_path: Path) -> None:
    outcome = Outcome((record("aaaa", 0), record("bbbb", 1, None)), ("cccc",), (EVENT,))
    operation = begun(state, model)
    state.prepare(operation.id, {**outcome.payload(), "stage": "x"})
    reopened = open_state_if_present(URL, tmp_path)
    assert reopened is not None
    found = reopened.active(model)
    assert found is not None
    assert found.status is Status.PREPARED
    assert found.payload is not None
    assert found.payload["stage"] == "x"
    assert Outcome.of(found.payload) == outcome


def test_one_active_operation_per_model(state: State, model: ModelRow, tmp_path: Path) -> None:
    operation = begun(state, model)
    assert state.active(model) == operation
    with pytest.raises(BusyError, match=r"ada on analytical-engine") as raised:
        begun(state, model)
    assert raised.value.hint is not None
    with pytest.raises(BusyError):
        state.adopt(model, [record("aaaa", 0)])
    begun(state, state.model_for("other", tmp_path / "other"))
    state.fail(operation.id, "no space")
    begun(state, model)


def test_the_index_alone_holds_one_active_operation(state: State, model: ModelRow) -> None:
    first = begun(state, model)
    state.fail(first.id, "x")
    begun(state, model)
    with pytest.raises(StorageError, match="UNIQUE"), state.writing() as connection:
        connection.execute(update(operations).values(status="STAGING"))
    assert [row.status for row in state.operations(model, None)] == [Status.STAGING, Status.FAILED]


def test_compare_and_set(state: State, model: ModelRow) -> None:
    operation = begun(state, model)
    with pytest.raises(BusyError, match="STAGING"):
        state.finish(operation.id)
    with pytest.raises(BusyError, match="STAGING"):
        state.advance(operation.id, Status.PREPARED, Status.ABORTED)
    state.prepare(operation.id, Outcome())
    with pytest.raises(BusyError, match="PREPARED"):
        state.prepare(operation.id, Outcome())
    with pytest.raises(BusyError, match="PREPARED"):
        state.advance(operation.id, Status.STAGING, Status.ABORTED)
    aborted = state.advance(operation.id, Status.PREPARED, Status.ABORTED, "its process died")
    assert (aborted.status, aborted.error) == (Status.ABORTED, "its process died")
    assert state.fail(operation.id, "later") == aborted
    with pytest.raises(BusyError, match="ABORTED"):
        state.finish(operation.id)
    with pytest.raises(ValueError, match="cannot be advanced"):
        state.advance(operation.id, Status.ABORTED, Status.STAGING)
    with pytest.raises(ValueError, match="cannot be advanced"):
        state.advance(operation.id, Status.STAGING, Status.APPLIED)
    with pytest.raises(UnknownNameError):
        state.finish("none")
    assert state.operation("none") is None


def test_a_ledger_that_contradicts_keeps_all_as_it_was(state: State, model: ModelRow) -> None:
    upgraded(state, model, Outcome(applied=(record("aaaa", 0),)))
    for outcome in (
        Outcome(applied=(record("bbbb", 1), record("aaaa", 2)), tokens=(EVENT,)),
        Outcome(applied=(record("bbbb", 0),), tokens=(EVENT,)),
        Outcome(reverted=("aaaa", "cccc"), tokens=(EVENT,)),
        Outcome(reverted=("aaaa", "aaaa"), tokens=(EVENT,)),
    ):
        operation = begun(state, model)
        state.prepare(operation.id, outcome)
        with pytest.raises(DriftError) as raised:
            state.finish(operation.id)
        assert raised.value.hint is not None
        assert revisions_of(state, model) == ["aaaa"]
        assert state.token_events(model) == ()
        assert state.active(model) is not None
        state.fail(operation.id, "contradiction")
    assert state.verify_chain() is None


def test_the_state_follows_the_stamp(state: State, model: ModelRow) -> None:
    upgraded(state, model, Outcome(applied=(record("aaaa", 0), record("bbbb", 1))))
    stamped = [record("aaaa", 0), record("cccc", 1), record("dddd", 2)]
    operation = state.adopt(model, stamped, gone=["bbbb"], who=WHO)
    assert operation is not None
    assert operation.direction is Direction.ADOPT
    assert [(row.record.revision, row.origin, row.record.undo) for row in state.applied_now(model)] == [
        ("aaaa", Origin.APPLIED, "u"),
        ("cccc", Origin.ADOPTED, None),
        ("dddd", Origin.ADOPTED, None),
    ]
    assert [row.reverted_by for row in state.applied_ever(model)][1] == operation.id
    assert state.adopt(model, stamped) is None
    assert len(state.operations(model, None)) == 2


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(), max_size=12) | st.sampled_from(["\0", "\ud800", "\\u0000", "\\", "<|im_start|>"]))
def test_every_token_text_comes_back(state: State, model: ModelRow, text: str) -> None:
    event = TokenEvent("aaaa", Happened.RENAMED, text, 1, 1, old_token=text + "!", init={"text": text})
    upgraded(state, model, Outcome(tokens=(event,)))
    assert state.token_events(model, text)[-1].event == event
    assert state.token_events(model, text + "!")[-1].event == event
    assert state.token_events(model)[-1].event == event


# --- the chain


def test_a_run_that_ended_is_sealed_once(state: State, model: ModelRow) -> None:
    failed = begun(state, model)
    state.fail(failed.id, "no space")
    state.fail(failed.id, "again")
    aborted = begun(state, model)
    state.advance(aborted.id, Status.STAGING, Status.ABORTED)
    done = upgraded(state, model, Outcome(applied=(record("aaaa", 0),)))
    state.finish(done.id)
    adopted = state.adopt(model, [record("bbbb", 1)], gone=["aaaa"])
    assert adopted is not None
    under_way = begun(state, model)
    with sqlite3.connect(database_of(state)) as raw:
        found = raw.execute("SELECT operation_id, reverted FROM endings ORDER BY number").fetchall()
    assert found == [(failed.id, "[]"), (aborted.id, "[]"), (done.id, "[]"), (adopted.id, "[1]")]
    assert state.verify_chain() is None
    tamper(database_of(state), "UPDATE operations SET status = 'APPLIED' WHERE id = ?", under_way.id)
    broken = state.verify_chain()
    assert broken is not None
    assert (broken.table, broken.number) == ("operations", 5)


def test_runs_that_ended_before_there_were_seals_are_sealed(state: State, model: ModelRow, tmp_path: Path) -> None:
    database = filled(state, model)
    downgraded(state, model, ("r3",))
    begun(state, model)
    with sqlite3.connect(database) as raw:
        raw.execute("DROP TABLE endings")
        raw.execute("DELETE FROM chains WHERE name = 'endings'")
    assert state.verify_chain() is None
    open_state(URL, tmp_path)
    with sqlite3.connect(database) as raw:
        assert raw.execute("SELECT reverted FROM endings ORDER BY number").fetchall() == [("[]",)] * 4 + [("[4]",)]
    assert state.verify_chain() is None


def filled(state: State, model: ModelRow) -> Path:
    for number in range(4):
        events = tuple(TokenEvent(f"r{number}", Happened.ADDED, f"<{number}-{n}>", 10 * number + n) for n in range(3))
        upgraded(state, model, Outcome(applied=(record(f"r{number}", number),), tokens=events))
    assert state.verify_chain() is None
    return database_of(state)


def tamper(database: Path, statement: str, *values: object) -> int:
    """Run a statement with the triggers out of the way, and put them back."""
    with sqlite3.connect(database) as raw:
        triggers = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            raw.execute(f"DROP TRIGGER {name}")
        changed = raw.execute(statement, values).rowcount
        for _, sql in triggers:
            raw.execute(sql)
    raw.close()
    return changed


EDITABLE = {table.name: [column.name for column in table.columns if column.name not in SET_ONCE] for table in LEDGER}


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, bytes]:
    """A state, and the database with four revisions that each test puts into its place."""
    folder = tmp_path_factory.mktemp("chained")
    state = open_state(URL, folder)
    return state, filled(state, state.model_for("demo", folder / "demo")).read_bytes()


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, bytes]:
    """A state with six runs that ended, one of which took a revision back and one of which failed."""
    folder = tmp_path_factory.mktemp("ended")
    state = open_state(URL, folder)
    model = state.model_for("demo", folder / "demo")
    filled(state, model)
    downgraded(state, model, ("r3",))
    state.fail(begun(state, model).id, "no space")
    return state, database_of(state).read_bytes()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_edited_row_is_found(chained: tuple[State, bytes], data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(sorted(EDITABLE)))
    column = data.draw(st.sampled_from(EDITABLE[table]))
    number = data.draw(st.integers(1, 12 if table == "tokens" else 4))
    value = data.draw(st.none() | st.integers(100, 10**9) | st.text("abc{}[]\\u0é", max_size=8) | st.binary(max_size=4))
    state, original = chained
    database_of(state).write_bytes(original)
    try:
        changed = tamper(
            database_of(state),
            f"UPDATE {table} SET {column} = ?1 "  # noqa: S608
            f"WHERE number = ?2 AND {column} IS NOT CAST(?1 AS TEXT) AND {column} IS NOT ?1",
            value,
            number,
        )
    except sqlite3.IntegrityError:
        return
    try:
        broken = state.verify_chain()
    except StorageError:
        return  # text that is no UTF-8: the database itself is found damaged
    assert (broken is not None) == (changed == 1)
    if broken is not None:
        assert broken.table == table
        assert broken.number in (number, number + 1) or column == "number"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_edit_of_a_run_that_ended_is_found(ended: tuple[State, bytes], data: st.DataObject) -> None:
    column = data.draw(
        st.sampled_from(["applied.reverted_by", *(f"operations.{each.name}" for each in operations.columns)])
    )
    table, name = column.split(".")
    number = data.draw(st.integers(1, 4 if table == "applied" else 6))
    value = data.draw(st.none() | st.integers(100, 10**9) | st.text("abc{}[]\\u0é", max_size=8))
    state, original = ended
    database_of(state).write_bytes(original)
    try:
        changed = tamper(
            database_of(state),
            f"UPDATE {table} SET {name} = ?1 "  # noqa: S608
            f"WHERE number = ?2 AND {name} IS NOT CAST(?1 AS TEXT) AND {name} IS NOT ?1",
            value,
            number,
        )
    except sqlite3.IntegrityError:
        return
    broken = state.verify_chain()
    assert (broken is not None) == (changed == 1)
    if broken is not None:
        assert broken.table in (table, "endings")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.sampled_from(["operations", "endings"]), dropped=st.integers(1, 6))
def test_every_run_that_is_gone_is_found(ended: tuple[State, bytes], table: str, dropped: int) -> None:
    state, original = ended
    database_of(state).write_bytes(original)
    assert tamper(database_of(state), f"DELETE FROM {table} WHERE number = ?", dropped) == 1  # noqa: S608
    assert state.verify_chain() is not None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.sampled_from(["tokens", "applied"]), dropped=st.sets(st.integers(1, 12), min_size=1))
def test_every_removed_row_is_found(chained: tuple[State, bytes], table: str, dropped: set[int]) -> None:
    state, original = chained
    database_of(state).write_bytes(original)
    listed = ", ".join(map(str, dropped))
    changed = tamper(database_of(state), f"DELETE FROM {table} WHERE number IN ({listed})")  # noqa: S608
    broken = state.verify_chain()
    assert (broken is not None) == (changed > 0)
    if broken is not None:
        assert (broken.table, broken.number) == (table, min(dropped))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tokens SET number = CASE number WHEN 3 THEN -4 ELSE -3 END WHERE number IN (3, 4)",
        "INSERT INTO tokens SELECT 13, model_id, operation_id, revision, event, token, token_id, old_id, old_token, "
        "init, row_digest, recorded_at, previous_hash, hash FROM tokens WHERE number = 12",
        "UPDATE chains SET head = 'x' WHERE name = 'tokens'",
        "UPDATE chains SET length = 11 WHERE name = 'tokens'",
        "DELETE FROM chains",
    ],
)
def test_swapped_and_slipped_in_rows_are_found(chained: tuple[State, bytes], statement: str) -> None:
    state, original = chained
    database_of(state).write_bytes(original)
    tamper(database_of(state), statement)
    assert state.verify_chain() is not None


@pytest.mark.parametrize(("number", "found"), [(5, 6), (12, 12)])
def test_a_row_forged_with_its_own_hash_is_found(chained: tuple[State, bytes], number: int, found: int) -> None:
    state, original = chained
    database_of(state).write_bytes(original)
    columns = [column.name for column in tokens.columns if column.name != "hash"]
    with sqlite3.connect(database_of(state)) as raw:
        raw.row_factory = sqlite3.Row
        row = dict(raw.execute("SELECT * FROM tokens WHERE number = ?", [number]).fetchone())
    stored = {name: row[name] for name in columns}
    assert chain_hash(stored) == row["hash"]
    stored["token"] = "<forged>"
    tamper(
        database_of(state),
        "UPDATE tokens SET token = '<forged>', hash = ?1 WHERE number = ?2",
        chain_hash(stored),
        number,
    )
    broken = state.verify_chain()
    assert broken is not None
    assert broken.number == found


def chain_hash(stored: dict[str, object]) -> str:
    """The published format, written down once more."""
    text = json.dumps([1, "tokens", stored], sort_keys=True, separators=(",", ":"))
    return blake3(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM tokens",
        "DELETE FROM applied WHERE number = 2",
        "UPDATE tokens SET token = 'x' WHERE number = 1",
        "UPDATE applied SET checksum = 'x' WHERE number = 1",
        "UPDATE applied SET reverted_by = NULL WHERE number = 4",
    ],
)
def test_sqlite_refuses_to_rewrite_the_ledger(state: State, model: ModelRow, statement: str) -> None:
    database = filled(state, model)
    downgraded(state, model, ("r3",))
    with sqlite3.connect(database) as raw, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute(statement)
    assert state.verify_chain() is None


# --- processes

PRELUDE = """
import sys
from pathlib import Path
from tokmigrate.errors import BusyError
from tokmigrate.state.database import open_state
from tokmigrate.state.rows import *
from tokmigrate.state.who import Who
workspace, name, me = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
state = open_state("sqlite:///.tokmigrate/state.db", workspace)
model = state.model_for(name, workspace / name)
who = Who("ada", "here", int(me))
def begin():
    return state.begin(model, Direction.UPGRADE, from_revision=None, to_revision=me, revisions=[me],
                       generation_before=None, generation_after=None, who=who)
def outcome(n):
    return Outcome(applied=(AppliedRecord(f"{me}-{n}", len(state.applied_now(model)), "c"),),
                   tokens=tuple(TokenEvent(f"{me}-{n}", Happened.ADDED, f"<{me}-{n}-{i}>", i) for i in range(5)))
print("ready", flush=True)
sys.stdin.readline()
"""


def children(workspace: Path, script: str, *names: str) -> list[subprocess.Popen[str]]:
    """Start one process for each name; each waits for a line before it goes on after the prelude."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script, str(workspace), name, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, name in enumerate(names)
    ]
    for child in started:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    return started


def results(started: list[subprocess.Popen[str]]) -> list[str]:
    for child in started:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    output = [child.communicate(timeout=60)[0].strip() for child in started]
    assert [child.returncode for child in started] == [0] * len(started)
    return output


def test_four_processes_lose_nothing(tmp_path: Path) -> None:
    script = """
import time
done = 0
while done < 5:
    try:
        operation = begin()
    except BusyError:
        time.sleep(0.005)
        continue
    state.prepare(operation.id, outcome(done))
    state.finish(operation.id)
    done += 1
"""
    results(children(tmp_path, script, "shared", "shared", "shared", "own"))
    state = open_state(URL, tmp_path)
    shared, own = sorted(state.known_models(), key=lambda model: model.name, reverse=True)
    assert sorted(revisions_of(state, shared)) == sorted(f"{me}-{n}" for me in range(3) for n in range(5))
    assert revisions_of(state, own) == [f"3-{n}" for n in range(5)]
    assert len(state.token_events(shared)) == 75
    assert [row.number for row in state.operations(None, None)] == list(range(20, 0, -1))
    assert state.verify_chain() is None


def test_four_processes_that_race_get_one_operation(tmp_path: Path) -> None:
    script = """
try:
    begin()
    print("begun")
except BusyError:
    print("busy")
"""
    assert sorted(results(children(tmp_path, script, *["shared"] * 4))) == ["begun", "busy", "busy", "busy"]


def test_four_processes_finish_one_operation_once(state: State, model: ModelRow, tmp_path: Path) -> None:
    operation = begun(state, model)
    state.prepare(operation.id, Outcome(applied=(record("aaaa", 0),), tokens=(EVENT,)))
    script = f"print(state.finish({operation.id!r}).status)"
    assert results(children(tmp_path, script, *["demo"] * 4)) == ["APPLIED"] * 4
    assert len(state.applied_ever(model)) == len(state.token_events(model)) == 1


def test_four_processes_make_one_database(tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()
    script = """
again = open_state("sqlite:///later/new/state.db", workspace)
again.model_for(me, workspace / me)
"""
    results(children(tmp_path, script, *["demo"] * 4))
    later = open_state_if_present("sqlite:///later/new/state.db", tmp_path)
    assert later is not None
    assert len(later.known_models()) == 4


def killed(child: subprocess.Popen[str], after: Callable[[], None]) -> None:
    with child:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
        after()
        child.send_signal(signal.SIGKILL)


def test_killed_inside_the_transaction_nothing_happened(state: State, model: ModelRow, tmp_path: Path) -> None:
    script = """
import time
from tokmigrate.state import ledger
operation = begin()
state.prepare(operation.id, outcome(0))
with state.writing() as connection:
    row = ledger.operation_in(connection, operation.id)
    ledger._finish(connection, row, Outcome.of(row.payload))
    # As after a spill: the pages are in the file, the journal is hot.
    connection.exec_driver_sql("PRAGMA cache_size = 1")
    connection.exec_driver_sql("CREATE TABLE ballast AS WITH RECURSIVE n(x) AS "
        "(SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000) SELECT x, randomblob(50) FROM n")
    print("inside", flush=True)
    time.sleep(60)
"""
    (child,) = children(tmp_path, script, "demo")
    assert child.stdout is not None
    out = child.stdout

    def inside() -> None:
        assert out.readline() == "inside\n"

    killed(child, inside)
    assert database_of(state).with_name("state.db-journal").exists()
    found = state.active(model)
    assert found is not None
    assert found.status is Status.PREPARED
    assert state.applied_ever(model) == ()
    assert state.token_events(model) == ()
    assert state.verify_chain() is None
    assert state.finish(found.id).status is Status.APPLIED
    assert revisions_of(state, model) == ["0-0"]
    assert len(state.token_events(model)) == 5
    assert state.verify_chain() is None


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.05, 0.11])
def test_killed_at_any_moment_the_next_one_goes_on(state: State, model: ModelRow, tmp_path: Path, pause: float) -> None:
    script = """
for n in range(10_000):
    operation = begin()
    state.prepare(operation.id, outcome(n))
    state.finish(operation.id)
"""
    (child,) = children(tmp_path, script, "demo")
    killed(child, lambda: time.sleep(pause))
    assert state.verify_chain() is None
    left = state.active(model)
    if left is not None and left.status is Status.PREPARED:
        state.finish(left.id)
    elif left is not None:
        state.advance(left.id, Status.STAGING, Status.ABORTED, "its process died")
    assert state.active(model) is None
    done = [row for row in state.operations(model, None) if row.status is Status.APPLIED]
    assert len(state.applied_now(model)) == len(done)
    assert len(state.token_events(model)) == 5 * len(done)
    assert state.verify_chain() is None


# --- who


def test_who_without_the_libraries(tmp_path: Path) -> None:
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from tokmigrate.state.who import identify\n"
        "who = identify(Path(sys.argv[1]))\n"
        "heavy = [m for m in ('torch', 'transformers', 'tokenizers', 'sqlalchemy') if m in sys.modules]\n"
        "print(json.dumps([who.libraries, who.git_commit, heavy]))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    libraries, commit, heavy = json.loads(found)
    assert libraries == library_versions()
    assert {"python", "tokenizers"} <= set(libraries)
    assert commit is None
    assert heavy == []


def test_the_commit_of_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    assert git_commit(tmp_path / "absent") is None
    for folder in ("objects", "refs/heads"):
        (tmp_path / ".git" / folder).mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    assert git_commit(tmp_path) is None
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text("c0ffee" * 6 + "c0ff\n")
    assert git_commit(tmp_path) == "c0ffee" * 6 + "c0ff"
    assert identify(tmp_path).git_commit == git_commit(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert git_commit(tmp_path) is None
