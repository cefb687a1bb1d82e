"""Trained or only moved: real trainings of a model with new tokens, of which some are in the text and others not."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from making import Made, tensors_of, workspace, write_weights
from safetensors.torch import save_file
from workspaces import DEMO, run_here

from tokmigrate.audit.lora import lora_rows
from tokmigrate.audit.training import TokenTraining, Training
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.inspect import status
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.model.weights import movement
from tokmigrate.model.weights.movement import Tracked, find_movements
from tokmigrate.state.rows import Direction, Outcome, TokenEvent, TokenEventType

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
USED, UNUSED = "<used>", "<unused>"
NOT_TRAINED = {Training.UNTRAINED, Training.MOVED}
Optimizer = Literal["AdamW", "Adam", "SGD"]


@dataclass(frozen=True)
class Ready:
    """A migrated model whose weights are put back before each training.

    Args:
        made: Its workspace.
        weights: Its tensors as the migration left them.
    """

    made: Made
    weights: dict[str, torch.Tensor]

    @property
    def model(self) -> Path:
        return self.made.entry("m").path

    def train(self, optimizer: Optimizer, decay: float, dtype: torch.dtype, rate: float | None = None) -> None:
        """Train all weights for some steps on a text with one of the new tokens, from the migrated weights on."""
        write_weights(self.model, self.weights)
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(self.model / "tokenizer.json"))
        loaded = transformers.LlamaForCausalLM.from_pretrained(self.model, dtype=dtype)
        ids = torch.tensor([tokenizer(f"{USED}The cat sat on the mat.{USED}")["input_ids"]])
        rate = rate or {"AdamW": 1e-2, "Adam": 1e-3, "SGD": 0.1}[optimizer]
        step = getattr(torch.optim, optimizer)(loaded.parameters(), lr=rate, weight_decay=decay)
        for _ in range(3):
            loaded(ids, labels=ids).loss.backward()
            step.step()
            step.zero_grad()
        held = {name: tensor.detach().clone() for name, tensor in loaded.state_dict().items() if name in self.weights}
        write_weights(self.model, held)

    def found(self) -> dict[str, TokenTraining]:
        return {token.token: token for token in status(self.made.workspace, self.made.entry("m")).training}


def migrated(root: Path, *, tied: bool, operation: dict[str, Any], spare: int = 0) -> Ready:
    """Migrate a copy of the demo, whose head is of its own, with a single file of weights."""
    model = root / "m"
    shutil.copytree(DEMO, model)
    tensors = tensors_of(model)
    for path in model.glob("model*"):
        path.unlink()
    config = json.loads((model / "config.json").read_text())
    config |= {"tie_word_embeddings": tied, "vocab_size": config["vocab_size"] + spare}
    (model / "config.json").write_text(json.dumps(config))
    if tied:
        del tensors[HEAD]
    for name in {EMBEDDINGS, HEAD} & tensors.keys():
        rows = torch.randn(spare, tensors[name].shape[1], generator=torch.Generator().manual_seed(5)) * 0.02
        tensors[name] = torch.cat([tensors[name], rows.to(tensors[name].dtype)])
    write_weights(model, tensors)
    made = workspace(root / "w", {"m": model}, [{"operations": [operation]}])
    upgrade(made.workspace, made.entry("m"))
    return Ready(made, tensors_of(model))


ADD: dict[str, Any] = {"add_tokens": {"tokens": [USED, UNUSED]}}


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return migrated(tmp_path_factory.mktemp("untied"), tied=False, operation=ADD)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return migrated(tmp_path_factory.mktemp("tied"), tied=True, operation=ADD)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_untied_the_input_row_decides(untied: Ready, optimizer: Optimizer, decay: float, dtype: torch.dtype) -> None:
    untied.train(optimizer, decay, dtype)
    found = untied.found()
    assert found[USED].was_trained
    assert found[USED].sides["input"] is Training.TRAINED
    # The softmax moved its output row as it moved that of every other token.
    assert found[UNUSED].sides["input"] in NOT_TRAINED
    assert found[UNUSED].sides["output"] is not Training.TRAINED
    assert found[UNUSED].training in NOT_TRAINED
    wanted = lora_rows(untied.made.workspace, untied.made.entry("m")).indices
    assert found[UNUSED].id in wanted["embed_tokens"]
    assert found[USED].id not in wanted["embed_tokens"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_tied_a_row_has_to_move_away(tied: Ready, optimizer: Optimizer, decay: float, dtype: torch.dtype) -> None:
    tied.train(optimizer, decay, dtype)
    found = tied.found()
    # In bfloat16 what decay does to a row is of the size of what rounding does: then nothing is reported.
    unclear = {Training.UNKNOWN} if dtype is torch.bfloat16 and optimizer == "SGD" else set()
    assert found[USED].training in {Training.TRAINED} | unclear
    assert found[UNUSED].training in {Training.MOVED} | unclear
    for token in found.values():
        assert token.figures["input"].change
        assert token.training is not Training.UNKNOWN or token.why
    wanted = lora_rows(tied.made.workspace, tied.made.entry("m")).indices.get("embed_tokens", [])
    assert [token.id for token in found.values() if token.training is Training.MOVED] == wanted


@pytest.mark.parametrize("rate", [1e-5, 1e-3])
def test_a_decay_that_oscillates_around_zero_is_no_training(untied: Ready, tied: Ready, rate: float) -> None:
    """Adam makes of L2 a step of one size, which takes small numbers beyond zero."""
    for ready in (untied, tied):
        ready.train("Adam", 0.1, torch.float32, rate)
        found = ready.found()[UNUSED]
        assert found.sides["input"] is not Training.TRAINED
        assert found.training is not Training.TRAINED
        assert not found.was_trained


def test_all_commands_say_it_with_the_figure(tied: Ready) -> None:
    tied.train("AdamW", 0.0, torch.float32)
    root = tied.made.root
    said = run_here(root, "status").stdout
    assert f'1 of 2 new tokens moved, not trained: "{UNUSED}" (1025, change ' in said
    assert f'1 of 2 new tokens trained since init: "{USED}" (1024, change ' in said
    assert "likeness" in said
    assert json.loads(run_here(root, "peft-config").stdout) == {"trainable_token_indices": {"embed_tokens": [1025]}}
    assert f'"{UNUSED}", id 1025, moved, not trained, change' in run_here(root, "blame", UNUSED).stdout
    assert f'"{UNUSED}" (1025, change ' in run_here(root, "check").stdout
    (checked,) = json.loads(run_here(root, "check", "--json").stdout)["models"]
    (stood,) = json.loads(run_here(root, "status", "--json").stdout)["models"]
    assert checked["training"] == stood["training"]
    assert EMBEDDINGS in checked["moved"]
    assert [(each["token"], each["training"]) for each in stood["training"]] == [(USED, "trained"), (UNUSED, "moved")]
    assert stood["training"][1]["figures"]["input"]["likeness"] > 0.9
    (reported,) = json.loads(run_here(root, "report", "--json").stdout)["models"]
    known = {token["token"]: token for token in reported["listed"]}
    assert [(known[token]["training"], known[token]["trained"]) for token in (USED, UNUSED)] == [
        ("trained", True),
        ("moved", False),
    ]


def test_the_ledger_records_the_trained_token_alone(tmp_path: Path) -> None:
    ready = migrated(tmp_path, tied=True, operation=ADD)
    ready.train("AdamW", 0.0, torch.float32)
    downgrade(ready.made.workspace, ready.made.entry("m"), "base")
    assert [event.token for event in ready.made.events() if event.event is TokenEventType.TRAINED] == [USED]


def test_without_the_rows_as_they_were_nothing_is_reported(tmp_path: Path) -> None:
    ready = migrated(tmp_path, tied=True, operation=ADD)
    ready.train("AdamW", 0.0, torch.float32)
    shutil.rmtree(ready.made.workspace.objects)
    for token in ready.found().values():
        assert token.training is Training.UNKNOWN
        assert "undo data" in str(token.why)


def test_when_every_row_moved_on_its_own_nothing_is_reported(untied: Ready, tied: Ready) -> None:
    """As where two models were merged: no row tells what those without occurrences did."""
    for ready in (untied, tied):
        noise = torch.Generator().manual_seed(3)
        write_weights(
            ready.model,
            {
                name: tensor + 0.01 * torch.randn(tensor.shape, generator=noise, dtype=torch.float32)
                for name, tensor in ready.weights.items()
            },
        )
        for token in ready.found().values():
            assert set(token.sides.values()) == {Training.UNKNOWN}


def test_rows_that_start_apart_are_compared_with_spare_ones(tmp_path: Path) -> None:
    started = {"strategy": "subtokens"}
    operation = {"add_tokens": {"tokens": [USED, UNUSED], "init": started}}
    ready = migrated(tmp_path, tied=True, operation=operation, spare=40)
    ready.train("AdamW", 0.0, torch.float32)
    found = ready.found()
    assert found[USED].training is Training.TRAINED
    assert found[UNUSED].training is Training.MOVED


def test_a_row_that_a_file_gave_is_given_until_it_is_trained(tmp_path: Path) -> None:
    rows = {name: torch.randn(128, generator=torch.Generator().manual_seed(7)) * 0.1 for name in (USED, UNUSED)}
    root = tmp_path / "w"
    (root / "migrations").mkdir(parents=True)
    save_file(rows, root / "migrations" / "rows.safetensors")
    given = {"strategy": "file", "path": "rows.safetensors"}
    ready = migrated(tmp_path, tied=False, operation={"add_tokens": {"tokens": [USED, UNUSED], "init": given}})
    assert {token.training for token in ready.found().values()} == {Training.GIVEN}
    found = lora_rows(ready.made.workspace, ready.made.entry("m"))
    assert (found.indices, found.given) == ({}, 2)
    ready.train("AdamW", 0.0, torch.float32)
    found = ready.found()
    assert found[USED].was_trained
    assert found[UNUSED].training is Training.GIVEN


def test_what_an_older_version_recorded_stays_readable(tmp_path: Path) -> None:
    """It recorded every row that changed."""
    ready = migrated(tmp_path, tied=True, operation=ADD)
    ready.train("AdamW", 0.0, torch.float32)
    place = ready.made
    state = place.state
    (model,) = state.list_models()
    (revision,) = place.revisions
    run = state.begin(
        model,
        Direction.UPGRADE,
        from_revision=revision,
        to_revision=revision,
        revisions=[],
        generation_before=None,
    )
    told = TokenEvent(revision, TokenEventType.TRAINED, UNUSED, 1025, 1025, row_fingerprint=f"input F32 {'0' * 64}")
    state.prepare(run.id, Outcome(tokens=(told,)))
    state.finish(run.id)
    said = run_here(place.root, "blame", UNUSED).stdout
    assert "moved, not trained" in said
    assert "found trained" in said


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_movements_do_not_depend_on_how_many_rows_are_read_at_a_time(seed: int, is_output: bool) -> None:
    numbers = np.random.default_rng(seed)
    count, width = int(numbers.integers(1, 40)), int(numbers.choice([1, 3, 17, 32]))
    # Some rows have one init.
    then = numbers.standard_normal((count, width))[numbers.integers(0, count, count)]
    common = 0.05 * numbers.standard_normal(width)
    moves = [
        0 * then,
        -0.01 * then,
        common + 0 * then,
        0.1 * numbers.standard_normal(then.shape),
        common - 0.001 * then,
    ]
    kinds = numbers.integers(0, len(moves), count)
    now = then + np.stack([moves[kind][row] for row, kind in enumerate(kinds)])
    now[numbers.integers(0, count)] *= numbers.choice([1.0, np.nan], p=[0.8, 0.2])
    rows = Tracked(then, now, is_absent=numbers.random(count) < 0.3, is_sample=numbers.random(count) < 0.3)

    def judge(at_a_time: int) -> list[tuple[str, str | None]]:
        with patch.object(movement, "_BLOCK_NUMBERS", at_a_time * width):
            return [(each.kind, each.why) for each in find_movements(rows, is_output=is_output)]

    assert judge(1) == judge(3) == judge(1000)
