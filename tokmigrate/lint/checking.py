"""Rules run on migrations: what they find, without what is not wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from tokmigrate.lint.file import Failure, MigrationFile, Place
from tokmigrate.lint.model import OnModel
from tokmigrate.lint.noqa import silenced
from tokmigrate.lint.registry import RULES, Selection
from tokmigrate.lint.rule import AnyRule, FailureRule, FileRule, Found, ModelRule, Severity


@dataclass(frozen=True)
class Finding:
    """What a rule found in a file.

    Args:
        rule: The rule.
        file: The file.
        place: Where.
        message: What is wrong.
        help: What to do.
        models: The models on which it was found; none where the file alone shows it.
    """

    rule: AnyRule
    file: MigrationFile
    place: Place
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
        return lines[self.place.line - 1] if self.place.line <= len(lines) else ""


Seen = MigrationFile | OnModel | Failure
"""What rules look at."""


def check(seen: Iterable[Seen], selection: Selection) -> tuple[Finding, ...]:
    """Return what rules find, in the order of files and places; what several models show is one finding.

    Args:
        seen: Files, in their order, and what becomes of models; each file before the models that it is applied to.
        selection: The rules that are wanted.
    """
    found: dict[tuple[str, str, Place, str], Finding] = {}
    for each in seen:
        for finding in _findings(each, selection):
            key = (finding.file.migration.shown, finding.rule.code, finding.place, finding.message)
            held = found.get(key)
            models = dict.fromkeys((*(held.models if held else ()), *finding.models))
            found[key] = replace(finding, models=() if held and not held.models else tuple(models))
    files = {finding.file.migration.shown: finding.file for finding in found.values()}
    silent = {shown: silenced(file) for shown, file in files.items()}
    kept = [each for each in found.values() if not _is_silenced(each, silent[each.file.migration.shown])]
    return tuple(sorted(kept, key=lambda each: (each.file.migration.shown, each.place, each.rule.code)))


def _findings(seen: Seen, selection: Selection) -> Iterator[Finding]:
    file = seen if isinstance(seen, MigrationFile) else seen.file
    models = () if isinstance(seen, MigrationFile) else (seen.model,)
    for rule in RULES.values():
        if rule.code not in selection:
            continue
        for found in _found(rule, seen):
            yield Finding(rule, file, found.place, found.message, found.help, models)


def _found(rule: AnyRule, seen: Seen) -> Iterable[Found]:
    if isinstance(rule, FileRule) and isinstance(seen, MigrationFile):
        return rule.check(seen)
    if isinstance(rule, ModelRule) and isinstance(seen, OnModel):
        # The code of a Python migration says what it does only to a model.
        return rule.check(seen)
    if isinstance(rule, FailureRule) and isinstance(seen, Failure):
        return rule.check(seen)
    return ()


def _is_silenced(finding: Finding, lines: Mapping[int, frozenset[str] | None]) -> bool:
    codes = lines.get(finding.place.line, frozenset())
    return codes is None or finding.rule.code in codes
