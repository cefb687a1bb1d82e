"""Write docs/session.svg: a terminal session with the demo, as a picture for the README and the site."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import chdir, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from generated_files import ROOT, main
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tokmigrate.cli.app import main as tokmigrate

PICTURE, WIDTH = "docs/session.svg", 100
COMMANDS = (
    "tokmigrate plan",
    "tokmigrate upgrade --quiet",
    "tokmigrate status",
    "tokmigrate blame '<|im_start|>'",
    "tokmigrate downgrade base",
    "git status",
)
# The fonts that rich names are on the network; any monospaced one does.
_FORMAT = re.sub(r"\s*@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
_GIT = {
    f"GIT_{role}_{name}": value
    for role in ("AUTHOR", "COMMITTER")
    for name, value in (("NAME", "Ada"), ("EMAIL", "ada@example.com"), ("DATE", "2026-01-05T09:00:00Z"))
}
_TERMINAL = {
    **_GIT,
    **dict.fromkeys(("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"), os.devnull),
    "FORCE_COLOR": "1",
    "COLUMNS": str(WIDTH),
    "TERM": "xterm-256color",
    "LOGNAME": "ada",
    "LC_ALL": "C.UTF-8",
}
_COLOURS = ["3c3c3c", "ff6b6b", "6ed787", "e6c85a", "78aaff", "e08ceb", "5fcdd7", "dcdcdc"]
_THEME = TerminalTheme((30, 30, 30), (220, 220, 220), [tuple(bytes.fromhex(each)) for each in _COLOURS])
# What differs from run to run, of the same length where that matters.
_FIXED = (
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "2026-01-05 09:30:00 UTC"),
    (r"\brun [0-9a-f]{16}", "run 4f1c0a9be27d6358"),
    (r"(\bin|\bcommit) [0-9a-f]{10}\b", r"\1 3e9d2c71ab"),
)


def record() -> str:
    """Return what the commands print in a copy of the demo's workspace under Git, with a prompt before each."""
    variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | _TERMINAL
    with (
        TemporaryDirectory() as folder,
        chdir(folder),
        patch.dict("os.environ", variables, clear=True),
        patch("socket.gethostname", return_value="workshop"),
    ):
        for name in ("models/demo", "migrations"):
            shutil.copytree(ROOT / name, name)
        for name in ("tokmigrate.yaml", ".gitignore"):
            shutil.copy(ROOT / name, name)
        settings = Path("tokmigrate.yaml")
        settings.write_text(settings.read_text("utf-8").replace("verify: full", "verify: fast"), "utf-8")
        for line in ("git init -q -b main", "git add -A", "git commit -q -m 'Add the demo'"):
            _run(line)
        text = "\n\n".join(f"\x1b[1m$ {line}\x1b[0m\n{_run(line)}".rstrip() for line in COMMANDS)
        text = text.replace(os.path.realpath(folder), "/home/ada/demo")
    for pattern, value in _FIXED:
        text = re.sub(pattern, value, text)
    return text


def _run(line: str) -> str:
    words = shlex.split(line)
    if words[0] != "tokmigrate":
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout
    said = io.StringIO()
    with patch.object(sys, "argv", words), redirect_stdout(said):
        try:
            tokmigrate()
        except SystemExit as left:
            if left.code:
                raise RuntimeError(f"{line}: exit code {left.code}") from left
    return said.getvalue()


def picture() -> str:
    """Return the picture as SVG; it has a ground of its own, so that it can be read on light and dark pages."""
    console = Console(record=True, file=io.StringIO(), width=WIDTH, force_terminal=True, legacy_windows=False)
    console.print(Text.from_ansi(record()), soft_wrap=True)
    svg = console.export_svg(title="tokmigrate", code_format=_FORMAT, unique_id="session", theme=_THEME)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


if __name__ == "__main__":
    main({PICTURE: picture()})
