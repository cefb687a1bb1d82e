"""Trained or not: what the ledger says of rows that migrations began, against the rows on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from making import HIDDEN, TOKENS, Head, Made, bert, llama, migrated, mllama, tensors_of, workspace, write_weights
from workspaces import Workspace, edit

from tokmigrate.audit.lora import lora_rows
from tokmigrate.audit.training import TokenTraining, Training
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.inspect import status
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.settings import ModelEntry
from tokmigrate.state.rows import TokenEvent, TokenEventType

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
EMBEDDINGS = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
NEW = ["<x>", "<y>", "<z>"]


def training(made: Made, entry: ModelEntry | None = None) -> dict[str, TokenTraining]:
    found = status(made.workspace, entry or made.entry("m")).training
    assert [token.id for token in found] == sorted(token.id for token in found)
    return {token.token: token for token in found}


def told(made: Made) -> list[TokenEvent]:
    return [event for event in made.events() if event.event is TokenEventType.TRAINED]


def change_row(model: Path, tensor: str, row: int) -> None:
    """Move one number of a row away from zero, which weight decay does not."""
    tensors = tensors_of(model)
    tensors[tensor][row, 0] += 1 if tensors[tensor][row, 0] >= 0 else -1
    write_weights(model, tensors)


def cast(model: Path, dtype: torch.dtype) -> None:
    write_weights(model, {name: tensor.to(dtype) for name, tensor in tensors_of(model).items()})


@settings(max_examples=12, deadline=None)
@given(
    head=st.sampled_from(["tied", "untied"]),
    chosen=st.sets(st.tuples(st.sampled_from(NEW), st.sampled_from(["input", "output"]))),
    later=st.lists(st.sampled_from(["rename", "move", "compact", "more"]), unique=True),
)
def test_exactly_the_changed_rows_are_reported_wherever_they_went(
    tmp_path_factory: pytest.TempPathFactory, head: Head, chosen: set[tuple[str, str]], later: list[str]
) -> None:
    root = tmp_path_factory.mktemp("training")
    model = llama(root / "m", head=head, spare=1)
    steps = {
        "rename": {"rename_tokens": {"tokens": {"<x>": "<renamed>"}}},
        "move": {"move_tokens": {"acknowledge": "breaking", "tokens": {"<y>": "</s>", "</s>": "<y>"}}},
        "compact": {"remove_tokens": {"tokens": ["Ġand"], "ids": "compact", "acknowledge": "breaking"}},
        "more": {"add_tokens": {"tokens": ["<more>"]}},
    }
    ids = {token: TOKENS + place for place, token in enumerate(NEW)}
    steps["move"] = {"move_tokens": {"acknowledge": "breaking", "tokens": {"<y>": TOKENS - 1, "</s>": ids["<y>"]}}}
    if "compact" in later and "move" in later:
        later = [*[step for step in later if step != "compact"], "compact"]
    made = workspace(
        root / "w",
        {"m": model},
        [{"operations": [step]} for step in ({"add_tokens": {"tokens": NEW}}, *(steps[name] for name in later))],
    )
    first = made.revisions[0]
    upgrade(made.workspace, made.entry("m"), first)
    assert {token.training for token in training(made).values()} == {Training.UNTRAINED}
    for token, side in chosen:
        if side == "input" or head == "untied":
            change_row(model, EMBEDDINGS if side == "input" else HEAD, ids[token])
    upgrade(made.workspace, made.entry("m"))
    found = training(made)
    for token in NEW:
        now = found["<renamed>" if token == "<x>" and "rename" in later else token]
        expected = {
            side: _expected(side, chosen, head) if (token, side) in chosen else Training.UNTRAINED
            for side in (("input",) if head == "tied" else ("input", "output"))
        }
        assert dict(now.sides) == expected
        assert (now.revision, now.initial_text) == (first, token)
    if "more" in later:
        assert found["<more>"].training is Training.UNTRAINED
    layers = {"input": "embed_tokens", "output": "lm_head"}
    wanted: dict[str, list[int]] = {}
    for token in found.values():
        for side, became in token.sides.items():
            if became in (Training.UNTRAINED, Training.MOVED):
                wanted.setdefault(layers[side], []).append(token.id)
    assert lora_rows(made.workspace, made.entry("m")).indices == wanted


def _expected(side: str, chosen: set[tuple[str, str]], head: Head) -> Training:
    """Return what a row that was changed by hand counts as.

    In input embeddings of their own only an occurrence does that. Elsewhere two rows that are still equal moved like
    each other, and of a single one nobody knows why.
    """
    if side == "input" and head != "tied":
        return Training.TRAINED
    return Training.MOVED if sum(each == side for _, each in chosen) > 1 else Training.UNKNOWN


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_wider_dtype_is_compared_by_value_and_a_narrower_one_is_not_known(tmp_path: Path, dtype: Any) -> None:
    model = llama(tmp_path / "m", dtype=dtype)
    made = migrated(tmp_path / "w", model, {"add_tokens": {"tokens": NEW}})
    cast(model, torch.float64)
    assert {token.training for token in training(made).values()} == {Training.UNTRAINED}
    tensors = tensors_of(model)
    # Less than the dtype at the init could hold.
    tensors[EMBEDDINGS][TOKENS, 0] *= 1 + 2.0**-40
    write_weights(model, tensors)
    assert training(made)["<x>"].training is Training.PARTLY
    assert training(made)["<y>"].training is Training.UNTRAINED
    narrower = torch.float16 if dtype == "bfloat16" else torch.bfloat16
    cast(model, narrower)
    for token in training(made).values():
        assert token.training is Training.UNKNOWN
        assert token.why is not None
        assert "cannot represent" in token.why
    found = lora_rows(made.workspace, made.entry("m"))
    assert (found.indices, found.unknown) == ({}, 3)


def test_who_looks_writes_nothing_and_a_run_tells_each_trained_token_once(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    made = workspace(
        tmp_path / "w",
        {"m": model},
        [
            {"operations": [step]}
            for step in (
                {"add_tokens": {"tokens": NEW}},
                {"rename_tokens": {"tokens": {"<x>": "<renamed>"}}},
                {"set_padding": {"token": "<y>"}},
                {"reinit_tokens": "<renamed>"},
            )
        ],
    )
    entry = made.entry("m")
    upgrade(made.workspace, entry, made.revisions[0])
    change_row(model, EMBEDDINGS, TOKENS)
    assert training(made)["<x>"].training is Training.PARTLY
    assert told(made) == []
    upgrade(made.workspace, entry, made.revisions[1])
    (event,) = told(made)
    assert (event.token, event.token_id, event.revision, event.old_token) == ("<x>", TOKENS, made.revisions[0], None)
    change_row(model, EMBEDDINGS, TOKENS + 1)
    change_row(model, HEAD, TOKENS)
    upgrade(made.workspace, entry, made.revisions[2])
    assert [event.token for event in told(made)] == ["<x>", "<y>"]
    upgrade(made.workspace, entry, made.revisions[3])
    assert [event.token for event in told(made)] == ["<x>", "<y>"]
    # Its row began again: what it had learnt is gone.
    assert training(made)["<renamed>"].training is Training.UNTRAINED
    change_row(model, EMBEDDINGS, TOKENS)
    assert training(made)["<renamed>"].training is Training.PARTLY
    assert made.state.verify_chain() is None


def test_a_downgrade_initialises_nothing_and_a_second_upgrade_initialises_again(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    made = migrated(
        tmp_path / "w",
        model,
        {"add_tokens": {"tokens": ["<x>"]}},
        {"reinit_tokens": {"acknowledge": "breaking", "tokens": ["the", "<x>"]}},
    )
    entry = made.entry("m")
    assert set(training(made)) == {"the", "<x>"}
    downgrade(made.workspace, entry, "-1")
    assert set(training(made)) == {"<x>"}
    assert training(made)["<x>"].training is Training.UNTRAINED
    downgrade(made.workspace, entry, "base")
    assert training(made) == {}
    upgrade(made.workspace, entry)
    assert {token.training for token in training(made).values()} == {Training.UNTRAINED}


def test_a_token_that_moves_and_is_initialised_again_in_one_migration(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", spare=2)
    move = {"move_tokens": {"acknowledge": "breaking", "tokens": {"the": TOKENS}}}
    made = workspace(
        tmp_path / "w",
        {"m": model},
        [{"operations": [move, {"reinit_tokens": {"acknowledge": "breaking", "tokens": "the"}}]}],
    )
    upgrade(made.workspace, made.entry("m"))
    assert training(made)["the"].training is Training.UNTRAINED
    assert training(made)["the"].id == TOKENS


@pytest.mark.parametrize("make", [bert, mllama])
def test_biases_and_ids_without_an_output_row(tmp_path: Path, make: Any) -> None:
    model = make(tmp_path / "m", spare=2)
    made = migrated(tmp_path / "w", model, {"add_tokens": {"tokens": ["<x>"]}})
    (token,) = training(made).values()
    assert token.training is Training.UNTRAINED
    assert set(token.sides) == ({"input"} if make is bert else {"input", "output"})


def test_a_model_that_was_migrated_elsewhere_is_not_known(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    made = migrated(tmp_path / "w", model, {"add_tokens": {"tokens": NEW}})
    other = workspace(tmp_path / "other", {"m": model}, [])
    for path in (made.root / "migrations").iterdir():
        (other.root / "migrations" / path.name).write_bytes(path.read_bytes())
    found = training(other)
    assert {token.training for token in found.values()} == {Training.UNKNOWN}
    assert "ledger here" in str(found["<x>"].why)


# --- real training


def train(model: Path, save_to: Path, steps: int = 2) -> None:
    """Train the demo for some steps on a chat, all weights, and save it as everybody does."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    text = f"{START}user\nHello{END}\n{START}assistant\nHi{END}\n"
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    optimizer = torch.optim.AdamW(loaded.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        loaded(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    loaded.save_pretrained(save_to)


def by_token(made: Workspace) -> dict[str, dict[str, Any]]:
    (model,) = made.asked("status")["models"]
    return {token["token"]: token for token in model["training"]}


def test_the_demo_before_and_after_a_training(place: Workspace) -> None:
    assert place.run("upgrade").returncode == 0
    said = place.run("status").stdout
    assert f'3 of 3 new tokens never trained: "{START}" (1024), "{END}" (1025), "{PAD}" (1026)' in said
    config = json.loads(place.run("peft-config").stdout)
    ids = [1024, 1025, 1026]
    assert config == {"trainable_token_indices": {"embed_tokens": ids, "lm_head": ids}}
    train(place.model, place.model)
    said = " ".join(place.run("status").stdout.split())
    assert f'2 of 3 new tokens trained since init: "{START}" (1024, change ' in said
    # The softmax moved its output row, as that of every token.
    assert f'1 of 3 new tokens moved, not trained: "{PAD}" (1026, change ' in said
    assert by_token(place)[PAD]["sides"] == {"input": "untrained", "output": "moved"}
    wanted = {"embed_tokens": [1026], "lm_head": [1026]}
    assert json.loads(place.run("peft-config").stdout) == {"trainable_token_indices": wanted}


@pytest.mark.parametrize("head", ["tied", "untied", "stored twice"])
def test_peft_trains_exactly_the_rows_of_the_config(tmp_path: Path, head: Head) -> None:
    model = llama(tmp_path / "m", head=head)
    made = migrated(tmp_path / "w", model, {"add_tokens": {"tokens": NEW}})
    indices = lora_rows(made.workspace, made.entry("m")).indices
    ids = [TOKENS, TOKENS + 1, TOKENS + 2]
    assert indices == {"embed_tokens": ids} | ({"lm_head": ids} if head == "untied" else {})
    before = tensors_of(model)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj"], trainable_token_indices=dict(indices), task_type="CAUSAL_LM"
    )
    tuned = peft.get_peft_model(loaded, config)
    text = torch.tensor([[1, 2, *ids, 5]])
    optimizer = torch.optim.AdamW([each for each in tuned.parameters() if each.requires_grad], lr=1e-2)
    for _ in range(2):
        tuned(input_ids=text, labels=text).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tuned.save_pretrained(tmp_path / "adapter")
    entry = ModelEntry("m", model, (tmp_path / "adapter",))
    (adapter,) = status(made.workspace, entry).adapters
    assert adapter.trained == (tuple(NEW) if head == "untied" else ())
    # The model itself is as it was.
    assert {token.training for token in training(made).values()} == {Training.UNTRAINED}
    tuned.merge_and_unload().save_pretrained(model)
    after = tensors_of(model)
    for name in (EMBEDDINGS, HEAD):
        if name in after:
            changed = [row for row in range(TOKENS + 3) if not torch.equal(before[name][row], after[name][row])]
            assert changed == ids
            assert before[name].shape == (TOKENS + 3, HIDDEN)
    # Where the embeddings are tied, no row moved that is known to be of a token without occurrences.
    became = Training.TRAINED if head == "untied" else Training.UNKNOWN
    assert {token.training for token in training(made).values()} == {became}
    assert lora_rows(made.workspace, made.entry("m")).indices == {}


def test_an_adapter_that_lists_rows_and_never_trained_them(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    made = migrated(tmp_path / "w", model, {"add_tokens": {"tokens": NEW}})
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[TOKENS], task_type="CAUSAL_LM")
    peft.get_peft_model(loaded, config).save_pretrained(tmp_path / "adapter")
    (adapter,) = status(made.workspace, ModelEntry("m", model, (tmp_path / "adapter",))).adapters
    assert adapter.trained == ()


def test_the_questions_that_cannot_be_answered(place: Workspace) -> None:
    done = place.run("peft-config")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"trainable_token_indices": None})
    assert "no token is known to be untrained" in done.stderr
    edit(place.settings, "models:\n", "models:\n  other: {path: models/demo2}\n")
    done = place.run("peft-config")
    assert done.returncode == 2
    assert "--model" in done.stderr


def test_the_placeholder_of_a_removed_token_is_not_to_be_trained(tmp_path: Path) -> None:
    step: dict[str, Any] = {"add_tokens": {"tokens": ["<a>", "<b>"]}}
    bury = {"remove_tokens": {"tokens": ["<a>"], "ids": "tombstone", "acknowledge": "breaking"}}
    made = migrated(tmp_path, llama(tmp_path / "m"), step, bury)
    assert list(training(made)) == ["<b>"]
