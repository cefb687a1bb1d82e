"""Which findings of `tokmigrate lint` count: codes that are chosen, `# noqa`, what changed since a Git revision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lint_projects import Project, demo_project, empty_project
from rule_examples import FIRST, SECOND, lock_again
from workspaces import run_here

from tokmigrate.commands.lint import lint
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import UsageError
from tokmigrate.lint.linter import RULES, Selection
from tokmigrate.lint.rules.tm1_texts import invisible

SPACED = "operations:\n  - add_tokens:\n      tokens:\n        - {content: '<tool> ', special: true}\n"
CODES = st.sampled_from(list(RULES))
BEGINNINGS = st.builds(lambda code, length: code[:length], CODES, st.integers(1, 5))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a workspace without a model, for rules on files."""
    return empty_project(tmp_path_factory.mktemp("alone"))


@given(st.lists(BEGINNINGS, max_size=3), st.lists(BEGINNINGS, max_size=3), CODES)
def test_the_longest_beginning_of_a_code_decides(select: list[str], ignore: list[str], code: str) -> None:
    assert (code in Selection.of(select, ignore, "here")) == _is_wanted(code, select, ignore)


def _is_wanted(code: str, select: list[str], ignore: list[str]) -> bool:
    for length in range(len(code), 0, -1):
        if code[:length] in ignore:
            return False
        if code[:length] in select:
            return True
    return not select


@given(st.lists(CODES, min_size=1, max_size=3))
def test_codes_may_stand_in_one_word_or_in_several(codes: list[str]) -> None:
    assert Selection.of([",".join(codes).lower()], (), "here") == Selection.of(codes, (), "here")


@pytest.mark.parametrize("word", ["TM9", "101", "TM1011", "E501"])
def test_a_code_that_no_rule_has_is_an_error(word: str) -> None:
    with pytest.raises(UsageError, match=f"no rule has a code like '{word}'"):
        Selection.of([word], (), "here")


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8),
    st.integers(0, 3),
)
def test_a_finding_points_at_the_token(alone: Project, text: str, before: int) -> None:
    token = text.strip() + "x "
    others = [f"<{number}>" for number in range(before)]
    tokens = "".join(f"\n        - {json.dumps(each, ensure_ascii=False)}" for each in [*others, token])
    alone.write(f"operations:\n  - add_tokens:\n      tokens:{tokens}\n")
    linted = lint(alone.workspace, [], Selection(("TM103",)))
    (finding,) = linted.findings
    assert finding.line[finding.location.column - 1 :] == json.dumps(token, ensure_ascii=False)


@given(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=10),
    st.characters(categories=["Cf", "Zl", "Zp"]),
    st.integers(0, 10),
)
def test_a_hidden_character_is_found_wherever_it_stands(text: str, hidden: str, place: int) -> None:
    assert invisible(text) == []
    assert invisible(text[:place] + hidden + text[place:]) == [hidden]


def test_emoji_that_are_joined_hide_nothing() -> None:
    assert invisible("\U0001f469\u200d\U0001f4bb") == []
    assert invisible("<\u200d>") == ["\u200d"]


@pytest.mark.parametrize(
    ("comment", "is_silent"),
    [
        ("# noqa: TM103", True),
        ("# noqa:TM301,TM103", True),
        ("# NOQA: tm103 it is meant", True),
        ("# meant # noqa: TM103", True),
        ("# noqa", True),
        ("# noqa : TM103", True),
        ("# noqa: TM301", False),
        ("# noqa: it is meant", False),
        ("# noqa:", False),
        ("# noqas", False),
        ("# no qa", False),
        ("", False),
    ],
)
def test_noqa_silences_its_line(alone: Project, comment: str, is_silent: bool) -> None:
    path = alone.write(SPACED)
    path.write_text(path.read_text("utf-8").rstrip("\n") + f"  {comment}\n", "utf-8")
    found = [each.rule.code for each in lint(alone.workspace, [], Selection(("TM103",))).findings]
    assert found == ([] if is_silent else ["TM103"])


def test_noqa_on_another_line_silences_nothing(alone: Project) -> None:
    alone.write(SPACED.replace("tokens:\n        -", "tokens:  # noqa\n        -"))
    assert len(lint(alone.workspace, [], Selection(("TM103",))).findings) == 1


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=10))
def test_what_a_token_says_silences_nothing(alone: Project, text: str) -> None:
    for quote in (json.dumps(f"{text} # noqa "), "'" + f"{text} # noqa ".replace("'", "''") + "'"):
        alone.write(f"operations:\n  - add_tokens:\n      tokens: [{quote}]\n")
        assert len(lint(alone.workspace, [], Selection(("TM103",))).findings) == 1


