"""The reference: every field, value, option and default that the code has, and no page of what is gone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from generated_files import find_stale, write_files
from make_reference import PATTERNS, generated

from tokmigrate.cli.app import COMMANDS
from tokmigrate.init.spec import strategy_types
from tokmigrate.operations.registry import operation_types
from tokmigrate.revision.new_file import json_schema
from tokmigrate.settings import (
    FILE_NAME,
    STATE_VARIABLE,
    LintSetting,
    VocabTensorSetting,
    WorkerLimits,
    read_workspace,
)
from tokmigrate.settings.reading import DEFAULT_STATE, FileKeys, ModelKeys


@pytest.fixture(scope="module")
def texts() -> Mapping[str, str]:
    return generated()


def section(text: str, title: str) -> str:
    """Return what stands below a heading of the second order."""
    return re.split(r"\n## ", text.split(f"\n## {title}\n")[1])[0]


def test_the_generated_files_are_current(texts: Mapping[str, str]) -> None:
    assert find_stale(texts, PATTERNS) == [], "python scripts/make_reference.py"


@pytest.mark.parametrize("folder", ["operations", "strategies"])
def test_every_field_is_on_the_page_that_the_reference_names(texts: Mapping[str, str], folder: str) -> None:
    kinds = operation_types() if folder == "operations" else strategy_types()
    for name, kind in kinds.items():
        index = texts[f"docs/reference/{'operations' if folder == 'operations' else 'init'}.md"]
        assert f"\n| [`{name}`](../{folder}/{name}.md) | " in index
        page = texts[f"docs/{folder}/{name}.md"]
        for attribute, info in kind.model_fields.items():
            field = info.alias or attribute
            if (folder, field) != ("strategies", "strategy"):
                assert f"\n| `{field}` | " in page, (name, field)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("set_truncation", "| `strategy` | `longest_first`, `only_first`, `only_second` |"),
        ("set_truncation", "| `direction` | `left`, `right` |"),
        ("add_role_tokens", "| `preset` | `chatml`, `llama3`, `gemma`, `phi`, `mistral` |"),
        ("add_role_tokens", "| `existing` | `refuse`, `reuse` |"),
        ("add_role_tokens", "| `template` | `set`, `keep` |"),
        ("remove_tokens", "| `ids` | `tombstone`, `compact` |"),
        ("set_padding", "| `side` | `left`, `right` |"),
        ("set_padding", "| `pad_to_multiple_of` | a whole number from 1 on |"),
        (
            "add_tokens",
            "| `lstrip` | `true` or `false` | It removes white space left of it; decoding does not restore it."
            " | `false` |",
        ),
        ("add_tokens", "| `tokens` | a list of mappings or texts |"),
        ("add_tokens", "| `init` | an [`init`]("),
        ("set_normalizer", "| `normalizer` | `NFC`, `NFD`, `NFKC`, `NFKD` or a mapping or `null` |"),
    ],
)
def test_values_and_defaults_of_operations(texts: Mapping[str, str], name: str, row: str) -> None:
    assert row in texts[f"docs/operations/{name}.md"]


@pytest.mark.parametrize(
    ("command", "row"),
    [
        ("lint", "| `--format` | `github`, `gitlab`, `sarif` |"),
        ("lint", "| `--strict` | flag |"),
        ("lint", "| `--select` | `CODES`; repeatable |"),
        ("log", "| `--export` | `FILE` |"),
        ("log", "| `--limit` | `NUMBER` |"),
        ("plan", "| `REVISION` |  | A revision id, a prefix of it, a file number, a tag, head, or +N. | `head` |"),
        ("upgrade", "| `--lock-timeout` | `SECONDS` | Wait this long for another process. | `0` |"),
        ("revision", "| `--message`, `-m` | `TEXT` | Set the message of the migration. | required |"),
    ],
)
def test_values_and_defaults_of_options(texts: Mapping[str, str], command: str, row: str) -> None:
    panel = COMMANDS[command].panel.lower()
    assert row in section(texts[f"docs/reference/commands-{panel}.md"], f"`tokmigrate {command}`")


def test_every_field_of_a_migration_file_is_there(texts: Mapping[str, str]) -> None:
    for field in json_schema()["properties"]:
        assert f"\n| `{field}` | " in texts["docs/reference/migration.md"]
    for field in ("input", "output", "table"):
        assert f"\n| `{field}` | " in texts["docs/reference/init.md"]


def test_a_page_that_is_changed_missing_or_of_nothing_is_found_and_put_right(tmp_path: Path) -> None:
    texts = {
        "docs/reference/checks.md": "all\n",
        "docs/operations/add.md": "one\n",
        "docs/strategies/mean.md": "two\n",
        "migrations/tokmigrate.schema.json": "{}\n",
    }
    write_files(texts, PATTERNS, tmp_path)
    assert find_stale(texts, PATTERNS, tmp_path) == []
    (tmp_path / "docs" / "reference" / "checks.md").write_text("changed\n", "utf-8")
    (tmp_path / "docs" / "operations" / "add.md").unlink()
    for gone in ("operations/gone", "reference/gone", "strategies/gone"):
        (tmp_path / "docs" / f"{gone}.md").write_text("of nothing\n", "utf-8")
    (tmp_path / "docs" / "operations" / "add.yaml").write_text("- add: {}\n", "utf-8")
    stale = [
        f"docs/{name}.md"
        for name in ("operations/add", "operations/gone", "reference/checks", "reference/gone", "strategies/gone")
    ]
    assert find_stale(texts, PATTERNS, tmp_path) == stale
    write_files(texts, PATTERNS, tmp_path)
    assert find_stale(texts, PATTERNS, tmp_path) == []
    assert (tmp_path / "docs" / "operations" / "add.yaml").is_file()


def test_every_key_of_the_settings_is_on_their_page(texts: Mapping[str, str]) -> None:
    page = texts["docs/workspace.md"]
    for kind in (FileKeys, ModelKeys, VocabTensorSetting, LintSetting, WorkerLimits):
        for key, field in kind.model_fields.items():
            assert field.description, key
            assert f"\n| `{key}` | " in page
    assert "| `verify` | `full`, `fast`, `paranoid` | " in page
    assert f"`{DEFAULT_STATE}` |" in page
    assert f"## `{STATE_VARIABLE}`" in page


def test_the_example_of_the_settings_has_every_key(texts: Mapping[str, str], tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", texts["docs/workspace.md"], re.DOTALL | re.MULTILINE)
    (tmp_path / FILE_NAME).write_text(example, "utf-8")
    read = read_workspace(tmp_path / FILE_NAME, {})
    assert read.models["support"].id_fields == {"my_router_token_id": "ids", "talker.speaker_index": "ignore"}
    for kind in (FileKeys, ModelKeys, VocabTensorSetting, LintSetting, WorkerLimits):
        assert all(f"{key}:" in example for key in kind.model_fields)
