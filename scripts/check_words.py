"""List words that the project does not use, where they are left, and why; fails where one is left without a reason.

    python scripts/check_words.py [--list]

Words of the glossary that mostly have their ordinary meaning (kept, found, part, place) are not searched for.
Searched are pages, and messages, help, docstrings and comments of the package. Functions must not be named by the past
participle of what they return. `--list` also shows the words that are left with a reason.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
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
    r"\bwhoever\b": "a user who, a process that",
    r"\b(?:became|become) of\b": "history, change",
    r"\bshall\b": "must, the new …",
    r"(?:tells?|speaks?) of\b": "records, reports, describes",
    r"from now on|for good\b": "after that, never",
    r"seen to lead|lead\w* (?:to )?nowhere": "verified, dangling",
}
"""What is not said, as a regular expression, and what is said instead."""

ALLOWED = {
    "standard deviation": "the term of statistics",
    "'told he's there": "the text that llama.cpp's converter tokenizes",
}
"""A text that may stand around a word, and why."""

PARTICIPLES = re.compile(r"_*(?:begun|held|kept|listed|named|shown|told|tried)(?:_|$)|_*(?!expected$)[a-z]*[^e]ed$")
"""How no function is named; `expected` is a method that plug-ins have."""


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
                reasons = (why for text, why in ALLOWED.items() if match[0].lower() in text and text in around)
                yield Left(path, number, match[0], say, line.strip(), next(reasons, None))


def numbered(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page with their numbers."""
    return enumerate(path.read_text("utf-8").splitlines(), 1)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the string literals and comments of a module with their lines."""
    kinds = (tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type in kinds and " " in token.string:
            yield from enumerate(token.string.splitlines(), token.start[0])


def participles(path: Path) -> Iterator[Left]:
    """Yield the functions of a module whose name says what they return by a past participle."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        is_property = isinstance(node, ast.FunctionDef) and bool(node.decorator_list)
        if isinstance(node, ast.FunctionDef) and not is_property and PARTICIPLES.match(node.name):
            yield Left(path, node.lineno, node.name, "a verb", node.name, None)


def all_words_left() -> list[Left]:
    """Return the words that are left in the pages and in the package, with a reason or without one."""
    modules = sorted((ROOT / "tokmigrate").rglob("*.py"))
    return [
        *(left for path in pages() for left in words_left(path, numbered(path))),
        *(left for path in modules for left in words_left(path, texts(path))),
        *(left for path in modules for left in participles(path)),
    ]


def main(arguments: list[str]) -> int:
    """Print what is left; return 1 where a word has no reason."""
    found = all_words_left()
    wrong = [left for left in found if left.reason is None]
    for left in found if "--list" in arguments else wrong:
        why = f" ({left.reason})" if left.reason else ""
        print(f"{left.path.relative_to(ROOT)}:{left.line}: '{left.word}': say {left.say}{why}")
    print(f"{len(wrong)} to mend, {len(found) - len(wrong)} with a reason")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
