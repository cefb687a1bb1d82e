"""Every page: its links lead somewhere, on GitHub too, and its examples are right as far as they can be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from check_pages import check_pages, pages
from workspaces import REPOSITORY

MOST_LINES = 200


def test_links_and_examples_of_all_pages_are_right(record_property: pytest.RecordProperty) -> None:
    found = pages()
    assert {"README.md", "CONTRIBUTING.md", "RESULTS.md", "index.md", "TM101.md"} <= {page.name for page in found}
    report = check_pages(found)
    assert report.faults == []
    for kind, number in report.counts.items():
        record_property(kind, number)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[a](gone.md)", "gone.md: leads nowhere"),
        ("[a](page.md#gone)", "page.md#gone: has no such heading"),
        ("# Here\n[a](#here) [b](#gone)", "#gone: has no such heading"),
        ("[a](https://github.com/tokmigrate/tokmigrate/blob/main/gone.py)", "gone.py: leads nowhere"),
        ('<img src="gone.svg">', "gone.svg: leads nowhere"),
        ("`tokmigrate upgrad`", "`tokmigrate upgrad`: is no command"),
        ("`tokmigrate plan\n--corpsu FILE`", "`tokmigrate plan --corpsu FILE`: has no option --corpsu"),
        ("`tokmigrate learn prune --drop FILE --shorter-than 1`", "has no option --shorter-than"),
        ("```bash\nA=1 tokmigrate lint --format nosuch | cat\n```", "'nosuch' is not one of 'github'"),
        ("```bash\n(cd a && tokmigrate downgrade)\n```", "Missing argument 'revision'"),
        ("```bash\nif true\n```", "syntax error"),
        ("```text\n$ tokmigrate nosuch\n```", "tokmigrate nosuch: is no command"),
        ("```yaml\n- add_tokens: {token: [a]}\n```", "unknown field 'token'"),
        ("```yaml\nverify:\n  - single_tokn: a\n```", "single_tokn"),
        ("```yaml\nmodels: {a: {path: b, adaptors: []}}\n```", "unknown field 'adaptors'"),
        ("```yaml\n-\n```", "is neither a migration nor known"),
        ("```yaml\n- some: thing\n```", "is neither a migration nor known"),
        ("```bash\ncat > migrations/0001_a.yaml <<'END'\noperations: [{add_token: []}]\nEND\n```", "add_token"),
        ("```json\n{,}\n```", "Expecting property name"),
        ("```python\nif:\n```", "invalid syntax"),
    ],
)
def test_a_fault_is_found(text: str, fault: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{text}\n", "utf-8")
    (found,) = check_pages([page], tmp_path).faults
    assert fault in found


def test_pages_have_a_readers_length() -> None:
    lengths = {page: len(page.read_text("utf-8").splitlines()) for page in (REPOSITORY / "docs").rglob("*.md")}
    assert {page.name: length for page, length in lengths.items() if length > MOST_LINES} == {}
