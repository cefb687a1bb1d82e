"""`log`, its export, the chain, and ledgers of several workspaces in one."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import TOKENS, Made, llama, tensors_of, workspace, write_weights
from postgresql import server
from test_state import tamper
from workspaces import command_line, environment, run_here

from tokmigrate.audit.sources import read_ledger
from tokmigrate.audit.training import Training
from tokmigrate.errors import DriftError, UsageError, VerificationError
from tokmigrate.runner.look import status
from tokmigrate.runner.migrate import downgrade, upgrade
from tokmigrate.state.database import open_state, open_state_if_present
from tokmigrate.state.exported import Exported, export
from tokmigrate.state.imports import import_ledger, imported_ledgers
from tokmigrate.state.ledger import State
from tokmigrate.state.rows import Status

NARROW = 80


def run(made: Made, *words: str) -> subprocess.CompletedProcess[str]:
    return run_here(made.root, *words)


def on_a_terminal(made: Made, *words: str) -> str:
    """Return what a terminal of 80 columns shows, without its colours."""
    told = {"TTY_COMPATIBLE": "1", "COLUMNS": str(NARROW)}
    command = [*command_line(), *words]
    done = subprocess.run(
        command, cwd=made.root, env={**environment(), **told}, capture_output=True, text=True, timeout=120, check=True
    )
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


def asked(made: Made, *words: str) -> dict[str, Any]:
    done = run(made, *words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def state_of(made: Made) -> State:
    state = open_state_if_present(made.workspace.state, made.root)
    assert state is not None
    return state


def made_at(root: Path, name: str = "m") -> Made:
    """Make a workspace with a model that went up, down and up again, and once failed."""
    steps: list[dict[str, Any]] = [
        {"operations": [{"add_tokens": {"tokens": ["<x>", "=<y>\\"]}}]},
        {"operations": [{"rename_tokens": {"tokens": {"<x>": "<é>"}}}]},
        {"operations": [{"add_tokens": {"tokens": ["<z>"]}}], "verify": [{"single_token": "never a token"}]},
    ]
    made = workspace(root, {name: llama(root / "model")}, steps)
    entry = made.entry(name)
    upgrade(made.workspace, entry, made.revisions[1])
    downgrade(made.workspace, entry, "-1")
    upgrade(made.workspace, entry, made.revisions[1])
    with pytest.raises(VerificationError):
        upgrade(made.workspace, entry)
    return made


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made_at(tmp_path_factory.mktemp("first"))


# --- the runs


def test_every_run_is_shown_whole_at_80_columns(first: Made) -> None:
    runs = asked(first, "log")["runs"]
    one, two, _ = first.revisions
    assert [(row["direction"], row["status"], row["from_revision"], row["to_revision"]) for row in runs] == [
        ("upgrade", "FAILED", two, first.revisions[2]),
        ("upgrade", "APPLIED", one, two),
        ("downgrade", "APPLIED", two, one),
        ("upgrade", "APPLIED", None, two),
    ]
    assert "never a token" in runs[0]["error"]
    assert (runs[3]["undone"], runs[3]["undone_by"]) == ([two], runs[2]["operation"])
    assert all(row["undone_by"] is None for row in runs[:3])
    for row in runs:
        assert (row["host"], row["pid"]) == (socket.gethostname(), os.getpid())
        assert {"python", "tokenizers"} <= row["libraries"].keys()
        assert row["duration_s"] >= 0
        assert row["finished"] > row["started"]
    said = on_a_terminal(first, "log")
    assert max(len(line) for line in said.splitlines()) <= NARROW
    for row in runs:
        assert row["operation"] in said
    assert f"{two} taken back by {runs[2]['operation']}" in said
    assert "FAILED" in said
    assert "tokmigrate 0." in said
    assert [row["operation"] for row in asked(first, "log", "--limit", "2")["runs"]] == [
        row["operation"] for row in runs[:2]
    ]


def test_what_cannot_be_meant(first: Made, tmp_path: Path) -> None:
    for words in (
        ("--export", "jsonl", "--verify-chain"),
        ("--export", "xml"),
        ("-o", "file"),
        ("--verify-chain", "--limit", "1"),
        ("--export", "csv", "--model", "m"),
        ("--export", "jsonl", "--json"),
    ):
        done = run(first, "log", *words)
        assert done.returncode == 2, words
    done = run(first, "log", "--export", "csv", "-o", str(tmp_path / "no" / "file"))
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    empty = workspace(tmp_path / "empty", {}, [])
    for words in (("log", "--verify-chain"), ("log", "--export", "csv")):
        done = run(empty, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "no ledger yet" in done.stderr


# --- the export


def test_the_export_holds_every_row_and_can_be_checked_without_tokmigrate(first: Made, tmp_path: Path) -> None:
    head, *lines = [json.loads(line) for line in run(first, "log", "--export", "jsonl").stdout.splitlines()]
    assert head["ledger"] == asked(first, "log")["runs"][-1]["operation"]
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        rows.setdefault(line["table"], []).append(line["row"])
    ends = {row["name"]: row for row in rows["chains"]}
    with sqlite3.connect(state_of(first).place) as raw:
        raw.row_factory = sqlite3.Row
        for table, order in {"models": "id", "operations": "number", "applied": "number", "tokens": "number"}.items():
            found = raw.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()  # noqa: S608
            assert [dict(row) for row in found] == rows[table]
    for table in ("applied", "tokens"):
        previous = ""
        for number, row in enumerate(rows[table], 1):
            hashed = {name: value for name, value in row.items() if name not in ("hash", "reverted_by")}
            text = json.dumps([1, table, hashed], sort_keys=True, separators=(",", ":"))
            assert (row["number"], row["previous_hash"]) == (number, previous)
            assert row["hash"] == blake3(text.encode()).hexdigest()
            previous = row["hash"]
        assert (ends[table]["length"], ends[table]["head"]) == (len(rows[table]), previous)
    path = tmp_path / "ledger.csv"
    told = asked(first, "log", "--export", "csv", "-o", str(path))
    assert told["rows"]["tokens"] == len(rows["tokens"])
    table = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    assert [row["token"] for row in table if row["table"] == "tokens"] == [row["token"] for row in rows["tokens"]]
    assert [row["table"] for row in table] == [line["table"] for line in lines]


def test_verify_chain_names_the_row_and_exits_with_4(first: Made, tmp_path: Path) -> None:
    assert asked(first, "log", "--verify-chain")["verified"] is True
    assert "the chain holds" in run(first, "log", "--verify-chain").stdout
    copy = Made(tmp_path / "w", first.revisions)
    shutil.copytree(first.root, copy.root)
    tamper(Path(state_of(copy).place), "UPDATE tokens SET token = 'x' WHERE number = 2")
    done = run(copy, "log", "--verify-chain", "--json")
    assert done.returncode == 4
    assert "row 2 of 'tokens' in the ledger: the row was edited" in json.loads(done.stdout)["error"]["message"]


def copied(made: Made, root: Path) -> Made:
    shutil.copytree(made.root, root)
    other = Made(root, made.revisions)
    text = (root / "tokmigrate.yaml").read_text("utf-8")
    (root / "tokmigrate.yaml").write_text(text.replace(str(made.root), str(root)), "utf-8")
    return other


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE models SET name = 'another'", "row 1 of 'models' in the ledger: the row was edited"),
        ("UPDATE models SET path = 'elsewhere'", "row 1 of 'models' in the ledger: the row was edited"),
        ("UPDATE models SET lineage = 'ffff'", "row 1 of 'models' in the ledger: the row was edited"),
        ("UPDATE models SET created = '2020-01-01T00:00:00.000000+00:00'", "the row was edited"),
        ("DELETE FROM models", "row 1 of 'models' in the ledger: the row is missing"),
        ("INSERT INTO models SELECT 7, name, 'p', lineage, created FROM models", "row 7 of 'models' in the ledger"),
        ("UPDATE identities SET path = 'elsewhere'", "row 1 of 'identities' in the ledger: the row was edited"),
    ],
)
def test_verify_chain_sees_that_a_model_was_given_another_name(
    first: Made, tmp_path: Path, statement: str, said: str
) -> None:
    copy = copied(first, tmp_path / "w")
    tamper(Path(state_of(copy).place), statement)
    done = run(copy, "log", "--verify-chain")
    assert done.returncode == 4
    assert said in done.stderr
    # A ledger that is broken is taken by nobody.
    assert run(workspace(tmp_path / "team", {}, []), "import", str(copy.root)).returncode == 4


def test_a_model_that_is_called_otherwise_is_no_edit(first: Made, tmp_path: Path) -> None:
    copy = copied(first, tmp_path / "w")
    text = (copy.root / "tokmigrate.yaml").read_text("utf-8")
    (copy.root / "tokmigrate.yaml").write_text(text.replace('"m"', '"renamed"'), "utf-8")
    downgrade(copy.workspace, copy.entry("renamed"), "base")
    assert state_of(copy).known_models()[0].name == "renamed"
    assert asked(copy, "log", "--verify-chain")["rows"]["identities"] == 3


def test_a_ledger_that_was_emptied_is_told_by_the_stamps(first: Made, tmp_path: Path) -> None:
    copy = copied(first, tmp_path / "w")
    for table in ("tokens", "applied", "endings", "identities", "migration_texts", "operations", "models"):
        tamper(Path(state_of(copy).place), f"DELETE FROM {table}")  # noqa: S608
    tamper(Path(state_of(copy).place), "UPDATE chains SET length = 0, head = ''")
    assert state_of(copy).verify_chain() is None
    done = run(copy, "log", "--verify-chain")
    assert done.returncode == 4
    assert f"the ledger does not have the run that left m at {first.revisions[1]}" in done.stderr
    assert "the chain holds" not in done.stdout


def test_of_a_model_that_was_migrated_elsewhere_there_is_no_run(first: Made, tmp_path: Path) -> None:
    copy = copied(first, tmp_path / "w")
    shutil.rmtree(copy.root / ".tokmigrate")
    run(copy, "tag", "v1")
    done = run(copy, "log", "--verify-chain")
    assert done.returncode == 0
    assert f"note: the ledger does not have the run that left m at {first.revisions[1]}" in done.stderr
    assert asked(copy, "log", "--verify-chain")["unaccounted"] == [{"model": "m", "revision": first.revisions[1]}]


# --- ledgers of several workspaces


@dataclass(frozen=True)
class Team:
    """A workspace that ledgers are imported into.

    Args:
        made: The workspace.
        source: A ledger of another one.
    """

    made: Made
    source: Exported

    @property
    def state(self) -> State:
        return open_state(self.made.workspace.state, self.made.root)


@pytest.fixture
def team(first: Made, tmp_path: Path) -> Team:
    return Team(workspace(tmp_path / "team", {}, []), export(state_of(first)))


def test_two_workspaces_in_one_database(first: Made, tmp_path: Path) -> None:
    second = made_at(tmp_path / "second")
    exported = tmp_path / "second.jsonl"
    assert run(second, "log", "--export", "jsonl", "-o", str(exported)).returncode == 0
    made = workspace(tmp_path / "team", {}, [])
    said = [asked(made, "import", str(source)) for source in (first.root, exported)]
    assert [document["new"]["operations"] for document in said] == [4, 4]
    # The same ledgers by other ways, and again: nothing is new.
    for source in (Path(state_of(first).place), second.root / "tokmigrate.yaml", exported):
        assert set(asked(made, "import", str(source))["new"].values()) == {0}
    runs = asked(made, "log", "--imported")["runs"]
    assert {row["operation"] for row in runs} == {
        row["operation"] for one in (first, second) for row in asked(one, "log")["runs"]
    }
    # Both call their model `m`, and it is the same model.
    assert len({row["ledger"] for row in runs}) == 2
    assert len({row["path"] for row in runs}) == 2
    assert len({row["lineage"] for row in runs}) == 1
    assert [row["started"] for row in runs] == sorted((row["started"] for row in runs), reverse=True)
    blamed = asked(made, "blame", "<é>")["models"]
    assert [[token["names"] for token in model["tokens"]] for model in blamed] == [[["<x>", "<é>"]]] * 2
    assert {model["path"] for model in blamed} == {row["path"] for row in runs}
    assert str(second.root) in run(made, "blame", "<x>").stdout
    assert run(made, "log", "--verify-chain").returncode == 0
    # What happens later in one of them is taken too, and nothing twice.
    downgrade(second.workspace, second.entry("m"), "base")
    new = asked(made, "import", str(second.root))["new"]
    # Two applied revisions are taken back now: their rows are added as they are now.
    assert (new["operations"], new["applied"], new["tokens"]) == (1, 2, 3)
    assert "taken back" in run(made, "log", "--imported").stdout
    assert run(made, "log", "--verify-chain").returncode == 0


def test_what_is_imported_is_what_was_there(first: Made, team: Team) -> None:
    import_ledger(team.state, team.source, "there")
    (ledger,) = imported_ledgers(team.state)
    state = state_of(first)
    (model,) = state.known_models()
    assert ledger.models == (model,)
    assert ledger.operations == tuple(reversed(state.operations(model, None)))
    assert ledger.applied == state.applied_ever(model)
    assert ledger.tokens == state.token_events(model)
    assert ledger.source == "there"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_edited_ledger_is_not_imported(team: Team, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(["applied", "tokens"]))
    rows = [dict(row) for row in team.source.rows[table]]
    place = data.draw(st.integers(0, len(rows) - 1))
    if data.draw(st.booleans()):
        del rows[place]
    else:
        column = data.draw(st.sampled_from(sorted(set(rows[place]) - {"reverted_by"})))
        value = data.draw(st.none() | st.integers() | st.text(max_size=4))
        if value == rows[place][column]:
            return
        rows[place][column] = value
    edited = Exported(team.source.ledger, {**team.source.rows, table: tuple(rows)})
    with pytest.raises(DriftError, match="in the ledger"):
        import_ledger(team.state, edited, "there")
    assert imported_ledgers(team.state) == ()


def test_a_ledger_that_was_made_anew_is_refused(first: Made, team: Team) -> None:
    import_ledger(team.state, team.source, "there")
    rows = [dict(row) for row in team.source.rows["tokens"]]
    previous = ""
    for row in rows:
        row["token"] = "<forged>"
        row["previous_hash"] = previous
        hashed = {name: value for name, value in row.items() if name != "hash"}
        text = json.dumps([1, "tokens", hashed], sort_keys=True, separators=(",", ":"))
        previous = row["hash"] = blake3(text.encode()).hexdigest()
    ends = tuple({**row, "head": previous} if row["name"] == "tokens" else row for row in team.source.rows["chains"])
    forged = Exported(team.source.ledger, {**team.source.rows, "tokens": tuple(rows), "chains": ends})
    assert forged.broken() is None
    with pytest.raises(DriftError, match="not the one that was imported"):
        import_ledger(team.state, forged, "there")
    assert imported_ledgers(team.state)[0].tokens[0].event.token == "<x>"


def test_an_older_copy_does_not_bring_back_what_was(first: Made, team: Team) -> None:
    older = {table: list(rows) for table, rows in team.source.rows.items()}
    ended = older["operations"].pop()
    older["operations"].append({**ended, "status": "STAGING", "finished": None, "duration_s": None, "error": None})
    older["endings"].pop()
    ends = [dict(row) for row in older["chains"]]
    for row in ends:
        if row["name"] == "endings":
            row |= {"length": row["length"] - 1, "head": older["endings"][-1]["hash"]}
    copy = Exported(
        team.source.ledger, {**{table: tuple(rows) for table, rows in older.items()}, "chains": tuple(ends)}
    )
    assert copy.broken() is None
    import_ledger(team.state, copy, "there")
    assert imported_ledgers(team.state)[0].operations[-1].status is Status.STAGING
    assert import_ledger(team.state, team.source, "there")["operations"] == 1
    assert imported_ledgers(team.state)[0].operations[-1].status is Status.FAILED
    with pytest.raises(DriftError, match="not the one that was imported"):
        import_ledger(team.state, copy, "there")
    twice = {**team.source.rows, "models": team.source.rows["models"] * 2}
    with pytest.raises(UsageError, match="two rows"):
        import_ledger(team.state, Exported(team.source.ledger, twice), "there")


def test_sources_that_are_no_ledger(first: Made, tmp_path: Path) -> None:
    made = workspace(tmp_path / "team", {}, [])
    (tmp_path / "text").write_text("no ledger\n", "utf-8")
    (tmp_path / "empty").touch()
    (tmp_path / "newer").write_text('{"format": 2, "ledger": "x"}\n', "utf-8")
    (tmp_path / "odd").write_text('{"format": 1, "ledger": "x"}\n{"table": "tokens", "row": {}}\n', "utf-8")
    for name, code in {"text": 2, "empty": 2, "odd": 2, "absent": 2, "newer": 4, "team": 2}.items():
        done = run(made, "import", str(tmp_path / name))
        assert done.returncode == code, name
        assert done.stderr.startswith("error: ")
    assert run(first, "import", str(first.root)).returncode == 2
    with pytest.raises(UsageError):
        read_ledger("mysql://host/db")


def test_a_state_of_an_older_version_gets_the_table(team: Team) -> None:
    with sqlite3.connect(team.state.place) as raw:
        raw.execute("DROP TABLE imported")
        raw.execute("DELETE FROM chains WHERE name = 'imported'")
    only_read = open_state_if_present(team.made.workspace.state, team.made.root)
    assert only_read is not None
    assert only_read.verify_chain() is None
    assert imported_ledgers(only_read) == ()
    import_ledger(team.state, team.source, "there")
    assert len(imported_ledgers(team.state)) == 1
    assert team.state.verify_chain() is None
    with sqlite3.connect(team.state.place) as raw, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute("DELETE FROM imported")


def test_a_copy_is_known_by_the_ledger_of_the_run_that_made_it(first: Made, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(first.root / "model", copy)
    made = workspace(tmp_path / "w", {"copy": copy}, [])
    shutil.copytree(first.root / "migrations", made.root / "migrations", dirs_exist_ok=True)

    def training() -> dict[str, Training]:
        return {token.token: token.training for token in status(made.workspace, made.entry("copy")).training}

    assert set(training().values()) == {Training.UNKNOWN}
    import_ledger(open_state(made.workspace.state, made.root), export(state_of(first)), "there")
    assert training() == {"<é>": Training.UNTRAINED, "=<y>\\": Training.UNTRAINED}
    tensors = tensors_of(copy)
    tensors["model.embed_tokens.weight"][TOKENS] += 1
    tensors["lm_head.weight"][TOKENS] += 1
    write_weights(copy, tensors)
    # It moved; the rows that would tell training from that are among the undo data of the other workspace.
    assert training() == {"<é>": Training.UNKNOWN, "=<y>\\": Training.UNTRAINED}


# --- PostgreSQL


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with server() as url:
        yield url


def test_the_team_on_postgresql(first: Made, postgresql: str, tmp_path: Path) -> None:
    made = workspace(tmp_path / "team", {"m": llama(tmp_path / "m")}, [])
    shutil.copytree(first.root / "migrations", made.root / "migrations", dirs_exist_ok=True)
    settings_file = made.root / "tokmigrate.yaml"
    document = json.loads(settings_file.read_text("utf-8"))
    settings_file.write_text(json.dumps({**document, "state": postgresql}), "utf-8")
    upgrade(made.workspace, made.entry("m"), first.revisions[1])
    assert asked(made, "import", str(first.root))["new"]["operations"] == 4
    assert set(asked(made, "import", str(first.root))["new"].values()) == {0}
    assert len(asked(made, "log", "--imported")["runs"]) == 5
    models = asked(made, "blame", "<é>", "--model", "m")["models"]
    assert [model["same_as"] for model in models] == [[], ["m"]]
    assert [model["tokens"][0]["names"] for model in models] == [["<x>", "<é>"]] * 2
    assert asked(made, "log", "--verify-chain")["rows"]["imported"] > 0
    # Its own ledger goes out again, into a SQLite database, with the hashes that it has there.
    other = workspace(tmp_path / "other", {}, [])
    assert asked(other, "import", postgresql)["new"]["operations"] == 1
    (ledger,) = imported_ledgers(state_of(other))
    state = state_of(made)
    (model,) = state.known_models()
    assert ledger.tokens == state.token_events(model)
