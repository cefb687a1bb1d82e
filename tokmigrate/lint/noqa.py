"""`# noqa: TM101` at the end of a line: what is found there is meant."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator

import yaml

from tokmigrate.lint.file import MigrationFile

# Words behind a colon that are no codes silence nothing, rather than everything.
_NOQA = re.compile(r"#\s*noqa(?:\s*:\s*(?P<codes>[A-Z]+[0-9]+(?:[\s,]+[A-Z]+[0-9]+)*)|\b(?!\s*:))", re.IGNORECASE)


def silenced(file: MigrationFile) -> dict[int, frozenset[str] | None]:
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
