"""Write docs/plan.svg: what `tokmigrate plan` prints for the demo, as a picture for the README."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE, WIDTH = "docs/plan.svg", 100
# The fonts that rich names are on the network; any monospaced one does.
_FORMAT = re.sub(r"\s*@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def printed() -> str:
    """Return what the command prints in colour in a fresh copy of the demo's workspace."""
    with TemporaryDirectory() as folder:
        for name in ("models/demo", "migrations"):
            shutil.copytree(ROOT / name, Path(folder) / name)
        shutil.copy(ROOT / "tokmigrate.yaml", folder)
        terminal = {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "tokmigrate", "plan"],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name != "NO_COLOR"} | terminal,
            capture_output=True,
            text=True,
            check=True,
        )
    return done.stdout


def picture() -> str:
    """Return the picture as SVG."""
    console = Console(record=True, file=io.StringIO(), width=WIDTH, force_terminal=True, legacy_windows=False)
    console.print(Text.from_ansi("$ tokmigrate plan\n" + printed().rstrip()), soft_wrap=True)
    svg = console.export_svg(title="tokmigrate plan", code_format=_FORMAT, unique_id="plan")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def main(arguments: list[str]) -> int:
    """Write the picture, or with --check return 1 where it is not current."""
    path, svg = ROOT / PICTURE, picture()
    if "--check" not in arguments:
        path.write_text(svg, "utf-8")
        return 0
    is_current = path.is_file() and path.read_text("utf-8") == svg
    print(f"{PICTURE} is {'current' if is_current else 'not current: run python scripts/make_plan_picture.py'}")
    return not is_current


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
