"""`pytest --tokmigrate` tries the migrations of a workspace beside its other tests."""

from __future__ import annotations

import shutil

import pytest
from workspaces import HEAD, Workspace, make_workspace

pytest_plugins = ["pytester"]

OPTIONS = ("-p", "tokmigrate.pytest_plugin", "-p", "no:cacheprovider", "-v")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with a workspace and a test of its own; no other plugin is loaded than ours."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    make_workspace(pytester.path / "w")
    for path in (pytester.path / "w").iterdir():
        shutil.move(path, pytester.path)
    pytester.makepyfile(test_own="def test_own(): pass")
    return pytester


def test_each_model_is_tried(project: pytest.Pytester) -> None:
    settings = project.path / "tokmigrate.yaml"
    settings.write_text(settings.read_text().replace("models:\n", "models:\n  absent: {path: nowhere}\n"))
    # numpy cannot be loaded twice in one process.
    done = project.runpytest_subprocess(*OPTIONS, "--tokmigrate")
    done.assert_outcomes(passed=4, skipped=1)
    done.stdout.fnmatch_lines(
        [
            "*tokmigrate.yaml::history PASSED*",
            "*tokmigrate.yaml::lint PASSED*",
            "*up_down_up?absent? SKIPPED*",
            "*up_down_up?demo? PASSED*",
        ]
    )


def test_unasked_nothing_is_added(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_own="""
        import sys
        def test_own():
            assert [name for name in sys.modules if name.startswith("tokmigrate.")] == ["tokmigrate.pytest_plugin"]
        """
    )
    project.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=1)


def test_a_fork_fails_with_what_to_do(project: pytest.Pytester) -> None:
    last = sorted((project.path / "migrations").glob("*.yaml"))[-1]
    (last.parent / "0004_another_end.yaml").write_text(last.read_text("utf-8").replace(HEAD, "f0f0f0f0f0f0"), "utf-8")
    done = project.runpytest_subprocess(*OPTIONS, "--tokmigrate", "-k", "history")
    done.assert_outcomes(failed=1, deselected=3)
    done.stdout.fnmatch_lines(
        ["*the history has 2 heads*", "what to do: *down_revision*", "more: tokmigrate explain history"]
    )
    assert "Traceback" not in done.stdout.str()


def with_an_invisible_character(project: pytest.Pytester) -> None:
    """Add a migration with an error and a warning: a character that cannot be seen, and a space at the edge."""
    (project.path / "migrations" / "0004_tools.yaml").write_text(
        f"format: 1\nrevision: f0f0f0f0f0f0\ndown_revision: {HEAD}\nmessage: Add the tools\n"
        'operations:\n  - add_tokens: ["<one\\u200b>", "<two> "]\n',
        "utf-8",
    )


def settled(project: pytest.Pytester, setting: str) -> None:
    """Say in the settings which rules are asked."""
    settings = project.path / "tokmigrate.yaml"
    settings.write_text(f"{settings.read_text('utf-8')}lint: {setting}\n", "utf-8")


def test_lint_fails_with_what_the_command_prints(project: pytest.Pytester) -> None:
    with_an_invisible_character(project)
    done = project.runpytest_subprocess(*OPTIONS, "--tokmigrate", "-k", "lint")
    done.assert_outcomes(failed=1, deselected=3)
    printed = Workspace(project.path).run("lint").stdout
    assert "TM105 error" in printed
    assert "TM103 warning" in printed
    assert printed in done.stdout.str()
    assert "Traceback" not in done.stdout.str()


def test_a_warning_is_reported_and_does_not_fail(project: pytest.Pytester) -> None:
    with_an_invisible_character(project)
    settled(project, "{ignore: [TM105]}")
    done = project.runpytest_subprocess(*OPTIONS, "--tokmigrate", "-k", "lint", "-rP")
    done.assert_outcomes(passed=1, deselected=3)
    done.stdout.fnmatch_lines(["*TM103 warning: '<two> ' ends with white space*"])


def test_a_rule_that_the_settings_make_up_is_a_mistake_with_its_place(project: pytest.Pytester) -> None:
    settled(project, "{select: [TM9]}")
    done = project.runpytest_subprocess(*OPTIONS, "--tokmigrate", "-k", "lint")
    done.assert_outcomes(failed=1, deselected=3)
    done.stdout.fnmatch_lines(["*tokmigrate.yaml*no rule has a code like 'TM9'*", "what to do: *"])
    assert "Traceback" not in done.stdout.str()


def test_without_a_workspace_it_is_a_mistake(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own="def test_own(): pass")
    done = pytester.runpytest_inprocess(*OPTIONS, "--tokmigrate")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "no tokmigrate.yaml here" in done.stderr.str() + done.stdout.str()
