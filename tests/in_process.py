"""The command line without a process of its own, for tests that type many commands."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from dataclasses import dataclass
from unittest.mock import patch

from workspaces import Workspace, environment

from tokmigrate.cli.app import main


@dataclass(frozen=True)
class Here(Workspace):
    """A workspace whose commands run in this process."""

    def run(self, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run the command line here."""
        assert not before
        out, err = io.StringIO(), io.StringIO()
        code: int | str | None = 0
        with (
            contextlib.chdir(self.root),
            patch.dict("os.environ", environment()),
            patch.object(sys, "argv", ["tokmigrate", *arguments]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as leaving:
                code = leaving.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(["tokmigrate", *arguments], code, out.getvalue(), err.getvalue())
