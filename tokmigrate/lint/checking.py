"""Rules run on migrations: what they find, without what is not wanted."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import yaml

from tokmigrate.lint.file import Failure, Location, MigrationFile
from tokmigrate.lint.model import OnModel
from tokmigrate.lint.rule import Rule, Severity
from tokmigrate.lint.selection import RULES, Selection

# `# noqa: TM101`. Words after a colon that are no codes silence nothing, rather than everything.
_NOQA = re.compile(r"#\s*noqa(?:\s*:\s*(?P<codes>[A-Z]+[0-9]+(?:[\s,]+[A-Z]+[0-9]+)*)|\b(?!\s*:))", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """What a rule found in a file.

    Args:
        rule: The rule.
        file: The file.
        location: Where.
        message: What is wrong.
        help: What to do.
        models: The models on which it was found; none where the file alone shows it.
    """

    rule: Rule
    file: MigrationFile
    location: Location
    message: str
    help: str | None
    models: tuple[str, ...] = ()

    @property
    def is_error(self) -> bool:
        """Whether the migration has to change."""
        return self.rule.severity is Severity.ERROR

    @property
    def line(self) -> str:
        """The line of the file that it is in."""
        lines = self.file.lines
        return lines[self.location.line - 1] if self.location.line <= len(lines) else ""


Seen = MigrationFile | OnModel | Failure
"""What rules look at."""


def check(seen: Iterable[Seen], selection: Selection) -> tuple[Finding, ...]:
    """Return what rules find, in the order of files and places; what several models show is one finding.

    Args:
        seen: Files in order, and models before and after them; each file before the models that it is applied to.
        selection: The rules that are wanted.
    """
    found: dict[tuple[str, str, Location, str], Finding] = {}
    for each in seen:
        for finding in _findings(each, selection):
            key = (finding.file.migration.shown, finding.rule.code, finding.location, finding.message)
            held = found.get(key)
            models = dict.fromkeys((*(held.models if held else ()), *finding.models))
            found[key] = replace(finding, models=() if held and not held.models else tuple(models))
    files = {finding.file.migration.shown: finding.file for finding in found.values()}
    silent = {shown: _find_silenced(file) for shown, file in files.items()}
    kept = [each for each in found.values() if not _is_silenced(each, silent[each.file.migration.shown])]
    return tuple(sorted(kept, key=lambda each: (each.file.migration.shown, each.location, each.rule.code)))


def _findings(seen: Seen, selection: Selection) -> Iterator[Finding]:
    file = seen if isinstance(seen, MigrationFile) else seen.file
    models = () if isinstance(seen, MigrationFile) else (seen.model,)
    for rule in RULES.values():
        if rule.code in selection and isinstance(seen, rule.subject):
            for found in rule.check(seen):
                yield Finding(rule, file, found.location, found.message, found.help, models)


def _is_silenced(finding: Finding, lines: Mapping[int, frozenset[str] | None]) -> bool:
    codes = lines.get(finding.location.line, frozenset())
    return codes is None or finding.rule.code in codes


def _find_silenced(file: MigrationFile) -> dict[int, frozenset[str] | None]:
    """Return the codes that each line of a file silences, None for all of them."""
    found: dict[int, frozenset[str] | None] = {}
    for line, comment in _python_comments(file) if file.is_python else _yaml_comments(file):
        match = _NOQA.search(comment)
        if match:
            codes = re.findall(r"[A-Z]+[0-9]+", (match["codes"] or "").upper())
            found[line] = frozenset(codes) or None
    return found


def _python_comments(file: MigrationFile) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(file.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _yaml_comments(file: MigrationFile) -> Iterator[tuple[int, str]]:
    """Yield the comments of a YAML text: all from a `#` behind white space to the end of the line, outside of texts."""
    inside = list(_texts(file.text))
    for number, line in enumerate(file.lines):
        for mark in re.finditer(r"(?:^|(?<=\s))#", line):
            place = (number, mark.start())
            if not any(start <= place < end for start, end in inside):
                yield number + 1, line[mark.start() :]
                break


def _texts(text: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.ScalarToken):
            start, end = token.start_mark, token.end_mark
            # A block begins in the line after its `|`, which may bear a comment.
            first = (start.line + 1, 0) if token.style in {"|", ">"} else (start.line, start.column)
            yield first, (end.line, end.column)
