"""Formats on disk: a newer version is refused, and a workspace of an older version is upgraded or refused."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf_files import convert
from workspaces import Workspace

from tokmigrate import formats
from tokmigrate.apply.file_metadata import FileMetadata, LinkMetadata
from tokmigrate.apply.undo_record import Undo, keep, read_undo_record
from tokmigrate.errors import RecoveryNeededError
from tokmigrate.formats import FileFormat, check_version
from tokmigrate.init.coefficients import write_coefficients
from tokmigrate.state.objects import ObjectStore
from tokmigrate.vocabulary.row_edit import RowEdit

REPOSITORY = Path(__file__).resolve().parents[1]
OLD: dict[str, Any] = json.loads((REPOSITORY / "tests" / "data" / "workspace_668e6ae.json").read_text("utf-8"))
SECOND, THIRD = "bbbbbbbbbbbb", "cccccccccccc"


def write(root: Path, files: dict[str, Any]) -> None:
    for name, held in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(held.encode("utf-8") if isinstance(held, str) else base64.b64decode(held["base64"]))


@pytest.fixture
def old(tmp_path: Path) -> Workspace:
    """A workspace as tokmigrate made it at commit 668e6ae."""
    write(tmp_path / "w", OLD["workspace"])
    with sqlite3.connect(tmp_path / "w" / ".tokmigrate" / "state.db") as raw:
        raw.executescript("\n".join(OLD["state"]))
    return Workspace(tmp_path / "w")


@pytest.fixture
def new(old: Workspace) -> Workspace:
    """The same workspace with the state of today."""
    (old.root / ".tokmigrate" / "state.db").unlink()
    back_to_base(old)
    assert old.run("upgrade", SECOND).returncode == 0
    return old


def back_to_base(place: Workspace) -> dict[str, bytes]:
    """Leave the model as `downgrade base` of the older version does."""
    (place.root / "m" / "tokmigrate.json").unlink()
    write(place.root, OLD["base"])
    return {path.name: path.read_bytes() for path in (place.root / "m").iterdir()}


# --- a workspace of an older version


def refuse(place: Workspace) -> None:
    database = place.root / ".tokmigrate" / "state.db"
    before = {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()}
    for words in (("log",), ("status",), ("check",), ("plan",), ("upgrade",), ("downgrade", "base"), ("recover",)):
        done = place.run(*words)
        assert done.returncode == 4, words
        assert f"{database}: the state database has format version 1, and this tokmigrate reads 2" in done.stderr
        assert "with the version that wrote it run `tokmigrate downgrade base`, then move the state away" in done.stderr
    unlocked = {path: data for path, data in before.items() if path.name != "lock"}
    assert {path: path.read_bytes() for path in unlocked} == unlocked


def test_an_older_state_is_refused_and_the_model_goes_up_again_from_base(old: Workspace) -> None:
    refuse(old)
    before = back_to_base(old)
    (old.root / ".tokmigrate" / "state.db").rename(old.root / "state.db")
    assert old.run("upgrade").returncode == 0
    assert old.asked("current")["models"][0]["revision"] == THIRD
    assert old.run("downgrade", "base").returncode == 0
    assert {path.name: path.read_bytes() for path in (old.root / "m").iterdir()} == before


def test_without_an_older_state_models_keep_their_revisions(old: Workspace) -> None:
    refuse(old)
    (old.root / ".tokmigrate" / "state.db").rename(old.root / "state.db")
    before = {path.name: path.read_bytes() for path in (old.root / "m").iterdir()}
    assert old.run("upgrade").returncode == 0
    assert [(row["direction"], row["to_revision"]) for row in old.asked("log")["runs"]] == [
        ("upgrade", THIRD),
        ("adopt", None),
    ]
    assert old.run("downgrade", "-1").returncode == 0
    assert {path.name: path.read_bytes() for path in (old.root / "m").iterdir()} == before
    done = old.run("downgrade", "base")
    assert done.returncode == 1
    assert f"the undo data of {SECOND} is missing in this workspace" in done.stderr


def test_an_interrupted_run_of_an_older_version_is_refused(old: Workspace) -> None:
    area = old.root / ".m.tokmigrate"
    area.mkdir()
    (area / "journal").write_text(OLD["journal"], "utf-8")
    (old.root / ".tokmigrate" / "state.db").rename(old.root / "state.db")
    done = old.run("recover")
    assert done.returncode == 5
    assert "the journal of an interrupted change has format version 1" in done.stderr
    assert "finish it with the version that began it" in done.stderr


def test_an_older_plan_and_export_are_refused(new: Workspace, tmp_path: Path) -> None:
    done = new.run("upgrade", "--plan", "plan.json")
    assert done.returncode == 4
    assert "make and review a new one: `tokmigrate plan -o FILE`" in done.stderr
    (tmp_path / "ledger.jsonl").write_text("\n".join(OLD["export"]) + "\n", "utf-8")
    done = new.run("import", str(tmp_path / "ledger.jsonl"))
    assert done.returncode == 4
    assert "the ledger export has format version 1" in done.stderr
    assert "export it again" in done.stderr


def test_an_undo_record_of_format_1_is_read(tmp_path: Path) -> None:
    objects = ObjectStore(tmp_path)
    metadata = FileMetadata(0o644, 1, 2, 3, (("user.x", "00"),))
    undo = Undo(
        files={"a": b"before", "b": None},
        left={"a": None, "b": b"after"},
        metadata={"a": metadata},
        edit=RowEdit.identity(4),
        saved={"t": objects.put(b"rows")},
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


def edit(name: str, change: Callable[[str], str] = newer) -> Callable[[Workspace], None]:
    def edited(place: Workspace) -> None:
        path = place.root / name
        path.write_text(change(path.read_text("utf-8")), "utf-8")

    return edited


def journal(name: str) -> Callable[[Workspace], None]:
    def made(place: Workspace) -> None:
        path = place.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"format": 99}', "utf-8")

    return made


def state_version(place: Workspace) -> None:
    with sqlite3.connect(place.root / ".tokmigrate" / "state.db") as raw:
        raw.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")


def undo_record(place: Workspace) -> None:
    """Let the ledger name an undo record of a newer format."""
    digest = ObjectStore(place.root / ".tokmigrate" / "objects").put(b'{"format": 99}')
    with sqlite3.connect(place.root / ".tokmigrate" / "state.db") as raw:
        raw.execute("DROP TRIGGER applied_fixed")
        raw.execute("UPDATE applied SET undo_record = ?", [digest])


def undo_record_of_gguf(place: Workspace) -> None:
    """Let the undo record of a migration that a GGUF followed name a record of a newer format."""
    convert(place.root / "m", place.root / "m.gguf", "F32")
    settings = place.root / "tokmigrate.yaml"
    with_copy = "m: {path: m, copies: [{path: m.gguf, follow: true}]}"
    settings.write_text(settings.read_text("utf-8").replace("m: {path: m}", with_copy), "utf-8")
    assert place.run("upgrade", THIRD).returncode == 0
    objects = ObjectStore(place.root / ".tokmigrate" / "objects")
    with sqlite3.connect(place.root / ".tokmigrate" / "state.db") as raw:
        raw.execute("DROP TRIGGER applied_fixed")
        query = "SELECT undo_record FROM applied WHERE revision = ?"
        record = json.loads(objects.get(raw.execute(query, [THIRD]).fetchall()[-1][0]))
        record["copies"] = dict.fromkeys(record["copies"], objects.put(b'{"format": 99}'))
        digest = objects.put(json.dumps(record).encode())
        raw.execute("UPDATE applied SET undo_record = ? WHERE revision = ?", [digest, THIRD])


def export(place: Workspace) -> None:
    (place.root / "ledger.jsonl").write_text('{"format": 99, "ledger": "x"}\n', "utf-8")


def coefficients(place: Workspace) -> None:
    folder = place.root / "migrations"
    shutil.copytree(place.root / "m", folder / "donor")
    data = write_coefficients({"input": {0: ([1], [1.0])}}, {1: "b"}, {"format": 99})
    (folder / "c.safetensors").write_bytes(data)
    operation = "transplant: {tokenizer: donor, coefficients: c.safetensors, acknowledge: breaking}"
    head = f"format: 1\nrevision: dddddddddddd\ndown_revision: {THIRD}\nmessage: Take it\n"
    (folder / "0004_take_it.yaml").write_text(f"{head}operations:\n  - {operation}\n", "utf-8")


NEWER: list[tuple[FileFormat, Callable[[Workspace], None], tuple[str, ...], int]] = [
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
    (formats.GGUF_UNDO_RECORD, undo_record_of_gguf, ("downgrade", "-1"), 1),
    (formats.PLAN_FILE, edit("plan.json"), ("upgrade", "--plan", "plan.json"), 4),
    (formats.LEDGER_EXPORT, export, ("import", "ledger.jsonl"), 4),
    (formats.COEFFICIENTS, coefficients, ("plan",), 4),
]


@pytest.mark.parametrize(("written", "change", "words", "code"), NEWER, ids=[each[0].name for each in NEWER])
def test_a_newer_version_is_refused(
    new: Workspace, written: FileFormat, change: Callable[[Workspace], None], words: tuple[str, ...], code: int
) -> None:
    change(new)
    before = {path: path.read_bytes() for path in (new.root / "m").iterdir()}
    done = new.run(*words)
    assert (done.returncode, "upgrade tokmigrate" in done.stderr) == (code, True), done.stdout + done.stderr
    assert {path: path.read_bytes() for path in (new.root / "m").iterdir()} == before


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
