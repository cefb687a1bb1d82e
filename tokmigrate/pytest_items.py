"""The tests that `pytest --tokmigrate` adds for the workspace that it runs in; see `tokmigrate.pytest_plugin`.

One test reads every migration file and wants a single head; one asks the rules that tokmigrate.yaml selects, and fails
for errors, as `tokmigrate lint` does. Another one for each model takes its migrations up, down and up again on a
dummy model, as `tokmigrate test` does. Nothing of a model is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tokmigrate.commands.lint import lint, select_rules
from tokmigrate.commands.roundtrip import run_roundtrip
from tokmigrate.errors import TokmigrateError, UndoError, name_explanation
from tokmigrate.files import has_directory
from tokmigrate.render.escape import escape, escape_lines
from tokmigrate.render.lint import findings_text
from tokmigrate.render.terminal import format_plain
from tokmigrate.revision.history import History
from tokmigrate.settings import ModelEntry, Workspace, find_workspace, read_workspace

_FILE = "tokmigrate.yaml"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    items += WorkspaceTests.from_parent(session, name=_FILE, nodeid=_FILE).collect()


class WorkspaceTests(pytest.Collector):
    def collect(self) -> Iterator[pytest.Item]:
        """Yield the tests of the history and of the rules, and one for each model."""
        try:
            workspace = read_workspace(find_workspace(Path(self.config.invocation_params.dir)))
        except TokmigrateError as error:
            raise pytest.UsageError(f"--tokmigrate: {_format_error(error)}") from error
        tests: dict[str, Callable[[], object]] = {
            "history": lambda: History.read(workspace).chain(),
            "lint": lambda: _lint(workspace),
        }
        for entry in workspace.models.values():
            tests[f"up_down_up[{entry.name}]"] = partial(_run_up_down_up, workspace, entry)
        for name, test in tests.items():
            yield WorkspaceTest.from_parent(self, name=name, file=workspace.root / _FILE, test=test)


class WorkspaceTest(pytest.Item):
    def __init__(self, *, file: Path, test: Callable[[], object], **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.file = file
        self.test = test

    def runtest(self) -> None:
        self.test()

    def repr_failure(
        self,
        excinfo: pytest.ExceptionInfo[BaseException],
        style: object = None,  # noqa: ARG002
    ) -> str:
        """Return an error of tokmigrate as its message and hint, without a traceback."""
        if isinstance(excinfo.value, TokmigrateError):
            return _format_error(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.file, None, self.name


def _lint(workspace: Workspace) -> None:
    """Ask the rules that the settings select, on every model that is here; fail where one finds an error."""
    linted = lint(workspace, workspace.select([]), select_rules(workspace))
    sys.stderr.write("".join(f"note: {escape(note)}\n" for note in linted.notes))
    printed = format_plain(findings_text(linted))
    if linted.errors:
        pytest.fail(printed, pytrace=False)
    sys.stdout.write(printed)


def _run_up_down_up(workspace: Workspace, entry: ModelEntry) -> None:
    """Try what is pending, or where nothing is, everything from base on."""
    if not has_directory(entry.path):
        pytest.skip(f"the model is not here: {entry.path}")
    done = run_roundtrip(workspace, entry)
    if not done.migrations:
        try:
            done = run_roundtrip(workspace, entry, from_base=True)
        except UndoError as error:
            pytest.skip(f"nothing is pending, and {error.message}")
    lines = [f"{each.file}: other bytes {each.after} than {each.expected}" for each in done.mismatches]
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


def _format_error(error: TokmigrateError) -> str:
    hint = [f"what to do: {error.hint}"] if error.hint else []
    return escape_lines("\n".join([str(error), *hint, name_explanation(error.topic)]))
