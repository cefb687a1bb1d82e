"""Rows that are distilled from the model as it was before its new tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from in_process import Here
from making import tensors_of
from workspaces import DEMO, contents, make_workspace

TEXT = DEMO.with_name("demo-text.txt")
STEPS = "12"


def distil(made: Here, *words: str) -> dict[str, Any]:
    return made.asked("distil", "--steps", STEPS, "-m", "Distil", *words)


def make_demo(root: Path) -> Here:
    """Make a workspace with the demo that has some merges of its own text, and no other migration."""
    made = Here(make_workspace(root).root)
    for path in (root / "migrations").iterdir():
        path.unlink()
    made.asked("learn", "extend", str(TEXT), "--tokens", "12", "-m", "Merges")
    made.asked("upgrade")
    return made


def test_a_decoder_learns_the_rows_of_its_new_tokens_and_nothing_else(tmp_path: Path) -> None:
    made = make_demo(tmp_path)
    before, tensors = contents(DEMO), tensors_of(made.model)
    told = distil(made, "--corpus", str(TEXT))
    assert told["revision"] is None
    assert told["after"] < 0.95 * told["before"]
    losses = list(told["losses"].values())
    assert sum(losses[-4:]) < sum(losses[:4])
    made.asked("upgrade")
    ids = json.loads((made.model / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    learned = {ids[token] for token in told["tokens"]}
    assert len(learned) + len(told["missing"]) == 12
    for name, after in tensors_of(made.model).items():
        other = torch.ones(len(after), dtype=torch.bool)
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            other[list(learned)] = False
            assert not torch.equal(after[~other], tensors[name][~other])
        assert torch.equal(after[other], tensors[name][other])
    made.asked("downgrade", "base")
    assert contents(made.model) == before
