"""Formats on disk: a newer version is refused, and a workspace of an older version is upgraded or refused."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import Here
from postgresql import server
from sqlalchemy import create_engine, text
from test_state import tamper

from tokmigrate import formats
from tokmigrate.apply.file_metadata import FileMetadata, LinkMetadata
from tokmigrate.apply.undo_record import Undo, keep, read_undo_record
from tokmigrate.errors import FormatError, RecoveryNeededError, StorageError
from tokmigrate.formats import FileFormat, check_version
from tokmigrate.state.database import open_state, open_state_if_present
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.transfer import read_imported
from tokmigrate.vocabulary.row_edit import RowEdit

REPOSITORY = Path(__file__).resolve().parents[1]
OLD: dict[str, Any] = json.loads((REPOSITORY / "tests" / "data" / "workspace_668e6ae.json").read_text("utf-8"))
FIRST, SECOND, THIRD = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"


def write(root: Path, files: dict[str, Any]) -> None:
    for name, held in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(held.encode("utf-8") if isinstance(held, str) else base64.b64decode(held["base64"]))


@pytest.fixture
def old(tmp_path: Path) -> Here:
    """A workspace as tokmigrate made it at commit 668e6ae."""
    write(tmp_path / "w", OLD["workspace"])
    with sqlite3.connect(tmp_path / "w" / ".tokmigrate" / "state.db") as raw:
        raw.executescript("\n".join(OLD["state"]))
    return Here(tmp_path / "w")


def base(root: Path) -> dict[str, bytes]:
    write(root, OLD["base"])
    return {path.name: path.read_bytes() for path in (root / "m").iterdir()}


# --- a workspace of an older version


def test_an_older_workspace_is_upgraded_and_goes_back_and_forth(old: Here, tmp_path: Path) -> None:
    database = old.root / ".tokmigrate" / "state.db"
    before = database.read_bytes()
    for words in (("log",), ("status",), ("check",), ("plan",)):
        done = old.run(*words)
        assert done.returncode == 4, words
        assert "the state database has format version 1, and this tokmigrate reads 2" in done.stderr
        assert "run `tokmigrate recover`, which upgrades it" in done.stderr
    assert database.read_bytes() == before
    assert old.run("recover").returncode == 0
    assert old.run("log", "--verify-chain").returncode == 0
    assert [(row["direction"], row["to_revision"]) for row in old.asked("log")["runs"]] == [
        ("upgrade", SECOND),
        ("downgrade", FIRST),
        ("upgrade", SECOND),
    ]
    assert len(old.asked("log", "--imported")["runs"]) == 4
    (model,) = old.asked("blame", "<é>", "-M", "m")["models"][:1]
    assert model["tokens"][0]["names"] == ["<x>", "<é>"]
    assert "release" in old.run("tag").stdout
    assert old.run("check").returncode == 3
    done = old.run("upgrade")
    assert done.returncode == 0, done.stderr
    # The records of format 1 take back what they recorded.
    assert old.run("downgrade", "base").returncode == 0
    assert {path.name: path.read_bytes() for path in (old.root / "m").iterdir()} == base(tmp_path)
    assert old.run("log", "--verify-chain").returncode == 0


def test_the_upgrade_keeps_every_row(old: Here) -> None:
    with sqlite3.connect(old.root / ".tokmigrate" / "state.db") as raw:
        counts = {
            new: raw.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608
            for name, new in {"operations": "runs", "applied": "applied", "tokens": "token_events"}.items()
        }
        moved = raw.execute("SELECT count(*) FROM moves").fetchone()[0]
    state = open_state("sqlite:///.tokmigrate/state.db", old.root)
    lengths = state.lengths()
    assert lengths == {**counts, "token_moves": moved, "migration_texts": 2}
    assert state.verify_chain() is None
    (ledger,) = read_imported(state)
    (model,) = ledger.list_models()
    assert [row.record.revision for row in ledger.list_applications(model)] == [FIRST]
    with sqlite3.connect(old.root / ".tokmigrate" / "state.db") as raw:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute("DELETE FROM token_events")
        tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert not tables & {"operations", "tokens", "moves", "endings", "identities", "chains", "imported"}


def test_an_upgrade_that_fails_changes_nothing(old: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def dump() -> list[str]:
        with sqlite3.connect(old.root / ".tokmigrate" / "state.db") as raw:
            return list(raw.iterdump())

    def fail(connection: object, run_id: str) -> None:
        raise StorageError(f"no space for {run_id}")

    before = dump()
    with monkeypatch.context() as patched:
        patched.setattr("tokmigrate.state.schema_upgrades.seal_run", fail)
        assert old.run("recover").returncode == 1
    assert dump() == before
    assert old.run("recover").returncode == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tokens SET token = 'x' WHERE number = 2",
        "DELETE FROM tokens WHERE number = (SELECT max(number) FROM tokens)",
        "UPDATE operations SET who = 'eve' WHERE number = 1",
        "UPDATE applied SET reverted_by = (SELECT id FROM operations WHERE number = 1) WHERE reverted_by IS NOT NULL",
        "UPDATE imported SET content = '{}' WHERE number = 1",
        "UPDATE chains SET head = 'x' WHERE name = 'applied'",
    ],
)
def test_an_edited_state_of_an_older_version_is_not_upgraded(old: Here, statement: str) -> None:
    database = old.root / ".tokmigrate" / "state.db"
    assert tamper(database, statement) > 0
    before = database.read_bytes()
    done = old.run("recover")
    assert done.returncode == 4, done.stderr
    assert "the state of an older version was edited, and cannot be upgraded" in done.stderr
    assert "`tokmigrate stamp`" in done.stderr
    assert database.read_bytes() == before


def test_an_interrupted_run_of_an_older_version_is_refused(old: Here) -> None:
    database = old.root / ".tokmigrate" / "state.db"
    with sqlite3.connect(database) as raw:
        raw.executescript("\n".join(OLD["interrupted"]))
    area = old.root / ".m.tokmigrate"
    area.mkdir()
    (area / "journal").write_text(OLD["journal"], "utf-8")
    before = database.read_bytes()
    done = old.run("recover")
    assert done.returncode == 5
    assert "the journal of an interrupted change has format version 1" in done.stderr
    assert "finish it with the version that began it" in done.stderr
    # Without the journal, the state records it.
    (area / "journal").unlink()
    done = old.run("recover")
    assert done.returncode == 5
    assert "finish it with the version that began it" in done.stderr
    assert database.read_bytes() == before


def test_an_older_plan_and_export_are_refused(old: Here, tmp_path: Path) -> None:
    assert old.run("recover").returncode == 0
    done = old.run("upgrade", "--plan", "plan.json")
    assert done.returncode == 4
    assert "make and review a new one: `tokmigrate plan -o FILE`" in done.stderr
    (tmp_path / "ledger.jsonl").write_text("\n".join(OLD["export"]) + "\n", "utf-8")
    done = old.run("import", str(tmp_path / "ledger.jsonl"))
    assert done.returncode == 4
    assert "the ledger export has format version 1" in done.stderr
    assert "export it again" in done.stderr


@pytest.fixture(scope="module")
def postgresql() -> Any:
    with server() as url:
        yield url


def test_an_older_state_on_postgresql_is_upgraded(postgresql: str, tmp_path: Path) -> None:
    engine = create_engine(postgresql)
    with engine.begin() as connection:
        for statement in in_order(OLD["state"]):
            connection.execute(text(statement.replace(":", r"\:")))
        # The rows of the dump bring their ids, which PostgreSQL gave before.
        connection.execute(text("SELECT setval(pg_get_serial_sequence('models', 'id'), 1)"))
    with pytest.raises(FormatError, match="format version 1"):
        open_state_if_present(postgresql, tmp_path)
    state = open_state(postgresql, tmp_path)
    assert state.verify_chain() is None
    assert state.lengths()["runs"] == 3
    (model,) = state.list_models()
    assert [row.record.revision for row in state.list_applied(model)] == [FIRST, SECOND]
    assert len(list(read_imported(state))) == 1
    assert state.model_for("other", tmp_path / "other").id != model.id


def in_order(lines: list[str]) -> list[str]:
    """Return the statements of a dump that PostgreSQL knows, tables before those that refer to them."""
    whole = [line.rstrip(";") for line in re.split(r"(?<=;)\n", "\n".join(lines))]
    first = ["models", "meta", "chains", "tags", "operations"]

    def place(statement: str) -> int:
        named = re.match(r'(?:CREATE TABLE|INSERT INTO) "?(\w+)"?', statement)
        return first.index(named[1]) if named and named[1] in first else len(first)

    kept = [each for each in whole if re.match(r"CREATE (TABLE|INDEX|UNIQUE INDEX)|INSERT INTO", each)]
    kept = [
        each.replace("id INTEGER NOT NULL", "id SERIAL NOT NULL") if "TABLE models" in each else each for each in kept
    ]
    return sorted((each for each in kept if "sqlite_" not in each), key=place)


def test_an_undo_record_of_format_1_is_read(tmp_path: Path) -> None:
    objects = ObjectStore(tmp_path)
    metadata = FileMetadata(0o644, 1, 2, 3, (("user.x", "00"),))
    undo = Undo(
        files={"a": b"before", "b": None},
        left={"a": None, "b": b"after"},
        metadata={"a": metadata},
        edit=RowEdit.identity(4),
        saved={"t": b"rows"},
        shards={},
        left_shards={"s": "digest"},
        left_tensors={"t": "digest"},
        links={"l": LinkMetadata("a", metadata)},
    )
    record = json.loads(objects.get(keep(undo, objects)))
    old_names = {
        "files_before": "files",
        "files_after": "left",
        "metadata": "facts",
        "rows": "pieces",
        "lost_rows": "saved",
        "shards_before": "shards",
        "shards_after": "left_shards",
        "tensors_after": "left_tensors",
    }
    older = {old_names.get(name, name): value for name, value in record.items()}
    older |= {"format": 1, "links": {"l": {"target": "a", "facts": record["links"]["l"]["metadata"]}}}
    assert read_undo_record(objects.put(json.dumps(older).encode()), objects) == undo


# --- newer versions


def newer(text: str) -> str:
    return re.sub(r'"format": \d+', '"format": 99', text, count=1)


def edit(name: str, change: Callable[[str], str] = newer) -> Callable[[Here], None]:
    def edited(place: Here) -> None:
        path = place.root / name
        path.write_text(change(path.read_text("utf-8")), "utf-8")

    return edited


def journal(name: str) -> Callable[[Here], None]:
    def made(place: Here) -> None:
        path = place.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"format": 99}', "utf-8")

    return made


def state_version(place: Here) -> None:
    with sqlite3.connect(place.root / ".tokmigrate" / "state.db") as raw:
        raw.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")


def undo_record(place: Here) -> None:
    """Let the ledger name an undo record of a newer format."""
    digest = ObjectStore(place.root / ".tokmigrate" / "objects").put(b'{"format": 99}')
    with sqlite3.connect(place.root / ".tokmigrate" / "state.db") as raw:
        raw.execute("DROP TRIGGER applied_fixed")
        raw.execute("UPDATE applied SET undo_record = ?", [digest])


def export(place: Here) -> None:
    (place.root / "ledger.jsonl").write_text('{"format": 99, "ledger": "x"}\n', "utf-8")


NEWER: list[tuple[FileFormat, Callable[[Here], None], tuple[str, ...], int]] = [
    (formats.SETTINGS, edit("tokmigrate.yaml", lambda held: held.replace("format: 1", "format: 99")), ("status",), 2),
    (formats.MIGRATION, edit("migrations/0003_add_more.yaml"), ("status",), 2),
    (
        formats.LOCK,
        edit("migrations/tokmigrate.lock", lambda held: held.replace("lock 1\n", "lock 99\n")),
        ("validate",),
        2,
    ),
    (formats.STAMP, edit("m/tokmigrate.json"), ("status",), 4),
    (formats.STATE, state_version, ("upgrade",), 4),
    (formats.JOURNAL, journal(".m.tokmigrate/journal"), ("recover",), 5),
    (formats.MIGRATIONS_JOURNAL, journal(".tokmigrate/migrations.journal"), ("recover",), 5),
    (formats.UNDO_RECORD, undo_record, ("downgrade", "base"), 1),
    (formats.PLAN_FILE, edit("plan.json"), ("upgrade", "--plan", "plan.json"), 4),
    (formats.LEDGER_EXPORT, export, ("import", "ledger.jsonl"), 4),
]


@pytest.mark.parametrize(("written", "change", "words", "code"), NEWER, ids=[each[0].name for each in NEWER])
def test_a_newer_version_is_refused(
    old: Here, written: FileFormat, change: Callable[[Here], None], words: tuple[str, ...], code: int
) -> None:
    assert old.run("recover").returncode == 0
    change(old)
    before = {path: path.read_bytes() for path in (old.root / "m").iterdir()}
    done = old.run(*words)
    assert (done.returncode, "upgrade tokmigrate" in done.stderr) == (code, True), done.stdout + done.stderr
    assert {path: path.read_bytes() for path in (old.root / "m").iterdir()} == before


ALL = [each for each in vars(formats).values() if isinstance(each, FileFormat)]


def test_every_format_is_in_the_table_and_tested() -> None:
    tested = {each[0] for each in NEWER}
    assert tested == {each for each in ALL if each is not formats.JSON_OUTPUT}
    rows = re.findall(
        r"^\| ([\w. ]+?) \|.*?\| (\d+) \| ([\d, ]+|-) \|", (REPOSITORY / "docs/formats.md").read_text("utf-8"), re.M
    )
    assert rows == [
        (
            each.name,
            str(each.version),
            ", ".join(map(str, (*each.reads, each.version))) if each is not formats.JSON_OUTPUT else "-",
        )
        for each in ALL
    ]


def test_what_is_no_version_is_refused() -> None:
    for found in (None, True, "1", 0, 1.5):
        with pytest.raises(RecoveryNeededError, match="reads 1 and 2") as caught:
            check_version(formats.UNDO_RECORD, found, "x", RecoveryNeededError)
        assert caught.value.hint == "use the tokmigrate that wrote it"
