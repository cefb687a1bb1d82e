"""Rows that a change loses or brings back are not all held in memory: a vocabulary may have gigabytes of them."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from workspaces import Workspace, contents, make_workspace

from tokmigrate.apply.undo_record import read_undo_record
from tokmigrate.settings import read_workspace
from tokmigrate.state.database import open_state
from tokmigrate.state.objects import ObjectStore

MATRICES = ("model.embed_tokens.weight", "lm_head.weight")
FIRST = "bbbbbbbbbbbb"
WIDTH, TOKENS = 4096, 2000
LOST_BYTES = TOKENS * WIDTH * 4 * len(MATRICES)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a model with wide rows and many tokens that its second migration removes, at the first."""
    made = make_workspace(tmp_path_factory.mktemp("wide") / "workspace")
    for old in [*(made.root / "migrations").iterdir(), *made.model.glob("*.safetensors*")]:
        old.unlink()
    config = json.loads((made.model / "config.json").read_text("utf-8"))
    config |= {"hidden_size": WIDTH, "dtype": "float32", "head_dim": WIDTH // config["num_attention_heads"]}
    (made.model / "config.json").write_text(json.dumps(config), "utf-8")
    numbers = np.random.default_rng(0)
    shape = (config["vocab_size"], WIDTH)
    weights = {name: numbers.standard_normal(shape, dtype=np.float32) for name in MATRICES}
    save_file(weights, made.model / "model.safetensors", {"format": "pt"})
    texts = ", ".join(f'"<|{number}|>"' for number in range(TOKENS))
    made.add_migration(f"  - add_tokens: {{tokens: [{texts}], init: {{strategy: normal}}}}", FIRST, "null")
    removed = f"{{tokens: [{texts}], ids: compact, shrink: true, acknowledge: breaking}}"
    made.add_migration(f"  - remove_tokens: {removed}", after=FIRST)
    made.asked("upgrade", FIRST)
    return made


def peak_of(work: Callable[[], object]) -> int:
    """Return the most bytes that Python and numpy hold at a time for some work, beside what they held before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_lost_rows_are_not_held(place: Workspace) -> None:
    before = contents(place.model)
    steps = (("upgrade",), ("downgrade", FIRST), ("status",))
    peaks = {step[0]: peak_of(lambda step=step: place.asked(*step)) for step in steps}
    assert contents(place.model) == before
    assert max(peaks.values()) < LOST_BYTES / 2, peaks


def test_damaged_rows_change_nothing(place: Workspace) -> None:
    place.asked("upgrade")
    before = contents(place.model)
    settings = read_workspace(place.settings, {})
    state, store = open_state(settings.state, settings.root), ObjectStore(settings.objects)
    applied = state.list_applied(state.model_for("demo", place.model))
    digest = read_undo_record(str(applied[-1].record.undo), store).saved[MATRICES[0]]
    lost = store.root / digest[:2] / digest[2:]
    held = lost.read_bytes()
    assert len(held) > LOST_BYTES / len(MATRICES) / 2
    lost.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    done = place.run("downgrade", FIRST)
    assert (done.returncode, "damaged" in done.stderr) == (1, True), done.stderr
    lost.unlink()
    done = place.run("downgrade", FIRST)
    assert (done.returncode, "missing" in done.stderr) == (1, True), done.stderr
    assert contents(place.model) == before
    assert place.left_over() == []
    lost.write_bytes(held)
    place.asked("downgrade", FIRST)


def test_rows_of_a_trained_model_are_not_held(place: Workspace) -> None:
    place.asked("upgrade")
    weights = place.model / "model.safetensors"
    trained = load_file(weights)
    trained[MATRICES[0]][5] += 1
    save_file(trained, weights, {"format": "pt"})
    assert peak_of(lambda: place.asked("downgrade", FIRST)) < LOST_BYTES / 2
    back = load_file(weights)
    assert all(len(rows) == 1024 + TOKENS for rows in back.values())
    assert (back[MATRICES[0]][5] == trained[MATRICES[0]][5]).all()


def test_trained_rows_are_not_held(place: Workspace) -> None:
    weights = place.model / "model.safetensors"
    trained = load_file(weights)
    for rows in trained.values():
        rows[1024:] += 0.01 * np.random.default_rng(1).standard_normal((TOKENS, WIDTH), dtype=np.float32)
    save_file(trained, weights, {"format": "pt"})
    found: list[str] = []
    assert peak_of(lambda: found.append(place.run("status").stdout)) < LOST_BYTES / 2
    assert "2,000 of 2,000 new tokens trained" in found[0]
