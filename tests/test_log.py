"""`log`, its export, the chain, and ledgers of several workspaces in one."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import TOKENS, Made, llama, tensors_of, workspace, write_weights
from postgresql import server
from test_state import published_hash, tamper
from workspaces import command_line, environment

from tokmigrate.audit.runs import read_ledger
from tokmigrate.audit.training import Training
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.inspect import status
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import DriftError, UsageError, VerificationError
from tokmigrate.state.database import open_state
from tokmigrate.state.ledger import State
from tokmigrate.state.rows import Status
from tokmigrate.state.transfer import LedgerExport, export_ledger, import_ledger, open_export, read_imported

NARROW = 80


def on_a_terminal(made: Made, *words: str) -> str:
    """Return what a terminal of 80 columns shows, without its colours."""
    told = {"TTY_COMPATIBLE": "1", "COLUMNS": str(NARROW)}
    command = [*command_line(), *words]
    done = subprocess.run(
        command, cwd=made.root, env={**environment(), **told}, capture_output=True, text=True, timeout=120, check=True
    )
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


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
    runs = first.asked("log")["runs"]
    one, two, _ = first.revisions
    assert [(row["direction"], row["status"], row["from_revision"], row["to_revision"]) for row in runs] == [
        ("upgrade", "FAILED", two, first.revisions[2]),
        ("upgrade", "APPLIED", one, two),
        ("downgrade", "APPLIED", two, one),
        ("upgrade", "APPLIED", None, two),
    ]
    assert "never a token" in runs[0]["error"]
    assert (runs[3]["undone"], runs[3]["undone_by"]) == ([two], runs[2]["run"])
    assert all(row["undone_by"] is None for row in runs[:3])
    for row in runs:
        assert (row["host"], row["pid"]) == (socket.gethostname(), os.getpid())
        assert {"python", "tokenizers"} <= row["libraries"].keys()
        assert row["duration_s"] >= 0
        assert row["finished"] > row["started"]
    said = on_a_terminal(first, "log")
    assert max(len(line) for line in said.splitlines()) <= NARROW
    for row in runs:
        assert row["run"] in said
    assert f"{two} reverted by {runs[2]['run']}" in said
    assert "FAILED" in said
    assert "tokmigrate 0." in said
    assert [row["run"] for row in first.asked("log", "--limit", "2")["runs"]] == [row["run"] for row in runs[:2]]


def test_what_cannot_be_meant(first: Made, tmp_path: Path) -> None:
    for words in (
        ("--export", "-", "--verify-chain"),
        ("--verify-chain", "--limit", "1"),
        ("--export", "-", "--model", "m"),
        ("--export", "-", "--json"),
    ):
        done = first.run("log", *words)
        assert done.returncode == 2, words
    done = first.run("log", "--export", str(tmp_path / "no" / "file"))
    assert done.returncode == 1
    assert "cannot write the ledger" in done.stderr
    empty = workspace(tmp_path / "empty", {}, [])
    for words in (("log", "--verify-chain"), ("log", "--export", "-")):
        done = empty.run(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "no ledger yet" in done.stderr


# --- the export


def test_the_export_holds_every_row_and_can_be_checked_without_tokmigrate(first: Made, tmp_path: Path) -> None:
    head, *lines = [json.loads(line) for line in first.run("log", "--export", "-").stdout.splitlines()]
    assert head["ledger"] == first.asked("log")["runs"][-1]["run"]
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        rows.setdefault(line["table"], []).append(line["row"])
    with sqlite3.connect(first.state.place) as raw:
        raw.row_factory = sqlite3.Row
        for table, order in {"models": "id", "runs": "number", "applied": "number", "token_events": "number"}.items():
            found = raw.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()  # noqa: S608
            assert [dict(row) for row in found] == rows[table]
    previous = ""
    for run_row in sorted(rows["runs"], key=lambda row: int(row["chain_position"])):
        left = [(table, row) for table in rows for row in rows[table] if row.get("run_id") == run_row["id"]]
        reverted = [row["number"] for row in rows["applied"] if row["reverted_by"] == run_row["id"]]
        assert run_row["previous_hash"] == previous
        previous = published_hash(run_row, left, reverted)
        assert run_row["hash"] == previous
    assert head["head"] == previous
    path = tmp_path / "ledger.jsonl"
    told = first.asked("log", "--export", str(path))
    assert told["rows"]["token_events"] == len(rows["token_events"])
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [head, *lines]


def test_verify_chain_names_the_row_and_exits_with_4(first: Made, tmp_path: Path) -> None:
    assert first.asked("log", "--verify-chain")["verified"] is True
    assert "the hash chain over the runs holds" in first.run("log", "--verify-chain").stdout
    copy = Made(tmp_path / "w", first.revisions)
    shutil.copytree(first.root, copy.root)
    tamper(Path(copy.state.place), "UPDATE token_events SET token = 'x' WHERE number = 2")
    done = copy.run("log", "--verify-chain", "--json")
    assert done.returncode == 4
    first_run = first.asked("log")["runs"][-1]["run"]
    assert f"the hash chain is broken at run {first_run}" in json.loads(done.stdout)["error"]["message"]
    # A ledger that is broken is imported by nobody.
    assert workspace(tmp_path / "team", {}, []).run("import", str(copy.root)).returncode == 4


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("UPDATE runs SET revisions = '{' WHERE number = 1", ("log",)),
        ("UPDATE applied SET origin = 'x'", ("check",)),
        ("UPDATE token_events SET init = '{'", ("blame", "<é>")),
        ("UPDATE applied SET digests_after = '{'", ("downgrade", "base")),
        ("UPDATE runs SET revisions = '{}' WHERE number = 1", ("log",)),
        ("UPDATE token_events SET init = '[]'", ("blame", "<é>")),
        ("UPDATE applied SET digests_after = '{\"a\":1}'", ("downgrade", "base")),
    ],
)
def test_a_row_that_cannot_be_read_is_an_edit(first: Made, tmp_path: Path, edit: str, words: tuple[str, ...]) -> None:
    copy = copied(first, tmp_path / "w")
    tamper(Path(copy.state.place), edit)
    before = (copy.root / "model" / "tokenizer.json").read_bytes()
    done = copy.run(*words)
    assert done.returncode == 4, done.stderr
    assert "a row of the state cannot be read" in done.stderr
    assert "`tokmigrate log --verify-chain`" in done.stderr
    assert (copy.root / "model" / "tokenizer.json").read_bytes() == before
    assert "chain is broken" in copy.run("log", "--verify-chain").stderr


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("token_events", "token_id", ("blame", "<é>")),
        ("applied", "position", ("downgrade", "base")),
        ("runs", "pid", ("log",)),
        ("runs", "number", ("downgrade", "base")),
        ("runs", "chain_position", ("downgrade", "base")),
    ],
)
def test_text_in_a_column_of_integers_is_an_edit(
    first: Made, tmp_path: Path, table: str, column: str, words: tuple[str, ...]
) -> None:
    copy = copied(first, tmp_path / "w")
    place = Path(copy.state.place)
    key = "id" if table == "runs" else "number"
    with sqlite3.connect(place) as raw:
        (row,) = raw.execute(f"SELECT {key} FROM {table} ORDER BY number LIMIT 1").fetchone()  # noqa: S608
    tamper(place, f"UPDATE {table} SET {column} = 'many' WHERE {key} = ?", row)  # noqa: S608
    before = (copy.root / "model" / "tokenizer.json").read_bytes()
    done = copy.run(*words)
    assert done.returncode == 4, done.stderr
    assert f"{table}, row {row}, {column}: 'many' is not an integer" in done.stderr
    assert (copy.root / "model" / "tokenizer.json").read_bytes() == before
    assert "chain is broken" in copy.run("log", "--verify-chain").stderr


def copied(made: Made, root: Path) -> Made:
    shutil.copytree(made.root, root)
    other = Made(root, made.revisions)
    text = (root / "tokmigrate.yaml").read_text("utf-8")
    (root / "tokmigrate.yaml").write_text(text.replace(str(made.root), str(root)), "utf-8")
    return other


def test_a_model_that_is_called_otherwise_is_no_edit(first: Made, tmp_path: Path) -> None:
    copy = copied(first, tmp_path / "w")
    text = (copy.root / "tokmigrate.yaml").read_text("utf-8")
    (copy.root / "tokmigrate.yaml").write_text(text.replace('"m"', '"renamed"'), "utf-8")
    downgrade(copy.workspace, copy.entry("renamed"), "base")
    assert copy.state.list_models()[0].name == "renamed"
    assert copy.asked("log", "--verify-chain")["verified"]


def test_a_ledger_that_was_emptied_is_detected_by_the_stamps(first: Made, tmp_path: Path) -> None:
    copy = copied(first, tmp_path / "w")
    for table in ("token_events", "applied", "migration_texts", "runs", "models"):
        tamper(Path(copy.state.place), f"DELETE FROM {table}")  # noqa: S608
    tamper(Path(copy.state.place), "DELETE FROM meta WHERE key = 'chain_head'")
    assert copy.state.verify_chain() is None
    done = copy.run("log", "--verify-chain")
    assert done.returncode == 4
    assert f"the ledger does not have the run that left m at {first.revisions[1]}" in done.stderr
    assert "chain over the runs holds" not in done.stdout


def test_of_a_model_that_was_migrated_elsewhere_there_is_no_run(first: Made, tmp_path: Path) -> None:
    copy = copied(first, tmp_path / "w")
    shutil.rmtree(copy.root / ".tokmigrate")
    copy.run("tag", "v1")
    done = copy.run("log", "--verify-chain")
    assert done.returncode == 0
    assert f"note: the ledger does not have the run that left m at {first.revisions[1]}" in done.stderr
    assert copy.asked("log", "--verify-chain")["unaccounted"] == [{"model": "m", "revision": first.revisions[1]}]


def test_an_older_ledger_is_detected_by_the_revisions_of_the_models(first: Made, tmp_path: Path) -> None:
    copy = copied(first, tmp_path / "w")
    one, two, _ = copy.revisions
    place = Path(copy.state.place)
    older = place.read_bytes()
    for target, at in ((one, one), ("base", None)):
        downgrade(copy.workspace, copy.entry("m"), target)
        assert copy.asked("log", "--verify-chain")["unaccounted"] == []
        newer = place.read_bytes()
        place.write_bytes(older)
        done = copy.run("log", "--verify-chain")
        assert f"note: the ledger does not have the run that left m at {at or 'base'}" in done.stderr
        assert copy.asked("log", "--verify-chain")["unaccounted"] == [{"model": "m", "revision": at}]
        place.write_bytes(newer)
    # What the chain and the stamps cannot show: docs/formats.md says so.
    upgrade(copy.workspace, copy.entry("m"), two)
    place.write_bytes(older)
    assert copy.asked("log", "--verify-chain")["unaccounted"] == []


# --- ledgers of several workspaces


@dataclass(frozen=True)
class Team:
    """A workspace that ledgers are imported into.

    Args:
        made: The workspace.
        source: A ledger of another one.
    """

    made: Made
    source: LedgerExport

    @property
    def state(self) -> State:
        return open_state(self.made.workspace.state, self.made.root)


@pytest.fixture
def team(first: Made, tmp_path: Path) -> Team:
    return Team(workspace(tmp_path / "team", {}, []), export_ledger(first.state))


def test_two_workspaces_in_one_database(first: Made, tmp_path: Path) -> None:
    second = made_at(tmp_path / "second")
    exported = tmp_path / "second.jsonl"
    assert second.run("log", "--export", str(exported)).returncode == 0
    made = workspace(tmp_path / "team", {}, [])
    said = [made.asked("import", str(source)) for source in (first.root, exported)]
    assert [document["new"]["runs"] for document in said] == [4, 4]
    # The same ledgers by other ways, and again: nothing is new.
    for source in (Path(first.state.place), second.root / "tokmigrate.yaml", exported):
        assert set(made.asked("import", str(source))["new"].values()) == {0}
    runs = made.asked("log", "--imported")["runs"]
    assert {row["run"] for row in runs} == {row["run"] for one in (first, second) for row in one.asked("log")["runs"]}
    # Both call their model `m`, and it is the same model.
    assert len({row["ledger"] for row in runs}) == 2
    assert len({row["path"] for row in runs}) == 2
    assert len({row["lineage"] for row in runs}) == 1
    assert [row["started"] for row in runs] == sorted((row["started"] for row in runs), reverse=True)
    blamed = made.asked("blame", "<é>")["models"]
    assert [[token["names"] for token in model["tokens"]] for model in blamed] == [[["<x>", "<é>"]]] * 2
    assert {model["path"] for model in blamed} == {row["path"] for row in runs}
    assert str(second.root) in made.run("blame", "<x>").stdout
    assert made.run("log", "--verify-chain").returncode == 0
    # What happens later in one of them is taken too, and nothing twice.
    downgrade(second.workspace, second.entry("m"), "base")
    new = made.asked("import", str(second.root))["new"]
    # Two applied revisions are taken back now: their rows have changed.
    assert (new["runs"], new["applied"], new["token_events"]) == (1, 2, 3)
    assert "reverted by" in made.run("log", "--imported").stdout
    assert made.run("log", "--verify-chain").returncode == 0


def test_what_is_imported_is_what_was_there(first: Made, team: Team) -> None:
    import_ledger(team.state, team.source, "there")
    (ledger,) = read_imported(team.state)
    state = first.state
    (model,) = state.list_models()
    assert ledger.list_models() == (model,)
    assert ledger.runs(model, None) == state.runs(model, None)
    assert ledger.list_applications(model) == state.list_applications(model)
    assert ledger.token_events(model) == state.token_events(model)
    assert ledger.source == "there"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_edited_ledger_is_not_imported(team: Team, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(["applied", "token_events"]))
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
    edited = replace(team.source, rows={**team.source.rows, table: tuple(rows)})
    with pytest.raises(DriftError, match=r"hash chain of the ledger|a row of the ledger"):
        import_ledger(team.state, edited, "there")
    assert list(read_imported(team.state)) == []


def forged(ledger: LedgerExport, count: int, user: str | None = None) -> LedgerExport:
    """Return the first runs of a ledger, with a new chain, and perhaps another user."""
    rows = {table: [dict(row) for row in held] for table, held in ledger.rows.items()}
    rows["runs"] = sorted(rows["runs"], key=lambda row: int(row["chain_position"]))[:count]
    kept = {row["id"] for row in rows["runs"]}
    for table in ("applied", "token_events", "token_moves"):
        rows[table] = [row for row in rows[table] if row["run_id"] in kept]
    for row in rows["applied"]:
        row["reverted_by"] = row["reverted_by"] if row["reverted_by"] in kept else None
    previous = ""
    for row in rows["runs"]:
        row |= {"user_name": user or row["user_name"], "previous_hash": previous}
        left = [(table, each) for table in rows for each in rows[table] if each.get("run_id") == row["id"]]
        reverted = [each["number"] for each in rows["applied"] if each["reverted_by"] == row["id"]]
        previous = row["hash"] = published_hash(row, left, reverted)
    return replace(ledger, rows={table: tuple(held) for table, held in rows.items()}, head=previous)


def test_a_ledger_that_was_recreated_or_is_older_is_refused(team: Team) -> None:
    older = forged(team.source, 3)
    assert open_export(older, "there").verify_chain() is None
    assert import_ledger(team.state, older, "there")["runs"] == 3
    assert import_ledger(team.state, team.source, "there")["runs"] == 1
    assert next(read_imported(team.state)).runs(None, 1)[0].status is Status.FAILED
    for other in (older, forged(team.source, 4, "eve")):
        assert open_export(other, "there").verify_chain() is None
        with pytest.raises(DriftError, match="does not go on from what was imported"):
            import_ledger(team.state, other, "there")
    assert next(read_imported(team.state)).runs(None, 1)[0].status is Status.FAILED
    twice = {**team.source.rows, "models": team.source.rows["models"] * 2}
    with pytest.raises(DriftError, match=r"UNIQUE constraint failed: models\.id"):
        import_ledger(team.state, replace(team.source, rows=twice), "there")


@pytest.mark.parametrize(
    ("table", "column", "value", "code"),
    [
        ("runs", "id", [], 2),
        ("token_events", "run_id", {"a": 1}, 2),
        ("models", "created", "x", 4),
        ("models", "name", None, 4),
        ("models", "id", 5, 4),
        ("token_events", "token_id", "x", 4),
        ("token_events", "token_id", 2**70, 4),
        ("runs", "status", "HUH", 4),
    ],
)
def test_an_export_that_was_edited_by_hand(
    first: Made, tmp_path: Path, table: str, column: str, value: object, code: int
) -> None:
    head, *lines = first.run("log", "--export", "-").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["row"] |= {column: value} if row["table"] == table else {}
    path = tmp_path / "edited.jsonl"
    text = "\n".join([head, *map(json.dumps, rows)])
    path.write_text(text, "utf-8")
    made = workspace(tmp_path / "team", {}, [])
    assert made.run("import", str(path)).returncode == code
    # The same edit of what was imported already.
    assert made.run("import", str(first.root)).returncode == 0
    tamper(Path(made.state.place), "UPDATE imported_ledgers SET export = ?", text)
    for words in (("log", "--verify-chain"), ("log", "--imported")):
        done = made.run(*words)
        assert "in tokmigrate itself" not in done.stderr
        assert ("what was imported was edited" in done.stderr) == (column != "status")
        # Names of models are not in the chain.
        assert done.returncode == 4 or (table == "models" and "--verify-chain" in words), words


def test_sources_that_are_no_ledger(first: Made, tmp_path: Path) -> None:
    made = workspace(tmp_path / "team", {}, [])
    (tmp_path / "text").write_text("no ledger\n", "utf-8")
    (tmp_path / "empty").touch()
    (tmp_path / "newer").write_text('{"format": 3, "ledger": "x"}\n', "utf-8")
    (tmp_path / "odd").write_text('{"format": 2, "ledger": "x", "head": ""}\n{"table": "tokens", "row": {}}\n', "utf-8")
    for name, code in {"text": 2, "empty": 2, "odd": 2, "absent": 2, "newer": 4, "team": 2}.items():
        done = made.run("import", str(tmp_path / name))
        assert done.returncode == code, name
        assert done.stderr.startswith("error: ")
    assert first.run("import", str(first.root)).returncode == 2
    with pytest.raises(UsageError):
        read_ledger("mysql://host/db")


def test_a_copy_is_known_by_the_ledger_of_the_run_that_made_it(first: Made, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(first.root / "model", copy)
    made = workspace(tmp_path / "w", {"copy": copy}, [])
    shutil.copytree(first.root / "migrations", made.root / "migrations", dirs_exist_ok=True)

    def training() -> dict[str, Training]:
        return {token.token: token.training for token in status(made.workspace, made.entry("copy")).training}

    assert set(training().values()) == {Training.UNKNOWN}
    import_ledger(open_state(made.workspace.state, made.root), export_ledger(first.state), "there")
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
    assert made.asked("import", str(first.root))["new"]["runs"] == 4
    assert set(made.asked("import", str(first.root))["new"].values()) == {0}
    assert len(made.asked("log", "--imported")["runs"]) == 5
    models = made.asked("blame", "<é>", "--model", "m")["models"]
    assert [model["same_as"] for model in models] == [[], ["m"]]
    assert [model["tokens"][0]["names"] for model in models] == [["<x>", "<é>"]] * 2
    assert made.asked("log", "--verify-chain")["verified"]
    # Its own ledger goes out again, into a SQLite database, with the hashes that it has there.
    other = workspace(tmp_path / "other", {}, [])
    assert other.asked("import", postgresql)["new"]["runs"] == 1
    (ledger,) = read_imported(other.state)
    state = made.state
    (model,) = state.list_models()
    assert ledger.token_events(model) == state.token_events(model)