def test_noqa_may_stand_behind_the_indicator_of_a_block_and_not_in_it(tmp_path: Path) -> None:
    project = demo_project(tmp_path)
    block = "operations:\n  - set_chat_template:\n      template: |{}\n        <|turn|> # noqa\n"
    project.write(block.format(""))
    (finding,) = project.lint(Selection(("TM301",))).findings
    assert finding.location.line == 6
    project.write(block.replace("- set_chat_template:", "- set_chat_template:  # noqa: TM301").format(""))
    assert project.codes(Selection(("TM301",))) == []


def test_noqa_in_python(tmp_path: Path) -> None:
    project = empty_project(tmp_path)
    path = project.write('def upgrade(op):\n    open("x # noqa")\n', language="python")
    selection = Selection(("TM402",))
    assert [each.location.line for each in lint(project.workspace, [], selection).findings] == [4]
    path.write_text(path.read_text("utf-8").replace('qa")', 'qa")  # noqa: TM402'), "utf-8")
    assert lint(project.workspace, [], selection).findings == ()


def test_the_settings_choose_and_the_command_line_goes_before_them(tmp_path: Path) -> None:
    project = empty_project(tmp_path)
    project.write(SPACED.replace("<tool> ", "cat "))
    settings = project.root / "tokmigrate.yaml"
    settings.write_text("format: 1\nlint: {select: [TM1], ignore: [TM103]}\n", "utf-8")
    assert project.run().stdout == "1 migration: nothing found\n"
    settings.write_text("format: 1\nlint: {select: [TM1]}\n", "utf-8")
    assert "TM103" in project.run().stdout
    assert project.run("--ignore", "TM1").stdout == "1 migration: nothing found\n"
    assert project.run("--select", "TM2").stdout == "1 migration: nothing found\n"
    settings.write_text("format: 1\nlint: {select: [TM777]}\n", "utf-8")
    refused = project.run()
    assert refused.returncode == 2
    assert "tokmigrate.yaml: no rule has a code like 'TM777'" in refused.stderr


def test_only_what_changed_since_a_revision(tmp_path: Path) -> None:
    project = empty_project(tmp_path)
    project.write(SPACED)
    project.git("init", "-q", "-b", "main")
    project.git("add", "-A")
    project.git("commit", "-qm", "first")
    assert project.lint(git_base="main").files == ()
    assert project.run("--git-base", "main").stdout == "0 migrations: nothing found\n"

    project.git("checkout", "-qb", "branch")
    second = "operations:\n  - set_chat_template: {file: chat.jinja}\n"
    (tmp_path / "migrations" / "chat.jinja").write_text("{{ messages }}", "utf-8")
    project.write(second, "0002_second", after=FIRST)
    # New files count before they are committed, and after.
    assert _looked_at(project, "main") == ["0002_second.yaml"]
    project.git("add", "-A")
    project.git("commit", "-qm", "second")
    assert _looked_at(project, "main") == ["0002_second.yaml"]
    assert _looked_at(project, "HEAD") == []
    # A file that a migration refers to is a part of it.
    (tmp_path / "migrations" / "chat.jinja").write_text("{{ messages | length }}", "utf-8")
    assert _looked_at(project, "HEAD") == ["0002_second.yaml"]
    project.git("commit", "-qam", "another template")

    # What others did on main in the meantime is not this branch's.
    project.git("checkout", "-q", "main")
    project.write(SPACED.replace("tool", "call"))
    project.git("commit", "-qam", "edited")
    project.git("checkout", "-q", "branch")
    assert _looked_at(project, "main") == ["0002_second.yaml"]


def test_what_a_branch_has_may_not_be_edited_away(tmp_path: Path) -> None:
    project = demo_project(tmp_path)
    first = project.write("operations:\n  - add_tokens: ['<tool>']\n")
    project.write("operations:\n  - add_tokens: ['<result>']\n", "0002_second", after=FIRST)
    project.git("init", "-q", "-b", "main")
    lock_again(project.workspace)
    project.git("add", "-A")
    project.git("commit", "-qm", "both")
    project.git("checkout", "-qb", "branch")
    text = first.read_text("utf-8")
    first.write_text(text.replace("<tool>", "<call>"), "utf-8")
    lock_again(project.workspace)
    project.git("commit", "-qam", "edited and locked again")
    # Locked again it is valid by itself; only the branch that it left tells.
    (found,) = [each for each in project.lint(git_base="main").findings if each.is_error]
    assert (found.rule.code, found.message) == ("TM411", "'main' has it with other contents")
    first.write_text("# Why we need it\n" + text, "utf-8")
    assert [each.rule.code for each in project.lint(git_base="main").findings if each.is_error] == []
    (tmp_path / "migrations" / "0002_second.yaml").unlink()
    assert any(
        "'main' has the migration aaaa0002, which is not here" in each for each in project.lint(git_base="main").notes
    )


