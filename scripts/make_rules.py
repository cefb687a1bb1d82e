"""Write docs/rules.md from the rules of `tokmigrate lint`, and a page for each of them in docs/rules/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from generated_files import main
from rule_examples import example_workspace

from tokmigrate.commands.lint import lint
from tokmigrate.lint.linter import RULES, Selection
from tokmigrate.lint.rule import Rule, Severity
from tokmigrate.lint.subjects import Failure, MigrationFile, OnModel
from tokmigrate.render.lint import explanation, findings_text
from tokmigrate.render.terminal import format_plain

INDEX, PAGES = "docs/rules.md", "docs/rules"
PATTERNS = [f"{PAGES}/*"]
GROUPS: Mapping[str, str] = {
    "TM0": "Whether it can be applied",
    "TM1": "Tokens",
    "TM2": "Ids and rows",
    "TM3": "Templates and special tokens",
    "TM4": "Reproducibility",
}
"""What the first digit of a code means."""

_ABOUT = """\
# Rules of `tokmigrate lint`

Generated from the code by `python scripts/make_rules.py`.

`tokmigrate lint` checks migrations. It exits with 1 if it finds an error, with `--strict` also if it finds a warning.
Some rules need a model: pending migrations are applied in memory to each model of the workspace that is on this
machine. If there is none, these rules are skipped with a note.

- `--select TM1,TM301` runs only these rules, `--ignore TM4` skips some; a longer prefix of a code wins over a shorter
  one. `lint: {select: [TM1], ignore: [TM109]}` in `tokmigrate.yaml` sets the default; `--select` replaces it,
  `--ignore` adds to it.
- `# noqa: TM101` at the end of the line of a finding suppresses it; `# noqa` alone suppresses all rules.
- `--git-base main` checks only migrations that changed since the current branch left `main`.
- `pytest --tokmigrate` has a test `lint` that fails if the command does, and so does the hook `tokmigrate-lint` of
  [pre-commit](https://pre-commit.com); both use the rules that `tokmigrate.yaml` selects.
- `--format github` prints annotations of a workflow, `--format gitlab` a report of code quality,
  `--format sarif` a SARIF log, `--json` one document ([CI](ci.md)).

Each code has a page that says why, with an example of wrong and right and what is printed.
"""

_FAILS = {
    Severity.ERROR: "`tokmigrate lint` exits with 1",
    Severity.WARNING: "`tokmigrate lint --strict` exits with 1",
}

_LOOKS_AT = {
    MigrationFile: "the file, and what the workspace knows of it",
    OnModel: "the file, and its effect on a model without it",
    Failure: "the file, and a model without it",
}


def generated() -> dict[str, str]:
    """Return the text of the index and of each page, by their paths in the repository."""
    return {INDEX: index(), **{f"{PAGES}/{code}.md": page(rule) for code, rule in RULES.items()}}


def index() -> str:
    """Return the page that leads to all others, as Markdown."""
    lines = [_ABOUT.rstrip("\n")]
    for beginning, title in GROUPS.items():
        lines += ["", f"## {beginning}: {title}", "", "| code | finds | |", "|---|---|---|"]
        lines += [_row(rule) for code, rule in RULES.items() if code.startswith(beginning)]
    return "\n".join(lines) + "\n"


def page(rule: Rule) -> str:
    """Return the page of a rule, as Markdown."""
    beginning, title = next(group for group in GROUPS.items() if rule.code.startswith(group[0]))
    lines = [
        f"# {rule.code}: {rule.name}",
        "",
        rule.summary,
        "",
        "| severity | it looks at |",
        "|---|---|",
        f"| {rule.severity.value}: {_FAILS[rule.severity]} | {_LOOKS_AT[rule.subject]} |",
        "",
        explanation(rule, printed(rule)),
        "## Where it is meant",
        "",
        f"`# noqa: {rule.code}` at the end of the line that a finding names says so for that line;",
        f"`lint: {{ignore: [{rule.code}]}}` in `tokmigrate.yaml` disables the rule in the workspace.",
        "",
        f"[{title}](../rules.md#{beginning.lower()}-{title.lower().replace(' ', '-')}) · [All rules](../rules.md)",
    ]
    return "\n".join(lines) + "\n"


def printed(rule: Rule) -> str:
    """Return what the command prints of the example that is wrong, asked for this rule alone."""
    with TemporaryDirectory() as folder:
        workspace = example_workspace(Path(folder), rule, rule.wrong)
        return format_plain(findings_text(lint(workspace, workspace.select([]), Selection((rule.code,)), rule.branch)))


def _row(rule: Rule) -> str:
    summary = rule.summary.replace("|", "\\|")
    return f"| [{rule.code}](rules/{rule.code}.md) | {summary} | {rule.severity.value} |"


if __name__ == "__main__":
    main(generated(), PATTERNS)
