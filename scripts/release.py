"""Check, build and try a release; upload it only when told to.

    python scripts/release.py [--python PYTHON]... [--dry-run] [--upload]

1. The tree is clean, and CHANGELOG.md has the version of the package with its date, or --dry-run is given.
2. `python -m build` makes the sdist, and of it the wheel, in dist/; `twine check --strict` reads both.
3. The wheel is installed in a new environment, and scripts/clean_room.py uses it in an empty folder; for each --python.
4. The command that uploads is printed; --upload runs it.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"


def read_version(root: Path) -> str:
    """Return the version of the package, which is not imported."""
    found = re.search(r'^__version__ = "(.+)"$', (root / "tokmigrate" / "__init__.py").read_text("utf-8"), re.MULTILINE)
    if found is None:
        sys.exit("tokmigrate/__init__.py has no __version__")
    return found[1]


def find_problems(root: Path) -> Iterator[str]:
    """Yield why a tree cannot be released."""
    command = ["git", "status", "--porcelain"]
    status = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    if status.stdout:
        yield f"the tree is not clean:\n{status.stdout.rstrip()}"
    version = read_version(root)
    headings = re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    if not headings or headings[0] != "Unreleased":
        yield "CHANGELOG.md does not begin with `## Unreleased`"
    elif not re.fullmatch(rf"{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", (headings[1:] or [""])[0]):
        yield f"below Unreleased CHANGELOG.md has no `## {version} (YYYY-MM-DD)`, the version of the package"


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> None:
    """Run a command; one that fails ends the script."""
    print(f"+ {shlex.join(map(str, command))}", flush=True)
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def build() -> tuple[Path, Path]:
    """Return a new wheel and sdist."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    return wheel, sdist


def try_wheel(wheel: Path, python: str) -> None:
    """Install the wheel in a new environment and use it in an empty folder, both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        environment, empty = Path(folder, "environment"), Path(folder, "empty")
        run(python, "-m", "venv", environment)
        run(environment / "bin" / "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
        empty.mkdir()
        shutil.copy(ROOT / "scripts" / "clean_room.py", empty)
        run(environment / "bin" / "python", "clean_room.py", cwd=empty, PYTHONPATH="", HOME=folder)


def main() -> None:
    """Do the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--python", action="append", metavar="PYTHON", help="try the wheel with this Python; repeatable"
    )
    parser.add_argument("--dry-run", action="store_true", help="go on with a tree that cannot be released")
    parser.add_argument("--upload", action="store_true", help="upload both with twine at the end")
    options = parser.parse_args()
    if options.dry_run and options.upload:
        parser.error("--dry-run uploads nothing")
    problems = list(find_problems(ROOT))
    for problem in problems:
        print(f"problem: {problem}")
    if problems and not options.dry_run:
        sys.exit(1)
    wheel, sdist = build()
    for python in options.python or [sys.executable]:
        try_wheel(wheel, python)
    upload = (sys.executable, "-m", "twine", "upload", wheel, sdist)
    if options.upload:
        run(*upload)
    else:
        print(f"to upload: {shlex.join(map(str, upload))}")


if __name__ == "__main__":
    main()
