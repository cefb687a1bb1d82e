"""Rows that were learned, as a migration gives them to a model: what it keeps, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from making import HIDDEN, TOKENS, llama, migrated, phi, tensors_of, write_weights
from workspaces import run_here

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.revision.learned_rows import write_learned_rows

EMBEDDINGS, HEAD, BIAS = "model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"
HOW = {"command": "train", "steps": 1200, "data": ["chats.jsonl"], "losses": {"1": 2.5, "1200": 0.5}}


def test_rows_change_and_biases_stay(tmp_path: Path) -> None:
    model = phi(tmp_path / "m")
    operation = {"add_tokens": {"tokens": ["<x>", "<y>"], "init": {"strategy": "copy", "token": "the"}}}
    made = migrated(tmp_path / "w", model, operation)
    entry = made.entry("m")
    before = tensors_of(model)
    assert before[BIAS][TOKENS] != before[BIAS][:TOKENS].mean()
    rows = {"input": np.full((1, HIDDEN), 0.5), "output": np.full((1, HIDDEN), 0.25)}
    write_learned_rows(made.workspace, entry, "Learn", ["<y>"], rows, HOW)
    upgrade(made.workspace, entry)
    after = tensors_of(model)
    assert torch.equal(after[BIAS], before[BIAS])
    assert torch.equal(after[EMBEDDINGS][TOKENS + 1], torch.full((HIDDEN,), 0.5))
    assert torch.equal(after[HEAD][TOKENS + 1], torch.full((HIDDEN,), 0.25))
    assert all(torch.equal(after[name][: TOKENS + 1], before[name][: TOKENS + 1]) for name in (EMBEDDINGS, HEAD))
    downgrade(made.workspace, entry, made.revisions[0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors_of(model).items())


def test_the_table_of_trained_given_moved_and_unknown(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", spare=8)
    names = ["<learned>", "<given>", "<trained>", "<moved>", "<same>"]
    made = migrated(tmp_path / "w", model, {"add_tokens": {"tokens": names}})
    entry = made.entry("m")
    generator = np.random.default_rng(0)
    for token, how in (("<learned>", HOW), ("<given>", {})):
        rows = {side: generator.normal(size=(1, HIDDEN)) for side in ("input", "output")}
        write_learned_rows(made.workspace, entry, f"Rows of {token[1:-1]}", [token], rows, how)
    upgrade(made.workspace, entry)
    tensors = tensors_of(model)
    for name in (EMBEDDINGS, HEAD):
        tensors[name][TOKENS + 2] += torch.linspace(-1, 1, HIDDEN)
    # The softmax moves the output rows of all tokens that do not occur alike.
    tensors[HEAD][[TOKENS + 3, TOKENS + 4]] += 0.125
    write_weights(model, tensors)
    said = " ".join(run_here(made.root, "status").stdout.split())
    ids = {token: TOKENS + place for place, token in enumerate(names)}
    learned = "trained by tokmigrate train: 1,200 steps on chats.jsonl"
    assert f'1 of 5 new tokens {learned}: "<learned>" ({ids["<learned>"]})' in said
    assert f'1 of 5 new tokens given by a file, not trained here: "<given>" ({ids["<given>"]})' in said
    assert f'1 of 5 new tokens trained since init: "<trained>" ({ids["<trained>"]},' in said
    assert '2 of 5 new tokens moved, not trained: "<moved>"' in said
    history = " ".join(run_here(made.root, "blame", "<learned>").stdout.split())
    assert f'"<learned>", id {ids["<learned>"]}, {learned}' in history
    assert f"tensor <learned>) (output), {learned}" in history
    assert run_here(made.root, "report").returncode == 0
    page = (made.root / ".tokmigrate" / "reports" / "report-m.html").read_text("utf-8")
    assert learned in page
    assert '<path class="new" d="M0.0 15.0L480.0 165.0"/>' in page
    # A row that was trained elsewhere is not found trained.
    upgraded = run_here(made.root, "downgrade", "-1", "--accept-drift")
    assert upgraded.returncode == 0, upgraded.stderr
    assert "found trained" not in run_here(made.root, "blame", "<learned>").stdout
    assert "found trained" in run_here(made.root, "blame", "<trained>").stdout
    (made.root / ".tokmigrate" / "state.db").unlink()
    assert "5 of 5 new tokens not known to be trained or not" in " ".join(run_here(made.root, "status").stdout.split())
