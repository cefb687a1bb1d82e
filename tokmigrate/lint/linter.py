"""All rules, which of them are wanted, and what they find in migrations."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import yaml

from tokmigrate.errors import UsageError, suggest
from tokmigrate.lint.rule import REGISTERED, Rule, Severity
from tokmigrate.lint.rules import tm0_tm2_ids, tm1_matching, tm1_removed, tm1_texts, tm3_roles, tm4_reproducibility  # noqa: F401 - a rule is registered by the import of its module
from tokmigrate.lint.subjects import Failure, Location, MigrationFile, OnModel

RULES: Mapping[str, Rule] = dict(sorted(REGISTERED.items()))
"""Every rule by its code, in the order of the codes."""

Seen = MigrationFile | OnModel | Failure
"""What rules look at."""

# Words behind `noqa:` that are no codes silence nothing, rather than everything.
_NOQA = re.compile(r"#\s*noqa(?:\s*:\s*(?P<codes>[A-Z]+[0-9]+(?:[\s,]+[A-Z]+[0-9]+)*)|\b(?!\s*:))", re.IGNORECASE)


@dataclass(frozen=True)
class Selection:
    """The rules that are wanted: those that begin with a code of `select`, or all, without those of `ignore`.

    Of two beginnings of a code, as `TM3` and `TM301`, the longer one counts.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    @staticmethod
    def of(select: Iterable[str], ignore: Iterable[str], where: str) -> Selection:
        """Return the selection that words make, each one code or several with commas between.

        Raises UsageError, with `where`, for a word that is the beginning of no code.
        """
        return Selection(_codes(select, where), _codes(ignore, where))

    def __contains__(self, code: str) -> bool:
        wanted, ignored = (
            max((len(each) for each in beginnings if code.startswith(each)), default=-1)
            for beginnings in (self.select or ("",), self.ignore)
        )
        return wanted >= 0 and ignored < max(wanted, 1)


def _codes(words: Iterable[str], where: str) -> tuple[str, ...]:
    codes = tuple(code.strip().upper() for word in words for code in word.split(",") if code.strip())
    for code in codes:
        if not any(known.startswith(code) for known in RULES):
            hint = suggest(code, RULES) or f"codes are {', '.join(RULES)}, or a beginning such as TM3"
            raise UsageError(f"no rule has a code like '{code}'", where=where, hint=hint)
    return codes


@dataclass(frozen=True)
class Finding:
    """What a rule found in a file, and on which models; on none where the file alone shows it."""

    rule: Rule
    file: MigrationFile
    location: Location
    message: str
    help: str | None
    models: tuple[str, ...] = ()

    @property
    def is_error(self) -> bool:
        return self.rule.severity is Severity.ERROR

    @property
    def line(self) -> str:
        lines = self.file.lines
        return lines[self.location.line - 1] if self.location.line <= len(lines) else ""


def check(seen: Iterable[Seen], selection: Selection) -> tuple[Finding, ...]:
    """Return what rules find, in the order of files and places; what several models show is one finding.

    In `seen` each file comes before the models that it is applied to.
    """
    found: dict[tuple[str, Location, str, str], Finding] = {}
    silent: dict[str, Mapping[int, frozenset[str]]] = {}
    for each in seen:
        for finding in _findings(each, selection):
            shown, code = finding.file.migration.shown, finding.rule.code
            if shown not in silent:
                silent[shown] = _find_silenced(finding.file)
            if code in silent[shown].get(finding.location.line, ()):
                continue
            key = (shown, finding.location, code, finding.message)
            held = found.setdefault(key, finding)
            # What the file alone shows is so on every model.
            models = dict.fromkeys((*held.models, *finding.models)) if held.models else ()
            found[key] = replace(finding, models=tuple(models))
    return tuple(finding for _, finding in sorted(found.items(), key=lambda item: item[0][:3]))


def _findings(seen: Seen, selection: Selection) -> Iterator[Finding]:
    file = seen if isinstance(seen, MigrationFile) else seen.file
    models = () if isinstance(seen, MigrationFile) else (seen.model,)
    for rule in RULES.values():
        if rule.code in selection and isinstance(seen, rule.subject):
            for found in rule.check(seen):
                yield Finding(rule, file, found.location, found.message, found.help, models)


def _find_silenced(file: MigrationFile) -> dict[int, frozenset[str]]:
    found: dict[int, frozenset[str]] = {}
    tokens = tokenize.generate_tokens(io.StringIO(file.text).readline) if file.is_python else ()
    in_python = ((token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT)
    for line, comment in in_python if file.is_python else _yaml_comments(file):
        match = _NOQA.search(comment)
        if match:
            found[line] = frozenset(re.findall(r"[A-Z]+[0-9]+", (match["codes"] or "").upper()) or RULES)
    return found


def _yaml_comments(file: MigrationFile) -> Iterator[tuple[int, str]]:
    """Yield the comments of a YAML text: all from a `#` behind white space to the end of the line, outside of texts."""
    inside = list(_texts(file.text))
    for number, line in enumerate(file.lines):
        for mark in re.finditer(r"(?:^|(?<=\s))#", line):
            if not any(start <= (number, mark.start()) < end for start, end in inside):
                yield number + 1, line[mark.start() :]
                break


def _texts(text: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.ScalarToken):
            start, end = token.start_mark, token.end_mark
            # A block begins in the line after its `|`, which may bear a comment.
            first = (start.line + 1, 0) if token.style in {"|", ">"} else (start.line, start.column)
            yield first, (end.line, end.column)
