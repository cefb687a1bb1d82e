"""`pytest --tokmigrate` tries the migrations of a workspace beside its other tests."""

from __future__ import annotations

import shutil

import pytest
from workspaces import HEAD, make_workspace

pytest_plugins = ["pytester"]

OPTIONS = ("-p", "tokmigrate.pytest_plugin", "-p", "no:cacheprovider", "-v")


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with a workspace and a test of its own."""
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
    done.assert_outcomes(passed=3, skipped=1)
    done.stdout.fnmatch_lines(
        ["*tokmigrate.yaml::history PASSED*", "*up_down_up?absent? SKIPPED*", "*up_down_up?demo? PASSED*"]
    )


def test_unasked_nothing_is_added(project: pytest.Pytester) -> None:
    project.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=1)


def test_a_fork_fails_with_what_to_do(project: pytest.Pytester) -> None:
    last = sorted((project.path / "migrations").glob("*.yaml"))[-1]
    (last.parent / "0004_another_end.yaml").write_text(last.read_text("utf-8").replace(HEAD, "f0f0f0f0f0f0"), "utf-8")
    done = project.runpytest_subprocess(*OPTIONS, "--tokmigrate", "-k", "history")
    done.assert_outcomes(failed=1, deselected=2)
    done.stdout.fnmatch_lines(["*the history has 2 heads*", "what to do: *down_revision*"])
    assert "Traceback" not in done.stdout.str()


def test_without_a_workspace_it_is_a_mistake(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own="def test_own(): pass")
    done = pytester.runpytest_inprocess(*OPTIONS, "--tokmigrate")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "no tokmigrate.yaml here" in done.stderr.str() + done.stdout.str()
