"""List words that the project does not use, where they are left, and why; fails where a page has one without a reason.

    python scripts/check_words.py [--list]

Words of the glossary that mostly have their ordinary meaning (kept, found, part, place) are not searched for.
Pages are README and docs; help texts and messages are the string literals of the package, which are only counted.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WORDS = {
    r"cut otherwise|cuts? (?:text|otherwise)|is cut\b": "tokenize, tokenized differently",
    r"begun|rows? (?:begins?|starts?)\b|begins? as|starts? from": "initialise, init",
    r"\bfresh\b(?! virtual| clone)": "new row, new id",
    r"\b(?:the lives|lives of|the life|life of)\b|befell|\bfates?\b|becomes? of": "token history, token change",
    r"\bbirths?\b": "init record",
    r"way (?:forth|back|down)|ways? there|\bpassage\b": "upgrade, downgrade, undo",
    r"by meaning|in what they mean": "semantic diff, semantic undo",
    r"carr(?:y|ied|ies) out": "publish, apply, run",
    r"\bexchanged?\b": "swap",
    r"\b(?:endings|books)\b": "run seal, run recorder",
    r"\b(?:graves?|buried)\b": "placeholder",
    r"tak(?:e|en|es|ing)(?: \w+)? on\b": "stamp, adopt",
    r"\b(?:signs?|evidence)\b": "revision detection",
    r"\bstand-?ins?\b|at hand": "dummy model",
    r"\blacking\b": "pending, is missing",
    r"work(?:s|ed)? on (?:this|by)|under way": "locked, in progress",
    r"\bpromised? (?:ids?|of the lock)|kept promises": "pinned ids",
    r"\bclaims?\b": "footprint, match",
    r"\b(?:rehears\w*|deviations?)\b": "round-trip test, mismatch",
    r"\bsettles?\b": "resolve",
    r"\bprobes?\b": "worker",
    r"peculiarit\w+": "quirk",
    r"\bcompanions?\b|other vocabularies": "slow-tokenizer files",
    r"\b(?:told|is said|are said)\b": "shown, reported",
    r"\bpatience\b": "timeout",
    r"\banew\b": "again, recreated",
    r"leads? (?:out|nowhere)": "is outside, dangling",
    r"behind tokmigrate's back": "outside tokmigrate",
}
"""What is not said, as a regular expression, and what is said instead."""

ALLOWED = {
    "model/probe": "the path of a package",
    ".fate": "a name of the API",
    '"fate"': "a key of JSON",
}
"""A text that may stand around a word, and why."""


@dataclass(frozen=True)
class Left:
    """A word that is left."""

    path: Path
    line: int
    word: str
    say: str
    text: str
    reason: str | None


def pages() -> list[Path]:
    """Return the pages that people write, and those that are made from the code."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def words_left(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Left]:
    """Yield the words that are left in numbered lines."""
    for number, line in lines:
        for pattern, say in WORDS.items():
            for match in re.finditer(pattern, line, re.IGNORECASE):
                around = line[max(0, match.start() - 30) : match.end() + 30]
                reason = next((why for text, why in ALLOWED.items() if text in around), None)
                yield Left(path, number, match[0], say, line.strip(), reason)


def numbered(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page with their numbers."""
    return enumerate(path.read_text("utf-8").splitlines(), 1)


def string_literals(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the string literals of a module with their lines: help texts, messages and docstrings."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def is_generated(path: Path) -> bool:
    """Whether a page is made from texts of the package."""
    return "Generated " in path.read_text("utf-8")[:300] or path.parent not in {ROOT, ROOT / "docs"}


def main(arguments: list[str]) -> int:
    """Print what is left; return 1 where a written page has a word without a reason."""
    in_pages = [left for path in pages() for left in words_left(path, numbered(path))]
    code = sorted((ROOT / "tokmigrate").rglob("*.py"))
    in_code = [left for path in code for left in words_left(path, string_literals(path))]
    wrong = [left for left in in_pages if left.reason is None and not is_generated(left.path)]
    shown = [*in_pages, *in_code] if "--list" in arguments else wrong
    for left in shown:
        why = f" ({left.reason})" if left.reason else ""
        print(f"{left.path.relative_to(ROOT)}:{left.line}: '{left.word}': say {left.say}{why}")
    generated = sum(1 for left in in_pages if is_generated(left.path) and left.reason is None)
    unexplained = sum(left.reason is None for left in in_code)
    print(f"pages: {len(wrong)} to mend; generated pages: {generated}; strings of the package: {unexplained}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
