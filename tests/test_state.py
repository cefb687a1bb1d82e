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
from tokmigrate.state.database import open_state, open_state_if_present
from tokmigrate.state.ledger import State
from tokmigrate.state.rows import (
    AppliedRecord,
    Direction,
    ModelRow,
    Origin,
    Outcome,
    RunRow,
    Status,
    TokenEvent,
    TokenEventType,
    git_commit,
    identify,
    library_versions,
)
from tokmigrate.state.schema import OF_RUNS, metadata, runs
from tokmigrate.state.transfer import LedgerExport, export_ledger, open_export

URL = "sqlite:///.tokmigrate/state.db"
EVENT = TokenEvent("aaaa", TokenEventType.ADDED, "<|im_start|>", 32000, init={"strategy": "mean"}, row_fingerprint="d1")


@pytest.fixture
def state(tmp_path: Path) -> State:
    return open_state(URL, tmp_path)


@pytest.fixture
def model(state: State, tmp_path: Path) -> ModelRow:
    return state.model_for("demo", tmp_path / "demo", "lineage")


def record(revision: str, position: int, undo: str | None = "u") -> AppliedRecord:
    return AppliedRecord(revision, position, f"v1:{revision}", f"Do {revision}", undo, {"a": "1"}, {"a": "2"})


def begin_run(state: State, model: ModelRow, direction: Direction = Direction.UPGRADE) -> RunRow:
    return state.begin(
        model,
        direction,
        from_revision=None,
        to_revision="aaaa",
        revisions=["aaaa"],
        generation_before=None,
    )


def upgraded(state: State, model: ModelRow, outcome: Outcome) -> RunRow:
    operation = begin_run(state, model)
    state.prepare(operation.id, outcome)
    return state.finish(operation.id)


def downgraded(state: State, model: ModelRow, revisions: tuple[str, ...]) -> RunRow:
    operation = begin_run(state, model, Direction.DOWNGRADE)
    state.prepare(operation.id, Outcome(reverted=revisions))
    return state.finish(operation.id)


def revisions_of(state: State, model: ModelRow) -> list[str]:
    return [row.record.revision for row in state.list_applied(model)]


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
    with state.begin_read() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert found == {"journal_mode": "delete", "synchronous": 3, "foreign_keys": 1}


def test_a_newer_schema_is_refused(state: State, tmp_path: Path) -> None:
    with sqlite3.connect(database_of(state)) as raw:
        raw.execute("UPDATE meta SET value = '3' WHERE key = 'schema_version'")
    for opened in (open_state, open_state_if_present):
        with pytest.raises(DriftError, match="format version 3") as raised:
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
    assert "WHERE status IN ('STAGING', 'PREPARED')" in indexes["one_active_run"]
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
    assert state.list_models() == (third,)


def test_what_is_recorded_already_is_not_written_again(state: State, model: ModelRow, tmp_path: Path) -> None:
    database = tmp_path / ".tokmigrate" / "state.db"
    before = database.stat().st_mtime_ns
    assert state.model_for("demo", tmp_path / "demo", "lineage") == model
    assert database.stat().st_mtime_ns == before
    assert state.model_for("demo", tmp_path / "demo", "another") == model
    state.model_for("renamed", tmp_path / "demo")
    assert database.stat().st_mtime_ns != before


def test_tags(state: State) -> None:
    assert state.all_tags() == {}
    state.set_tag("release", "aaaa")
    state.set_tag("release", "bbbb")
    state.set_tag("alpha", "aaaa")
    assert list(state.all_tags().items()) == [("alpha", "aaaa"), ("release", "bbbb")]


# --- an operation from intent to outcome


def test_up_and_down_leave_their_history(state: State, model: ModelRow) -> None:
    up = upgraded(state, model, Outcome(applied=(record("aaaa", 0), record("bbbb", 1)), tokens=(EVENT,)))
    assert up.status is Status.APPLIED
    assert up.provenance == identify(state.workspace)
    assert up.finished is not None
    assert up.finished >= up.started
    assert up.payload is None
    down = downgraded(state, model, ("bbbb",))
    again = upgraded(state, model, Outcome(applied=(record("bbbb", 1, undo="v"),)))
    assert [(row.record, row.run_id) for row in state.list_applied(model)] == [
        (record("aaaa", 0), up.id),
        (record("bbbb", 1, undo="v"), again.id),
    ]
    assert [(row.record.revision, row.reverted_by) for row in state.list_applications(model)] == [
        ("aaaa", None),
        ("bbbb", down.id),
        ("bbbb", None),
    ]
    assert [row.id for row in state.runs(model, None)] == [again.id, down.id, up.id]
    assert [row.id for row in state.runs(None, 1)] == [again.id]
    assert state.verify_chain() is None


