"""Folders for copies that are needed for a while: several processes want one at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_OPENS_FOLDERS = """
import sys
from pathlib import Path
from tokmigrate.apply.temporary_folder import open_temporary_folder
for number in range(60):
    with open_temporary_folder(Path(sys.argv[1])) as folder:
        (folder / "file").write_text("it is there")
        assert folder.parent.name == ".m.tokmigrate", folder
        assert (folder / "file").read_text() == "it is there"
"""


def test_no_process_removes_the_folder_of_another(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    command = [sys.executable, "-c", _OPENS_FOLDERS, str(tmp_path / "m")]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    complaints = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, complaints
    assert not list(tmp_path.glob(".m.tokmigrate/*"))


def test_the_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    left = tmp_path / ".m.tokmigrate" / "staged-left"
    left.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", _OPENS_FOLDERS, str(tmp_path / "m")], check=True)
    assert not left.exists()
