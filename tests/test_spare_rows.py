"""Spare rows have no text to be initialised from."""

from __future__ import annotations

from pathlib import Path

import making
import torch

from tokmigrate.commands.upgrade import upgrade


def test_a_strategy_that_reads_the_text_gives_way_to_the_mean(tmp_path: Path) -> None:
    directory = making.llama(tmp_path / "model", dtype="float64", head="untied")
    old = making.tensors_of(directory)["model.embed_tokens.weight"]
    operations = [{"set_init": {"strategy": "subtokens"}}, {"resize_vocab": {"rows": len(old) + 5}}]
    made = making.workspace(tmp_path, {"model": directory}, [{"operations": operations}])
    upgrade(made.workspace, made.entry("model"))
    new = making.tensors_of(directory)["model.embed_tokens.weight"]
    torch.testing.assert_close(new[len(old) :], old[: making.TOKENS].mean(0).expand(5, -1))
