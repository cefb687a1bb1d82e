"""Add 1,000, 2,000 and 4,000 tokens to the demo, interleaved; print the time of each relative to the first.

    python benchmarks/many_tokens.py DIRECTORY

The cost shall follow the number of tokens: about 2 and 4 times as much, less what a command costs by itself.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

DEMO = Path(__file__).resolve().parents[1] / "models" / "demo"
COUNTS, ROUNDS = (1000, 2000, 4000), 3
INITS = {"mean": "{strategy: mean}", "subtokens": "{strategy: subtokens}"}
SETTINGS = "format: 1\nverify: fast\nmodels:\n  demo: {path: models/demo}\n"
COMMANDS = ("plan", "lint", "upgrade", "downgrade base")


def workspace(directory: Path, count: int, init: str) -> Path:
    """Write a workspace with one migration of that many tokens."""
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "migrations").mkdir(parents=True)
    shutil.copytree(DEMO, directory / "models" / "demo")
    (directory / "tokmigrate.yaml").write_text(SETTINGS, "utf-8")
    tokens = "".join(f'      - {{content: "word {number}", single_word: true}}\n' for number in range(count))
    head = f"format: 1\nrevision: 0123456789ab\nmessage: Words of a trade\ninit: {init}\noperations:\n"
    text = f"{head}  - add_tokens:\n      tokens:\n{tokens.replace('      -', '        -')}"
    (directory / "migrations" / "0001_words.yaml").write_text(text, "utf-8")
    return directory


def seconds(directory: Path, command: str) -> float:
    """Run a command in a workspace; it must work."""
    start = time.perf_counter()
    words = [sys.executable, "-m", "tokmigrate.cli.app", *command.split()]
    subprocess.run(words, cwd=directory, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Print a line for each command and each way to begin rows."""
    root = Path(sys.argv[1])
    for name, init in INITS.items():
        taken: dict[tuple[str, int], list[float]] = {}
        for _ in range(ROUNDS):
            for count in COUNTS:
                place = workspace(root / f"{name}-{count}", count, init)
                for command in COMMANDS:
                    taken.setdefault((command, count), []).append(seconds(place, command))
        for command in COMMANDS:
            middle = [statistics.median(taken[command, count]) for count in COUNTS]
            ratios = " ".join(
                f"{count} tokens {value / middle[0]:.1f}x" for count, value in zip(COUNTS, middle, strict=True)
            )
            print(f"{name:8} {command:15} {middle[0]:6.2f} s: {ratios}")


if __name__ == "__main__":
    main()