def test_finish_is_idempotent(state: State, model: ModelRow) -> None:
    outcome = Outcome(applied=(record("aaaa", 0),), tokens=(EVENT,))
    operation = upgraded(state, model, outcome)
    assert state.finish(operation.id) == operation
    assert len(state.list_applications(model)) == len(state.token_events(model)) == 1
    down = downgraded(state, model, ("aaaa",))
    assert state.finish(down.id) == down


def test_the_payload_survives_for_recovery(state: State, model: ModelRow, tmp_path: Path) -> None:
    outcome = Outcome((record("aaaa", 0), record("bbbb", 1, None)), ("cccc",), (EVENT,))
    operation = begin_run(state, model)
    state.prepare(operation.id, outcome)
    reopened = open_state_if_present(URL, tmp_path)
    assert reopened is not None
    found = reopened.active(model)
    assert found is not None
    assert found.status is Status.PREPARED
    assert found.payload is not None
    assert Outcome.of(found.payload) == outcome


def test_one_active_operation_per_model(state: State, model: ModelRow, tmp_path: Path) -> None:
    operation = begin_run(state, model)
    assert state.active(model) == operation
    with pytest.raises(BusyError, match=f"by {operation.provenance.user} on") as raised:
        begin_run(state, model)
    assert raised.value.hint is not None
    with pytest.raises(BusyError):
        state.adopt(model, [record("aaaa", 0)])
    begin_run(state, state.model_for("other", tmp_path / "other"))
    state.fail(operation.id, "no space")
    begin_run(state, model)


def test_the_index_alone_holds_one_active_run(state: State, model: ModelRow, tmp_path: Path) -> None:
    first, second = begin_run(state, model), begin_run(state, state.model_for("other", tmp_path / "other"))
    with pytest.raises(StorageError, match="UNIQUE"), state.begin_write() as connection:
        connection.execute(update(runs).values(model_id=model.id))
    assert [row.model_id for row in state.runs(None, None)] == [second.model_id, first.model_id]


def test_compare_and_set(state: State, model: ModelRow) -> None:
    run = begin_run(state, model)
    with pytest.raises(BusyError, match="STAGING"):
        state.finish(run.id)
    state.prepare(run.id, Outcome())
    with pytest.raises(BusyError, match="PREPARED"):
        state.prepare(run.id, Outcome())
    failed = state.fail(run.id, "its process died")
    assert (failed.status, failed.error) == (Status.FAILED, "its process died")
    assert state.fail(run.id, "later") == failed
    with pytest.raises(BusyError, match="FAILED"):
        state.finish(run.id)
    with pytest.raises(UnknownNameError):
        state.finish("none")
    assert state.run("none") is None


def test_a_ledger_that_contradicts_keeps_all_as_it_was(state: State, model: ModelRow) -> None:
    upgraded(state, model, Outcome(applied=(record("aaaa", 0),)))
    for outcome in (
        Outcome(applied=(record("bbbb", 1), record("aaaa", 2)), tokens=(EVENT,)),
        Outcome(applied=(record("bbbb", 0),), tokens=(EVENT,)),
        Outcome(reverted=("aaaa", "cccc"), tokens=(EVENT,)),
        Outcome(reverted=("aaaa", "aaaa"), tokens=(EVENT,)),
    ):
        operation = begin_run(state, model)
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
    operation = state.adopt(model, stamped, gone=["bbbb"])
    assert operation is not None
    assert operation.direction is Direction.ADOPT
    assert [(row.record.revision, row.origin, row.record.undo) for row in state.list_applied(model)] == [
        ("aaaa", Origin.APPLIED, "u"),
        ("cccc", Origin.ADOPTED, None),
        ("dddd", Origin.ADOPTED, None),
    ]
    assert [row.reverted_by for row in state.list_applications(model)][1] == operation.id
    assert state.adopt(model, stamped) is None
    assert len(state.runs(model, None)) == 2


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(), max_size=12) | st.sampled_from(["\0", "\ud800", "\\u0000", "\\", "<|im_start|>"]))
def test_every_token_text_comes_back(state: State, model: ModelRow, text: str) -> None:
    event = TokenEvent("aaaa", TokenEventType.RENAMED, text, 1, 1, old_token=text + "!", init={"text": text})
    upgraded(state, model, Outcome(tokens=(event,)))
    assert state.token_events(model)[-1].event == event


# --- the chain


