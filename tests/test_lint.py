"""`tokmigrate lint`: each rule on its own examples, and the ways to choose and to silence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lint_projects import ALL, Project, demo_project
from make_rules import GROUPS
from rule_examples import FIRST, example_workspace
from shared_models import shared_model
from test_properties import folder, thorough
from workspaces import REPOSITORY

from tokmigrate.commands.lint import lint
from tokmigrate.lint.linter import RULES, Selection
from tokmigrate.lint.rule import Rule
from tokmigrate.settings import read_workspace


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return demo_project(tmp_path)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_finds_what_is_wrong_in_its_example(tmp_path: Path, rule: Rule) -> None:
    project = Project(example_workspace(tmp_path / "w", rule, rule.wrong).root)
    found = [each for each in project.lint(git_base=rule.branch).findings if each.rule is rule]
    assert found
    last = sorted((project.root / "migrations").glob("000*"))[-1]
    assert {each.file.migration.path for each in found} == {last}
    assert rule.code == "TM001" or "TM001" not in project.codes()
    for each in found:
        assert each.message
        assert each.help
        assert "  " not in each.message + each.help
        # It can be silenced where it is.
        lines = last.read_text("utf-8").split("\n")
        lines[each.location.line - 1] += f"  # noqa: {rule.code}"
        last.write_text("\n".join(lines), "utf-8")
    assert rule.code not in project.codes()


def test_the_projects_own_migrations_pass() -> None:
    workspace = read_workspace(REPOSITORY / "tokmigrate.yaml", {})
    linted = lint(workspace, workspace.select([]), ALL)
    assert [file.migration.number for file in linted.files] == ["0001", "0002", "0003"]
    assert linted.findings == ()
    assert linted.notes == ()


def test_codes_are_in_groups_and_names_are_reported_once() -> None:
    for code, rule in RULES.items():
        assert re.fullmatch(r"TM[0-4]\d\d", code)
        assert rule.code == code
        assert code[:3] in GROUPS
        assert rule.summary.endswith(".")
        assert rule.why
    assert len({rule.name for rule in RULES.values()}) == len(RULES)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("mistral-chat", "<tool>", "TM101"),
        ("oromo-t5", "①", "TM112"),
        ("bert-base-uncased", "<Caf\u00e9>", "TM112"),
        ("bert-base-uncased", "<tool>", "TM108"),
        ("gpt2-chatml", "<tool>", "TM108"),
        ("phi-2", " <tool>", "TM101"),
        ("phi-2", "Ġkubernetes", "TM115"),
        ("oromo-t5", "▁kubernetes", "TM115"),
        ("bert-base-uncased", "##ernetes", "TM115"),
    ],
)
def test_what_happens_with_real_tokenizers(tmp_path: Path, name: str, text: str, found: str) -> None:
    model = shared_model(tmp_path, name)
    # As many as do not fit into the four spare rows.
    new = [text, *(f"<more{number}>" for number in range(5))]
    model.write(f"- add_tokens: {json.dumps(new, ensure_ascii=False)}")
    linted = lint(model.workspace, [model.entry], ALL)
    assert found in {each.rule.code for each in linted.findings}
    assert all(each.models == ("m",) for each in linted.findings if each.rule.code == found)


@pytest.mark.parametrize(
    "name", ["mistral-chat", "phi-2", "oromo-t5", "gpt2-chatml", "all-minilm-l6-v2", "gpt2-roberta"]
)
def test_a_good_migration_is_good_for_every_real_tokenizer(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path, name)
    path = model.write(
        """
- add_tokens:
    init: {strategy: mean}
    tokens:
      - {content: "<|plan|>", special: true}
      - {content: "<|critic|>", special: true}
- set_special_tokens: {additional: ["<|plan|>", "<|critic|>"]}
"""
    )
    path.write_text(path.read_text("utf-8").replace("message: m", "message: Add the planner and the critic"), "utf-8")
    linted = lint(model.workspace, [model.entry], ALL)
    assert linted.findings == ()
    assert linted.notes == ()


GPT_OSS = "<|start|>assistant<|message|>{{ m.content }}{% if last %}<|return|>{% else %}<|end|>{% endif %}"


@pytest.mark.parametrize(
    ("template", "eos", "is_found"),
    [
        ("{{ m.content }}<|end|>", "<|endoftext|>", True),
        ("{{ m.content }}<|end|>", "<|end|>", False),
        (GPT_OSS, "<|return|>", False),
        (GPT_OSS, "<|endoftext|>", True),
        ("{{ m.content }}<|end_header_id|>", "<|endoftext|>", False),
        ("{{ m.content }}{{ eos_token }}", "<|endoftext|>", False),
    ],
)
def test_a_turn_that_does_not_end(project: Project, template: str, eos: str, is_found: bool) -> None:
    new = ["<|start|>", "<|message|>", "<|return|>", "<|end|>", "<|end_header_id|>"]
    tokens = [{"content": text, "special": True} for text in new]
    operations = [{"add_tokens": tokens}, {"set_chat_template": template}, {"set_special_tokens": {"eos": eos}}]
    project.write(f"operations: {json.dumps(operations)}\n")
    assert ("TM305" in project.codes()) == is_found


def test_a_migration_that_changes_the_response_template_alone_gets_no_finding_on_the_chat_template(
    project: Project,
) -> None:
    path = project.root / "models" / "demo" / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**config, "response_template": {"call": "<|call|>"}}), "utf-8")
    tokens = [{"content": text, "special": True} for text in ("<|end|>", "<|call|>")]
    operations = [{"add_tokens": tokens}, {"set_chat_template": "{{ messages[0].content }}<|end|>"}]
    project.write(f"operations: {json.dumps(operations)}\n")
    renaming = [{"rename_tokens": {"tokens": {"<|call|>": "<|tool|>"}, "in_template": True}}]
    project.write(f"operations: {json.dumps(renaming)}\n", "0002_second", after=FIRST)
    found = [each.file.migration.number for each in project.lint().findings if each.rule.code == "TM305"]
    assert found == ["0001"]


# Letters that the demo's vocabulary has no token of.
_RARE = st.text(st.sampled_from("\u4e02\u4e04\u4e05"), min_size=1, max_size=4)


@thorough(12)
@given(st.lists(_RARE, min_size=1, max_size=6, unique=True), st.booleans())
def test_every_part_of_another_token_is_reported_once(texts: list[str], is_single_word: bool) -> None:
    with folder() as root:
        project = demo_project(root / "p")
        tokens = [{"content": text, "single_word": is_single_word, "normalized": False} for text in texts]
        project.write(f"operations: {json.dumps([{'add_tokens': tokens}])}\n")
        found = [each.message for each in project.lint(Selection(("TM102",))).findings]
        inside = [(one, other) for one in texts for other in texts if one != other and one in other]
        expected = [] if is_single_word else [f"'{inner}' is part of '{outer}'" for inner, outer in inside]
        assert sorted(found) == sorted(expected)


def test_of_a_long_line_the_part_around_the_place_is_shown(project: Project) -> None:
    project.write(f"operations: [{{add_tokens: {json.dumps([f'<{number}>' for number in range(200)] + ['cat'])}}}]\n")
    shown = project.run("--select", "TM109").stdout.split("\n")
    assert all(len(line) < 200 for line in shown)
    code, caret = shown[1:3]
    assert code.startswith("  5 | …")
    assert code[caret.index("^") :].startswith('"cat"')