def _looked_at(project: Project, base: str) -> list[str]:
    return [file.migration.path.name for file in project.lint(git_base=base).files]


def test_a_base_that_git_does_not_know(tmp_path: Path) -> None:
    project = empty_project(tmp_path / "a")
    with pytest.raises(UsageError, match="there is no Git repository here"):
        project.lint(git_base="main")
    project.git("init", "-q", "-b", "main")
    for base in ("nowhere", "--all", "main"):
        with pytest.raises(UsageError, match=f"Git knows no revision '{base}'"):
            project.lint(git_base=base)
    project.git("add", "-A")
    project.git("commit", "-qm", "first")
    project.git("checkout", "-q", "--orphan", "other")
    project.git("commit", "-qm", "unrelated")
    with pytest.raises(UsageError, match="have no common commit"):
        project.lint(git_base="main")


def test_models_that_are_not_here_are_reported(tmp_path: Path) -> None:
    project = demo_project(tmp_path)
    project.write("operations:\n  - set_special_tokens: {eos: '<nothing>'}\n")
    assert project.codes() == ["TM001"]
    shutil.rmtree(tmp_path / "models")
    linted = project.lint()
    assert linted.findings == ()
    assert linted.notes == (
        f"demo is not checked: {tmp_path}/models/demo: the model is missing: no such directory",
        "checked by their files only, since no model here has them pending: migrations/0001_first.yaml",
    )
    said = project.run()
    assert said.returncode == 0
    assert said.stderr == "".join(f"note: {note}\n" for note in linted.notes)


def test_a_migration_that_a_model_has_is_not_tried_on_it_again(tmp_path: Path) -> None:
    project = demo_project(tmp_path)
    project.write("operations:\n  - add_tokens: ['<tool>']\n")
    assert "TM204" in project.codes()
    upgrade(project.workspace, project.workspace.models["demo"])
    assert project.codes() == []
    project.write("operations:\n  - add_tokens: ['<tool>:']\n", "0002_second", after=FIRST)
    found = project.lint()
    assert [(each.rule.code, each.file.migration.revision) for each in found.findings] == [("TM102", SECOND)]
    # What is in front of one that the model has is never applied to it.
    first = tmp_path / "migrations" / "0001_first.yaml"
    first.write_text(first.read_text("utf-8").replace("null", "aaaa0000"), "utf-8")
    text = first.read_text("utf-8").replace(FIRST, "aaaa0000").replace("down_revision: aaaa0000", "down_revision: null")
    (tmp_path / "migrations" / "0000_new.yaml").write_text(text, "utf-8")
    (note, _) = project.lint().notes
    assert "migration aaaa0000 precedes migrations that the model has" in note


def test_a_model_with_squashed_migrations_is_looked_at(tmp_path: Path) -> None:
    project = demo_project(tmp_path)
    project.write("operations:\n  - add_tokens: ['<tool>']\n")
    project.write("operations:\n  - add_tokens: ['<result>']\n", "0002_second", after=FIRST)
    upgrade(project.workspace, project.workspace.models["demo"])
    assert run_here(tmp_path, "squash", f"{FIRST}:{SECOND}").returncode == 0
    assert project.run().returncode == 0
    breaking = "operations:\n  - reinit_tokens: {tokens: ['!'], init: {strategy: mean}}\n"
    path = project.write(breaking, "0003_third", after=SECOND)
    path.write_text(path.read_text("utf-8").replace(f"revision: {SECOND}", "revision: aaaa0003", 1), "utf-8")
    said = project.run()
    assert (said.returncode, "TM202 error" in said.stdout) == (1, True), said.stdout + said.stderr


def test_python_migrations_are_known_by_what_they_do_to_a_model(tmp_path: Path) -> None:
    project = demo_project(tmp_path)
    body = 'message = "Add the tools"\n\n\ndef upgrade(op):\n    op.add_tokens(tokens=["<tool> "])\n'
    project.write(body, language="python")
    found = {each.rule.code: each for each in project.lint().findings}
    assert {"TM103", "TM204"} <= set(found)
    assert (found["TM103"].location.line, found["TM103"].location.column) == (7, 5)
    project.write(body.replace(' "])', ' "])  # noqa'), language="python")
    assert project.codes() == []
    shutil.rmtree(tmp_path / "models")
    project.write(body, language="python")
    assert project.codes() == []
