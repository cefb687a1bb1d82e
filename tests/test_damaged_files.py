"""Files that hold something else than they should: every command ends with a code of the table and a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from in_process import Here
from workspaces import make_workspace

from tokmigrate.errors import EXIT_CODES

INTERNAL = "an error in tokmigrate itself"


def here(root: Path) -> Here:
    return Here(make_workspace(root).root)


def told(place: Here, *words: str) -> tuple[int, str]:
    """Run a command, and return its code and what it says; a hint has to be in it where it fails."""
    done = place.run(*words)
    said = done.stdout + done.stderr
    assert INTERNAL not in said, said
    assert "Traceback" not in said
    assert done.returncode in EXIT_CODES
    return done.returncode, said


# The journal of a change

JOURNAL = {"format": 1, "operation": "x", "generation_before": None, "generation_after": "y", "adapters": []}


@pytest.mark.parametrize(
    "journal",
    [
        {},
        [],
        {**JOURNAL, "format": 2},
        {**JOURNAL, "operation": None},
        {**JOURNAL, "operation": ["x"]},
        {**JOURNAL, "generation_before": 7},
        {**JOURNAL, "adapters": {}},
        {**JOURNAL, "adapters": [None]},
        {**JOURNAL, "adapters": [{"path": 7, "generation_before": None, "generation_after": None}]},
        {**JOURNAL, "adapters": [{"path": "\0", "generation_before": None, "generation_after": None}]},
        {key: value for key, value in JOURNAL.items() if key != "generation_after"},
    ],
)
def test_a_journal_of_another_shape(tmp_path: Path, journal: Any) -> None:
    place = here(tmp_path / "w")
    place.area.mkdir()
    (place.area / "journal").write_text(json.dumps(journal), "utf-8")
    for words in (("recover",), ("upgrade",)):
        code, said = told(place, *words)
        assert code != 0
        assert "journal" in said or "interrupted" in said
        assert "what to do" in said
