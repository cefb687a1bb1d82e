"""Spare rows have no text to be initialised from."""

from __future__ import annotations

from pathlib import Path

import making
import pytest
import torch

from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import OperationError


def test_a_strategy_that_reads_the_text_gives_way_to_the_mean(tmp_path: Path) -> None:
    directory = making.llama(tmp_path / "model", dtype="float64", head="untied")
    old = making.tensors_of(directory)["model.embed_tokens.weight"]
    operations = [{"set_init": {"strategy": "subtokens"}}, {"resize_vocab": {"rows": len(old) + 5}}]
    made = making.workspace(tmp_path, {"model": directory}, [{"operations": operations}])
    upgrade(made.workspace, made.entry("model"))
    new = making.tensors_of(directory)["model.embed_tokens.weight"]
    torch.testing.assert_close(new[len(old) :], old[: making.TOKENS].mean(0).expand(5, -1))


def test_a_strategy_that_reads_the_text_is_refused_where_it_is_asked_for(tmp_path: Path) -> None:
    directory = making.llama(tmp_path / "model")
    operations = [{"resize_vocab": {"multiple_of": 512, "init": {"strategy": "subtokens"}}}]
    made = making.workspace(tmp_path, {"model": directory}, [{"operations": operations}])
    with pytest.raises(OperationError, match="no token whose text"):
        upgrade(made.workspace, made.entry("model"))
