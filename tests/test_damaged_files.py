"""Files that hold something else than they should: every command ends with a code of the table and a reason."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process import Here
from workspaces import make_workspace

from tokmigrate.errors import EXIT_CODES

INTERNAL = "an error in tokmigrate itself"


def here(root: Path) -> Here:
    return Here(make_workspace(root).root)


def told(place: Here, *words: str) -> tuple[int, str]:
    """Run a command, and return its code and what it says; a hint has to be in it where it fails."""
    done = place.run(*words)
    said = done.stdout + done.stderr
    assert INTERNAL not in said, said
    assert "Traceback" not in said
    assert done.returncode in EXIT_CODES
    return done.returncode, said


# The journal of a change

JOURNAL = {"format": 1, "operation": "x", "generation_before": None, "generation_after": "y", "adapters": []}


@pytest.mark.parametrize(
    "journal",
    [
        {},
        [],
        {**JOURNAL, "format": 2},
        {**JOURNAL, "operation": None},
        {**JOURNAL, "operation": ["x"]},
        {**JOURNAL, "generation_before": 7},
        {**JOURNAL, "adapters": {}},
        {**JOURNAL, "adapters": [None]},
        {**JOURNAL, "adapters": [{"path": 7, "generation_before": None, "generation_after": None}]},
        {**JOURNAL, "adapters": [{"path": "\0", "generation_before": None, "generation_after": None}]},
        {key: value for key, value in JOURNAL.items() if key != "generation_after"},
    ],
)
def test_a_journal_of_another_shape(tmp_path: Path, journal: Any) -> None:
    place = here(tmp_path / "w")
    place.area.mkdir()
    (place.area / "journal").write_text(json.dumps(journal), "utf-8")
    for words in (("recover",), ("upgrade",)):
        code, said = told(place, *words)
        assert code != 0
        assert "journal" in said or "interrupted" in said
        assert "what to do" in said


# Pipes, sockets and devices


@pytest.fixture
def hurry() -> Iterator[None]:
    """Let a test fail that waits for somebody to write into a pipe."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def make_device(path: Path) -> None:
    path.unlink(missing_ok=True)
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        path.open("rb").close()
    except OSError:
        pytest.skip("devices cannot be made here")


SHARD = "model-00001-of-00002.safetensors"
COMMANDS = (("status",), ("plan",), ("upgrade",), ("check",))


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("make", [make_pipe, make_socket, make_device])
@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_only_regular_files_are_read(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    place = here(tmp_path / "w")
    make(place.model / name)
    for words in COMMANDS:
        code, said = told(place, *words)
        assert code != 0, words
        assert name in said
        assert "is a pipe, a socket or a device" in said
        assert "what to do" in said
    assert place.left_over() == []


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    "name",
    [
        *(f"models/demo/{name}" for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")),
        *(f"models/demo/{name}" for name in ("additional_chat_templates/x.jinja", "modules.json", "vocab.txt")),
        *(f"models/demo/{name}" for name in ("chat_template.jinja", "model.safetensors.index.json", "tokmigrate.json")),
        *("tokmigrate.yaml", "migrations/0004_x.yaml", "migrations/0004_x.py", "migrations/tokmigrate.lock"),
        *("migrations/tokens.txt", ".tokmigrate/state.db", ".tokmigrate/migrations.journal"),
        "models/.demo.tokmigrate/journal",
        *("lora/adapter_config.json", "lora/adapter_model.safetensors", "lora/tokenizer.json"),
    ],
)
def test_a_pipe_never_blocks(tmp_path: Path, name: str) -> None:
    place = here(tmp_path / "w")
    if name == "migrations/tokens.txt":
        (place.root / "migrations" / "0004_x.yaml").write_text(
            "format: 1\nrevision: aaaaaaaaaaaa\ndown_revision: c07d18e2b9f4\nmessage: x\noperations:\n"
            "  - add_tokens: {tokens_file: tokens.txt}\n",
            "utf-8",
        )
    if name.startswith("lora/"):
        settings = place.settings.read_text("utf-8")
        place.settings.write_text(settings.replace("models/demo}", "models/demo, adapters: [lora]}"), "utf-8")
        (place.root / "lora").mkdir()
        (place.root / "lora" / "adapter_config.json").write_text('{"peft_type": "LORA"}', "utf-8")
    make_pipe(place.root / name)
    for words in (*COMMANDS, ("lint",), ("recover",), ("log",)):
        told(place, *words)
    assert told(place, "upgrade")[0] != 0


@pytest.mark.usefixtures("hurry")
def test_a_pipe_as_corpus_or_plan(tmp_path: Path) -> None:
    place = here(tmp_path / "w")
    make_pipe(tmp_path / "pipe")
    for words in (("plan", "--corpus", str(tmp_path / "pipe")), ("upgrade", "--plan", str(tmp_path / "pipe"))):
        code, said = told(place, *words)
        assert code == 2
        assert "is a pipe" in said