def test_a_last_row_that_cannot_be_read_does_not_hinder_the_end_of_a_run(state: State, model: ModelRow) -> None:
    upgraded(state, model, Outcome(applied=(record("aaaa", 0),), tokens=(EVENT,)))
    run = begin_run(state, model)
    state.prepare(run.id, Outcome(applied=(record("bbbb", 1),), tokens=(EVENT,)))
    tamper(database_of(state), "UPDATE token_events SET token_id = 'x'")
    tamper(database_of(state), "UPDATE runs SET pid = 'x' WHERE number = 1")
    assert state.finish(run.id).status is Status.APPLIED
    assert state.verify_chain() is not None


def test_a_run_that_ended_is_in_the_chain_once(state: State, model: ModelRow) -> None:
    failed = begin_run(state, model)
    other = begin_run(state, state.model_for("other", database_of(state).parent / "other"))
    state.fail(other.id, "no space")
    state.fail(failed.id, "no space")
    state.fail(failed.id, "again")
    done = upgraded(state, model, Outcome(applied=(record("aaaa", 0),)))
    state.finish(done.id)
    adopted = state.adopt(model, [record("bbbb", 1)], gone=["aaaa"])
    assert adopted is not None
    in_progress = begin_run(state, model)
    with sqlite3.connect(database_of(state)) as raw:
        found = raw.execute("SELECT id, chain_position FROM runs WHERE hash IS NOT NULL ORDER BY chain_position")
        assert found.fetchall() == [(other.id, 1), (failed.id, 2), (done.id, 3), (adopted.id, 4)]
    assert state.verify_chain() is None
    tamper(database_of(state), "UPDATE runs SET status = 'APPLIED' WHERE id = ?", in_progress.id)
    broken = state.verify_chain()
    assert broken is not None
    assert broken.run_id == in_progress.id


def filled(state: State, model: ModelRow) -> Path:
    for number in range(4):
        events = tuple(
            TokenEvent(f"r{number}", TokenEventType.ADDED, f"<{number}-{n}>", 10 * number + n) for n in range(3)
        )
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


EDITABLE = [f"{table.name}.{column.name}" for table in (runs, *OF_RUNS[:2]) for column in table.columns]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, bytes]:
    """A state with six runs that ended, one of which took a revision back and one of which failed."""
    folder = tmp_path_factory.mktemp("ended")
    state = open_state(URL, folder)
    model = state.model_for("demo", folder / "demo")
    filled(state, model)
    downgraded(state, model, ("r3",))
    state.fail(begin_run(state, model).id, "no space")
    return state, database_of(state).read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_edit_is_found(ended: tuple[State, bytes], data: st.DataObject) -> None:
    table, column = data.draw(st.sampled_from(EDITABLE)).split(".")
    number = data.draw(st.integers(1, {"runs": 6, "applied": 4, "token_events": 12}[table]))
    value = data.draw(st.none() | st.integers(100, 10**9) | st.text("abc{}[]\\u0é", max_size=8) | st.binary(max_size=4))
    state, original = ended
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
    # An export is checked in the same way.
    assert is_broken(export_ledger(state)) == (broken is not None)


def is_broken(export: LedgerExport) -> bool:
    try:
        return open_export(export, "there").verify_chain() is not None
    except DriftError:
        return True


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.sampled_from(["runs", "applied", "token_events"]), dropped=st.sets(st.integers(1, 12), min_size=1))
def test_every_removed_row_is_found(ended: tuple[State, bytes], table: str, dropped: set[int]) -> None:
    state, original = ended
    database_of(state).write_bytes(original)
    listed = ", ".join(map(str, dropped))
    changed = tamper(database_of(state), f"DELETE FROM {table} WHERE number IN ({listed})")  # noqa: S608
    assert (state.verify_chain() is not None) == (changed > 0)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE token_events SET number = CASE number WHEN 3 THEN -4 ELSE -3 END WHERE number IN (3, 4)",
        "INSERT INTO token_events SELECT 13, model_id, run_id, revision, event_type, token, token_id, old_id, "
        "old_token, init, row_fingerprint, recorded_at FROM token_events WHERE number = 12",
        "INSERT INTO token_events SELECT 13, model_id, 'no run', revision, event_type, token, token_id, old_id, "
        "old_token, init, row_fingerprint, recorded_at FROM token_events WHERE number = 12",
        "UPDATE meta SET value = 'x' WHERE key = 'chain_head'",
        "DELETE FROM meta WHERE key = 'chain_head'",
    ],
)
def test_swapped_and_slipped_in_rows_are_found(ended: tuple[State, bytes], statement: str) -> None:
    state, original = ended
    database_of(state).write_bytes(original)
    tamper(database_of(state), statement)
    assert state.verify_chain() is not None


