"""The pages of the rules: one for each, with what the command really prints, and none of a rule that is gone."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from generated_files import find_stale
from make_rules import GROUPS, PATTERNS, generated

from tokmigrate.lint.linter import RULES


@pytest.fixture(scope="module")
def texts() -> Mapping[str, str]:
    return generated()


def test_the_pages_are_current(texts: Mapping[str, str]) -> None:
    assert find_stale(texts, PATTERNS) == [], "python scripts/make_rules.py"
    assert set(texts) == {"docs/rules.md", *(f"docs/rules/{code}.md" for code in RULES)}


def test_a_page_shows_what_the_command_prints(texts: Mapping[str, str]) -> None:
    for code, rule in RULES.items():
        page = texts[f"docs/rules/{code}.md"]
        assert page.startswith(f"# {code}: {rule.name}\n\n{rule.summary}\n")
        printed = page.split("prints\n\n```text\n")[1].split("```")[0]
        assert f": {code} {rule.severity.value}: " in printed
        assert re.search(rf" (error|warning)s?\nmore: tokmigrate explain {code}\n$", printed)
        for said in (rule.why, rule.wrong, rule.right, rule.given, f"# noqa: {code}"):
            assert said in page


def test_the_index_leads_to_every_page_by_group(texts: Mapping[str, str]) -> None:
    index = texts["docs/rules.md"]
    for beginning, title in GROUPS.items():
        section = index.split(f"## {beginning}: {title}\n")[1].split("\n## ")[0]
        for code in RULES:
            assert (f"[{code}](rules/{code}.md)" in section) == code.startswith(beginning)
