"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from workspaces import Contents, Workspace, contents, make_workspace

# pytest-xdist sets it for its own output; a command that runs in a test writes into a pipe, which has no width.
os.environ.pop("COLUMNS", None)

# Each process of pytest-xdist has a core; threads of torch that wait for one another would take it from the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# As the command line does: collections would take a tenth of the time.
gc.set_threshold(400_000)

# How long an example takes depends on what else the machine does.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def _forget_plugin() -> Iterator[None]:
    """Forget the module of the plug-in that some tests install, each with other contents."""
    yield
    sys.modules.pop("shout", None)


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a SentencePiece model, a BPE."""
    from test_slow_tokenizer_files import TRAINED
    from test_tokenizer_kinds import train

    root = tmp_path_factory.mktemp("pieces")
    train(root / "bpe", **TRAINED["bpe"])
    return root / "bpe.model"


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A copy of the demo and its migrations."""
    return make_workspace(tmp_path / "place")


@pytest.fixture(scope="session")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The demo at the head of its migrations; no test changes it."""
    made = make_workspace(tmp_path_factory.mktemp("upgraded") / "workspace")
    assert made.run("upgrade").returncode == 0
    return made


@pytest.fixture
def head(upgraded: Workspace) -> Contents:
    """The files of the demo at the head of its migrations."""
    return contents(upgraded.model)


@pytest.fixture
def place_at_head(upgraded: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the demo at the head of its migrations."""
    return Workspace(Path(shutil.copytree(upgraded.root, tmp_path / "place")))