def test_a_run_forged_with_its_own_hash_is_found_at_the_next(ended: tuple[State, bytes]) -> None:
    state, original = ended
    database_of(state).write_bytes(original)
    held = export_ledger(state).rows
    for run in held["runs"]:
        rows = [(name, row) for name in held for row in held[name] if row.get("run_id") == run["id"]]
        reverted = [row["number"] for row in held["applied"] if row["reverted_by"] == run["id"]]
        assert published_hash(run, rows, reverted) == run["hash"]
    second, third = held["runs"][1:3]
    forged = {**second, "user_name": "eve"}
    rows = [(name, row) for name in held for row in held[name] if row.get("run_id") == second["id"]]
    digest = published_hash(forged, rows, [])
    tamper(database_of(state), "UPDATE runs SET user_name = 'eve', hash = ? WHERE number = 2", digest)
    broken = state.verify_chain()
    assert broken is not None
    assert broken.run_id == third["id"]


def published_hash(run: dict[str, object], rows: list[tuple[str, dict[str, object]]], reverted: list[int]) -> str:
    """The published format, written down once more."""
    lines: list[object] = [
        [table, {name: value for name, value in row.items() if name not in ("hash", "reverted_by")}]
        for table, row in [("runs", run), *rows]
    ]
    texts = [json.dumps(line, sort_keys=True, separators=(",", ":")) for line in [*lines, ["reverted", reverted]]]
    return blake3("".join(f"{text}\n" for text in texts).encode()).hexdigest()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM token_events",
        "DELETE FROM runs WHERE number = 1",
        "UPDATE runs SET error = 'x' WHERE number = 1",
        "DELETE FROM applied WHERE number = 2",
        "UPDATE token_events SET token = 'x' WHERE number = 1",
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
workspace, name, me = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
state = open_state("sqlite:///.tokmigrate/state.db", workspace)
model = state.model_for(name, workspace / name)
def begin():
    return state.begin(model, Direction.UPGRADE, from_revision=None, to_revision=me, revisions=[me],
                       generation_before=None)
def outcome(n):
    return Outcome(applied=(AppliedRecord(f"{me}-{n}", len(state.list_applied(model)), "c"),),
                   tokens=tuple(TokenEvent(f"{me}-{n}", TokenEventType.ADDED, f"<{me}-{n}-{i}>", i) for i in range(5)))
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
    shared, own = sorted(state.list_models(), key=lambda model: model.name, reverse=True)
    assert sorted(revisions_of(state, shared)) == sorted(f"{me}-{n}" for me in range(3) for n in range(5))
    assert revisions_of(state, own) == [f"3-{n}" for n in range(5)]
    assert len(state.token_events(shared)) == 75
    assert [row.number for row in state.runs(None, None)] == list(range(20, 0, -1))
    assert state.verify_chain() is None


def test_four_processes_that_race_get_one_operation(tmp_path: Path) -> None:
    script = """
try:
    begin()
    print("begin_run")
except BusyError:
    print("busy")
"""
    assert sorted(results(children(tmp_path, script, *["shared"] * 4))) == ["begin_run", "busy", "busy", "busy"]


def test_four_processes_finish_one_operation_once(state: State, model: ModelRow, tmp_path: Path) -> None:
    operation = begin_run(state, model)
    state.prepare(operation.id, Outcome(applied=(record("aaaa", 0),), tokens=(EVENT,)))
    script = f"print(state.finish({operation.id!r}).status)"
    assert results(children(tmp_path, script, *["demo"] * 4)) == ["APPLIED"] * 4
    assert len(state.list_applications(model)) == len(state.token_events(model)) == 1


def test_four_processes_make_one_database(tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()
    script = """
again = open_state("sqlite:///later/new/state.db", workspace)
again.model_for(me, workspace / me)
"""
    results(children(tmp_path, script, *["demo"] * 4))
    later = open_state_if_present("sqlite:///later/new/state.db", tmp_path)
    assert later is not None
    assert len(later.list_models()) == 4


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

def stop(connection, run_id):
    # As after a spill: the pages are in the file, the journal is hot.
    connection.exec_driver_sql("PRAGMA cache_size = 1")
    connection.exec_driver_sql("CREATE TABLE ballast AS WITH RECURSIVE n(x) AS "
        "(SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000) SELECT x, randomblob(50) FROM n")
    print("inside", flush=True)
    time.sleep(60)

# All that finishing writes is written by then.
ledger.seal_run = stop
state.finish(operation.id)
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
    assert state.list_applications(model) == ()
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
        state.fail(left.id, "its process died")
    assert state.active(model) is None
    done = [row for row in state.runs(model, None) if row.status is Status.APPLIED]
    assert len(state.list_applied(model)) == len(done)
    assert len(state.token_events(model)) == 5 * len(done)
    assert state.verify_chain() is None


# --- who


def test_who_without_the_libraries(tmp_path: Path) -> None:
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from tokmigrate.state.rows import identify\n"
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
