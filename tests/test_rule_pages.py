"""The pages of the rules: one for each, with what the command really prints, and none of a rule that is gone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from make_rules import GROUPS, generated, out_of_date, write
from workspaces import REPOSITORY

from tokmigrate.lint.linter import RULES


@pytest.fixture(scope="module")
def texts() -> Mapping[str, str]:
    return generated()


def test_the_pages_are_current(texts: Mapping[str, str]) -> None:
    assert out_of_date(REPOSITORY / "docs", texts) == [], "python scripts/make_rules.py"
    assert set(texts) == {"rules.md", *(f"rules/{code}.md" for code in RULES)}


def test_a_page_shows_what_the_command_prints(texts: Mapping[str, str]) -> None:
    for code, rule in RULES.items():
        page = texts[f"rules/{code}.md"]
        assert page.startswith(f"# {code}: {rule.name}\n\n{rule.summary}\n")
        printed = page.split("prints\n\n```text\n")[1].split("```")[0]
        assert f": {code} {rule.severity.value}: " in printed
        assert re.search(rf" (error|warning)s?\nmore: tokmigrate explain {code}\n$", printed)
        for said in (rule.why, rule.wrong, rule.right, rule.given, f"# noqa: {code}"):
            assert said in page


def test_the_index_leads_to_every_page_by_group(texts: Mapping[str, str]) -> None:
    index = texts["rules.md"]
    for beginning, title in GROUPS.items():
        section = index.split(f"## {beginning}: {title}\n")[1].split("\n## ")[0]
        for code in RULES:
            assert (f"[{code}](rules/{code}.md)" in section) == code.startswith(beginning)


def test_a_page_that_is_changed_missing_or_of_no_rule_is_found_and_put_right(tmp_path: Path) -> None:
    texts = {"rules.md": "index\n", "rules/TM101.md": "one\n", "rules/TM102.md": "two\n"}
    write(tmp_path, texts)
    assert out_of_date(tmp_path, texts) == []
    (tmp_path / "rules.md").write_text("changed\n", "utf-8")
    (tmp_path / "rules" / "TM101.md").unlink()
    (tmp_path / "rules" / "TM999.md").write_text("a rule that was removed\n", "utf-8")
    (tmp_path / "tutorial.md").write_text("of somebody else\n", "utf-8")
    assert out_of_date(tmp_path, texts) == ["rules.md", "rules/TM101.md", "rules/TM999.md"]
    write(tmp_path, texts)
    assert out_of_date(tmp_path, texts) == []
    assert (tmp_path / "tutorial.md").is_file()
