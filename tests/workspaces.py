"""A workspace of a test's own: a copy of the demo model with its migrations, and the command line in this process."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import select
import shutil
import stat
import struct
import subprocess
import sys
import termios
from collections.abc import Iterable, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tokmigrate.cli.app import main

REPOSITORY = Path(__file__).resolve().parents[1]
DEMO = REPOSITORY / "models" / "demo"
HEAD = "c07d18e2b9f4"
BASE = "base"

_SETTINGS = """\
format: 1
migrations: migrations
state: sqlite:///.tokmigrate/state.db
models:
  demo: {path: models/demo}
verify: fast
"""


@dataclass(frozen=True)
class FileImage:
    """All of a file that a change may not lose by accident."""

    data: bytes
    mode: int
    mtime_ns: int


Image = dict[str, FileImage]
Contents = dict[str, tuple[bytes, int]]


def image(directory: Path) -> Image:
    """Return every file of a directory."""
    found: Image = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            held = FileImage(path.read_bytes(), stat.S_IMODE(status.st_mode), status.st_mtime_ns)
            found[str(path.relative_to(directory))] = held
    return found


def make_fleet(root: Path, names: Iterable[str]) -> Workspace:
    """Make a workspace whose models are copies of the demo."""
    made = make_workspace(root)
    for name in names:
        shutil.copytree(made.model, made.root / "models" / name)
    list_models(made, *names)
    return made


def list_models(place: Workspace, *names: str, **paths: str) -> None:
    """Let a workspace list models in this order: those of `models/` by name, then those at other paths."""
    models = {**{name: f"models/{name}" for name in names}, **paths}
    lines = "".join(f"  {name}: {{path: {path}}}\n" for name, path in models.items())
    place.settings.write_text(f"format: 1\nverify: fast\nmodels:\n{lines}", "utf-8")


def contents(directory: Path) -> Contents:
    """Return bytes and mode of every file; files that were written again have other times."""
    return {name: (file.data, file.mode) for name, file in image(directory).items()}


@dataclass(frozen=True)
class Workspace:
    """A folder with a model `demo`."""

    root: Path

    @property
    def model(self) -> Path:
        """The model directory."""
        return self.root / "models" / "demo"

    @property
    def area(self) -> Path:
        """The work area beside it."""
        return self.root / "models" / ".demo.tokmigrate"

    @property
    def settings(self) -> Path:
        """The settings' file."""
        return self.root / "tokmigrate.yaml"

    def migration(self, number: int) -> Path:
        """Return the file of a migration, counted from 1."""
        return sorted((self.root / "migrations").glob("*.yaml"))[number - 1]

    def add_migration(
        self,
        operations: str,
        revision: str = "aaaaaaaaaaaa",
        after: str = HEAD,
        *,
        message: str = "New",
        name: str = "new",
    ) -> Path:
        """Write one more migration, and return its file; `operations` is what stands below that key."""
        folder = self.root / "migrations"
        path = folder / f"{len(list(folder.glob('*.yaml'))) + 1:04}_{name}.yaml"
        head = f"format: 1\nrevision: {revision}\ndown_revision: {after}\nmessage: {json.dumps(message)}\n"
        path.write_text(f"{head}operations:\n{operations}", "utf-8")
        return path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line here, in this process."""
        with patch.dict("os.environ", environment()):
            return run_here(self.root, *arguments)

    def run_process(self, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run the command line in a process of its own, perhaps under another program."""
        command = [*before, *command_line(), *arguments]
        return subprocess.run(
            command, cwd=self.root, env=environment(), capture_output=True, text=True, timeout=120, check=False
        )

    def asked(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run a command with --json that must end with a code, and return its document."""
        done = self.run(*arguments, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def left_over(self) -> list[str]:
        """Return what lies in the work area beside the lock, which always stays."""
        return sorted(path.name for path in self.area.iterdir() if path.name != "lock") if self.area.exists() else []


def make_workspace(root: Path) -> Workspace:
    """Copy the demo, times and all, into a new workspace."""
    made = Workspace(root)
    (root / "models").mkdir(parents=True)
    shutil.copytree(DEMO, made.model)
    shutil.copytree(REPOSITORY / "migrations", root / "migrations")
    made.settings.write_text(_SETTINGS, "utf-8")
    return made


def edit(path: Path, old: str, new: str) -> str:
    """Replace a text that a file has to have, and return what the file held."""
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    return text


def edit_json(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **fields}, indent=2), "utf-8")


def command_line() -> list[str]:
    """Return the command `tokmigrate` of this environment."""
    return [sys.executable, "-m", "tokmigrate.cli.app"]


def run_here(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which saves the start of another one; its width is that of a pipe."""
    said, complained, code = io.StringIO(), io.StringIO(), 0
    with (
        chdir(folder),
        patch.object(sys, "argv", ["tokmigrate", *words]),
        redirect_stdout(said),
        redirect_stderr(complained),
    ):
        try:
            main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
    return subprocess.CompletedProcess(["tokmigrate", *words], code, said.getvalue(), complained.getvalue())


def on_terminal(place: Workspace, *words: str, **variables: str) -> str:
    """Return what a terminal of 80 columns is sent by a command that has to work."""
    code, sent = type_on_terminal(place, *words, **variables)
    assert code == 0, sent
    return sent


def type_on_terminal(
    place: Workspace, *words: str, lines: int = 0, keys: Sequence[bytes] = (), **variables: str
) -> tuple[int, str]:
    """Return the exit code of a command and what a terminal is sent; each of `keys` is typed when that rests."""
    chief, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 80 if lines else 0, 0, 0))
    plain = {name: value for name, value in environment().items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [*command_line(), *words],
        cwd=place.root,
        env={**plain, "COLUMNS": "80", "TERM": "xterm-256color", **variables},
        stdin=side,
        stdout=side,
        stderr=side,
        # Ctrl-C reaches those whose terminal this is.
        preexec_fn=partial(_control_terminal, side),  # noqa: PLW1509
        start_new_session=True,
    )
    os.close(side)
    sent = b""
    keys = list(keys)
    while True:
        if not select.select([chief], [], [], 0.3 if keys and sent else 60)[0]:
            if not keys or not sent:
                break
            os.write(chief, keys.pop(0))
            continue
        try:
            part = os.read(chief, 65536)
        except OSError:
            break
        if not part:
            break
        sent += part
    os.close(chief)
    return process.wait(60), sent.decode().replace("\r\n", "\n")


def _control_terminal(descriptor: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


def environment() -> dict[str, str]:
    """Return an environment in which nothing is coloured, cut or fetched."""
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "400", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
