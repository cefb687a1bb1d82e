"""Write docs/rules.md from the rules of `tokmigrate lint`."""

from __future__ import annotations

import sys
from pathlib import Path

from tokmigrate.lint.registry import GROUPS, RULES
from tokmigrate.lint.rule import AnyRule, FileRule

PAGE = Path(__file__).resolve().parent.parent / "docs" / "rules.md"

_ABOUT = """\
# Rules of `tokmigrate lint`

Generated from the code by `python scripts/make_rules.py`.

`tokmigrate lint` reads migrations as a careful reviewer would. Where it finds an error it exits with 1, with `--strict`
also where it finds a warning. Some rules need a model: pending migrations are tried on each model of the workspace that
is here, and nothing is written; where there is none, those rules are passed over, and that is said.

- `--select TM1,TM301` asks these rules only, `--ignore TM4` leaves some out; a longer beginning of a code counts more
  than a shorter one. `lint: {select: [TM1], ignore: [TM109]}` in `tokmigrate.yaml` does so for good; `--select` takes
  the place of what stands there, `--ignore` comes to it.
- `# noqa: TM101` at the end of the line of a finding says that it is meant; `# noqa` alone is for all rules.
- `--git-base main` looks only at migrations that changed since the current branch left `main`.
- `--format` is `text`, `json`, `github` (annotations of a workflow) or `sarif`.

The examples leave out `format`, `revision` and `down_revision`.
"""


def page() -> str:
    """Return the page as Markdown."""
    lines = [_ABOUT, "| code | finds | |", "|---|---|---|"]
    lines += [
        f"| [{code}](#{_anchor(rule)}) | {rule.summary} | {rule.severity.value} |" for code, rule in RULES.items()
    ]
    for beginning, title in GROUPS.items():
        lines += ["", f"## {beginning}: {title}"]
        for code, rule in RULES.items():
            if code.startswith(beginning):
                lines += ["", *_section(rule)]
    return "\n".join(lines) + "\n"


def _row(rule: AnyRule) -> str:
    summary = rule.summary.replace("|", "\\|")
    return f"| [{rule.code}](#{_anchor(rule)}) | {summary} | {rule.severity.value} |"


def _section(rule: AnyRule) -> list[str]:
    needs = "a file alone" if isinstance(rule, FileRule) else "a model"
    lines = [
        f"### {rule.code} {rule.name}",
        "",
        f"{rule.summary} ({rule.severity.value}; needs {needs})",
        "",
        rule.why,
    ]
    if rule.given:
        lines += ["", "In a model that has had", "", *_fenced(rule.given, rule.language)]
    lines += ["", "Wrong:", "", *_fenced(rule.wrong, rule.language)]
    return [*lines, "", "Right:", "", *_fenced(rule.right, rule.language)]


def _fenced(code: str, language: str) -> list[str]:
    return [f"```{language}", code.rstrip("\n"), "```"]


def _anchor(rule: AnyRule) -> str:
    return f"{rule.code} {rule.name}".lower().replace(" ", "-")


if __name__ == "__main__":
    is_stale = not PAGE.is_file() or PAGE.read_text("utf-8") != page()
    if "--check" in sys.argv[1:]:
        sys.exit("out of date: docs/rules.md" if is_stale else 0)
    PAGE.write_text(page(), "utf-8")
