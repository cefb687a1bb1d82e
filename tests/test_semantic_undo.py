"""A model that was trained, or saved again by transformers, after it was migrated: what comes back, and what stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from test_demo import OLD_TOKENS, model_of, tokenizer_of
from workspaces import DEMO, REPOSITORY, Workspace, edit_json, make_workspace

TEXT = (REPOSITORY / "models" / "demo-text.txt").read_text("utf-8")


MIGRATION = """\
format: 1
revision: aaaa0001
down_revision: null
message: m
operations:
  - remove_tokens: {tokens: [Ġher], ids: compact, acknowledge: breaking}
  - add_role_tokens: {preset: chatml}
"""


def trained(directory: Path, target: Path, *, with_tokenizer: bool = True, dtype: torch.dtype | None = None) -> None:
    """Train a model for three steps on a chat, and save it as users do."""
    tokenizer, model = tokenizer_of(directory), model_of(directory).train()
    chat = [{"role": "user", "content": TEXT[:200]}, {"role": "assistant", "content": TEXT[200:300]}]
    ids = torch.tensor([tokenizer(tokenizer.apply_chat_template(chat, tokenize=False))["input_ids"]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    (model.to(dtype) if dtype else model).save_pretrained(target)
    if with_tokenizer:
        tokenizer.save_pretrained(target)


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    return {name: held for path in sorted(directory.glob("*.safetensors")) for name, held in load_file(path).items()}


def settings(directory: Path) -> dict[str, Any]:
    """Return what the libraries make of a directory besides weights."""
    tokenizer = tokenizer_of(directory)
    config = transformers.AutoConfig.from_pretrained(directory).to_dict()
    for name in ("transformers_version", "_name_or_path", "dtype", "architectures"):
        config.pop(name, None)
    return {
        "ids": tokenizer.get_vocab(),
        "template": tokenizer.chat_template,
        "special": tokenizer.special_tokens_map,
        "side": tokenizer.padding_side,
        "cut": tokenizer(TEXT)["input_ids"],
        "config": config,
        "generation": transformers.GenerationConfig.from_pretrained(directory).to_dict().get("eos_token_id"),
    }


@pytest.fixture
def place(place_at_head: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(DEMO, tmp_path / "base")
    return place_at_head


@pytest.mark.parametrize("with_tokenizer", [True, False], ids=["model and tokenizer", "model alone"])
def test_what_training_made_of_old_rows_stays(place: Workspace, tmp_path: Path, with_tokenizer: bool) -> None:
    trained(place.model, place.model, with_tokenizer=with_tokenizer)
    learnt = tensors(place.model)
    done = place.run("downgrade", "base")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "by a semantic undo" in done.stdout
    base, left = tensors(tmp_path / "base"), tensors(place.model)
    assert left.keys() == learnt.keys()
    for name, held in left.items():
        assert held.shape == base[name].shape
        assert torch.equal(held, learnt[name][: len(held)])
    assert not torch.equal(left["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    assert len(left["model.embed_tokens.weight"]) == OLD_TOKENS
    assert settings(place.model) == settings(tmp_path / "base")
    assert not (place.model / "tokmigrate.json").exists()
    assert model_of(place.model)
    again = place.run("upgrade")
    assert again.returncode == 0, again.stderr


def test_one_step_back_and_the_rest_later(place: Workspace, tmp_path: Path) -> None:
    trained(place.model, place.model)
    learnt = tensors(place.model)["model.embed_tokens.weight"]
    for target, rows in (("0002", OLD_TOKENS + 2), ("0001", OLD_TOKENS), ("base", OLD_TOKENS)):
        done = place.run("downgrade", target)
        assert done.returncode == 0, done.stdout + done.stderr
        assert torch.equal(tensors(place.model)["model.embed_tokens.weight"], learnt[:rows])
        assert place.run("verify").returncode == 0
    assert settings(place.model) == settings(tmp_path / "base")


def test_a_model_that_was_only_saved_again(place: Workspace, tmp_path: Path) -> None:
    model_of(place.model).save_pretrained(place.model)
    tokenizer_of(place.model).save_pretrained(place.model)
    done = place.run("downgrade", "base")
    assert done.returncode == 0, done.stdout + done.stderr
    base, left = tensors(tmp_path / "base"), tensors(place.model)
    assert all(torch.equal(base[name], left[name]) for name in base | left)
    assert settings(place.model) == settings(tmp_path / "base")


def test_an_index_that_nothing_rewrote_comes_back_as_it_was(place: Workspace, tmp_path: Path) -> None:
    index = "model.safetensors.index.json"
    edit_json(place.model / "config.json", my_key=1)
    assert "by a semantic undo" in place.run("downgrade", "base").stdout
    assert (place.model / index).read_bytes() == (tmp_path / "base" / index).read_bytes()


def test_an_index_of_other_shards_keeps_them_and_gets_its_totals(place: Workspace, tmp_path: Path) -> None:
    model_of(place.model).save_pretrained(place.model, max_shard_size="300KB")
    index = place.model / "model.safetensors.index.json"
    saved = json.loads(index.read_text("utf-8"))
    assert "by a semantic undo" in place.run("downgrade", "base").stdout
    left = json.loads(index.read_text("utf-8"))
    assert left["weight_map"] == saved["weight_map"]
    assert left["metadata"]["total_size"] == sum(held.nbytes for held in tensors(tmp_path / "base").values())


def test_rows_come_back_in_the_dtype_of_today(tmp_path: Path) -> None:
    made = make_workspace(tmp_path / "w")
    base = tensors(made.model)["model.embed_tokens.weight"]
    for path in (made.root / "migrations").glob("*.yaml"):
        path.unlink()
    (made.root / "migrations" / "0001_m.yaml").write_text(MIGRATION, "utf-8")
    number = tokenizer_of(made.model).get_vocab()["Ġher"]
    assert made.run("upgrade").returncode == 0
    trained(made.model, made.model, dtype=torch.bfloat16)
    done = made.run("downgrade", "base")
    assert done.returncode == 0, done.stdout + done.stderr
    left = tensors(made.model)["model.embed_tokens.weight"]
    assert left.dtype == torch.bfloat16
    assert torch.equal(left[number], base[number].to(torch.bfloat16))
    assert tokenizer_of(made.model).get_vocab()["Ġher"] == number
    json.loads((made.model / "tokenizer.json").read_text("utf-8"))
