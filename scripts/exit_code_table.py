"""Exit codes as a page of Markdown, with the errors that have them, read off the tree of errors."""

from __future__ import annotations

from tokmigrate.errors import EXIT_CODES, error_types

_MORE = {
    0: "`downgrade` over several models skips those that are already there.",
    1: "`lint`, `check --target`, `check --copies`: there is a finding; `test`: a file differs; "
    "`diff --exit-code`: they differ; `revision --autogenerate`: no operation expresses the difference.",
    2: "The command line, tokmigrate.yaml, a migration, the lock, or the order of migrations.",
    3: "Only `check`.",
    4: "A model, a migration or the ledger was edited outside tokmigrate; also what `check` and `verify` find.",
    5: "Another process has locked the model, or an interrupted change needs `tokmigrate recover`.",
    130: "As shells expect. A change that was made is finished, any other is undone.",
}

_BELOW = """\
A model that a command fails on is as it was, unless the error says that it was changed (5). `plan`, `status`, `check`
and others that look go through all models, and end with the most serious code: 4, then 5, 1, 2, 3. `upgrade` and
`downgrade` over several models change none unless all can be planned and verified; should one fail on the way all the
same, stderr says which are done, failed and not tried, and so does `--json` (`models`, `failed`, `not_tried`).
`--keep-going` goes on with the others.
"""


def exit_codes() -> list[str]:
    """Return the lines of the page."""
    lines = ["# Exit codes", "", "| code | meaning | more | errors, the `kind` of `--json` |", "|---|---|---|---|"]
    for code, meaning in EXIT_CODES.items():
        kinds = (each for each in error_types() if each.exit_code == code)
        names = ", ".join(f"[`{each.__name__}`](../errors/{each.topic}.md)" for each in kinds)
        lines.append(f"| {code} | {meaning} | {_MORE[code]} | {names} |")
    return [*lines, "", _BELOW, "[Troubleshooting](../troubleshooting.md) says what to do about each."]
