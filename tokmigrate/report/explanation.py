"""Why a rule of `tokmigrate lint` matters, with its examples, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokmigrate.lint.rule import Rule

_LEFT_OUT = {
    "yaml": "`format`, `revision`, `down_revision`, and `message` where it does not matter, are left out here.",
    "python": "`revision` and `down_revision` are left out here.",
}


def explanation(rule: Rule, printed: str = "") -> str:
    """Return why it matters what a rule finds, a migration that is wrong, and what is right instead.

    Args:
        rule: The rule.
        printed: What the command prints of the one that is wrong.
    """
    given = ["In a model that has had", "", *_fenced(rule.language, rule.given), ""] if rule.given else []
    lines = [
        *(rule.why, "", "## Wrong", "", _LEFT_OUT[rule.language], ""),
        *given,
        *(("this migration is wrong:", "") if given else ()),
        *_fenced(rule.language, rule.wrong),
        *(("", f"`{_command(rule)}` prints", "", *_fenced("text", printed)) if printed else ()),
        *("", "## Right", "", *_fenced(rule.language, rule.right)),
    ]
    return "\n".join(lines) + "\n"


def _fenced(language: str, code: str) -> list[str]:
    return [f"```{language}", code.rstrip("\n"), "```"]


def _command(rule: Rule) -> str:
    against = f" --git-base {rule.branch}" if rule.branch else ""
    return f"tokmigrate lint --select {rule.code}{against}"
