"""Moved tokens: their ids, their rows and every place that names them, up and down."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from making import TOKENS, llama, tensors_of, tokenizer_json, workspace, write_json, write_tokenizer, write_weights
from real_tokenizers import real

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import OperationError, OutOfStepError


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def ids_of(directory: Path) -> dict[str, int]:
    return tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json")).get_vocab(with_added_tokens=True)


def move(root: Path, model: Path, *steps: dict[str, int]) -> Any:
    return workspace(
        root,
        {"m": model},
        [{"operations": [{"move_tokens": {"acknowledge": "breaking", "tokens": step}}]} for step in steps],
    )


def real_model(directory: Path, name: str, spare: int = 4) -> Path:
    """A model of raw rows around a real tokenizer; row i holds the number i."""
    shutil.copytree(real(name), directory)
    rows = max(ids_of(directory).values()) + 1 + spare
    tensor = torch.arange(rows, dtype=torch.float32)[:, None].repeat(1, 2).contiguous()
    from safetensors.torch import save_file

    save_file(
        {"model.embed_tokens.weight": tensor, "lm_head.weight": -tensor},
        directory / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = {"model_type": "llama", "hidden_size": 2, "vocab_size": rows, "tie_word_embeddings": False}
    write_json(directory / "config.json", config | {"bos_token_id": 5, "eos_token_id": [6, 7]})
    return directory


CASES = {"mistral-chat": True, "gpt2-roberta": True, "oromo-t5": False, "gpt2-chatml": True, "bert-base-uncased": True}


@pytest.mark.parametrize("name", CASES)
def test_real_tokenizers(tmp_path: Path, name: str) -> None:
    model = real_model(tmp_path / "m", name)
    before, old = files(model), ids_of(model)
    texts = {number: token for token, number in old.items()}
    added = json.loads(before["tokenizer.json"])["added_tokens"]
    low, high, special = texts[9], texts[1000], added[-1]["content"]
    # A list has no room for a hole: in it tokens only change places.
    target = max(old.values()) + 2
    wanted = {low: 1000, high: target, special: 9} if CASES[name] else {low: old[special], special: 9}
    if name == "gpt2-roberta":
        wanted = {low: 1000, high: target}
    made = move(tmp_path / "w", model, wanted)
    upgrade(made.workspace, made.entry("m"))
    found = ids_of(model)
    assert {token: found[token] for token in wanted} == wanted
    assert {token: number for token, number in found.items() if token not in wanted} == {
        token: number for token, number in old.items() if token not in wanted
    }
    now_texts = {number: token for token, number in found.items()}
    rows = tensors_of(model)
    held = rows["model.embed_tokens.weight"][:, 0].tolist()
    assert {token: held[number] for token, number in found.items()} == old
    assert torch.equal(rows["lm_head.weight"], -rows["model.embed_tokens.weight"])
    was, now = (
        tokenizers.Tokenizer.from_str(text.decode())
        for text in (before["tokenizer.json"], files(model)["tokenizer.json"])
    )
    for text in (f"{low} {high} {special} The tide came in, at 12:30 — naïve 漢字.", special + low + special):
        old_cut, new_cut = was.encode(text), now.encode(text)
        assert new_cut.tokens == old_cut.tokens
        assert [texts[number] for number in old_cut.ids] == [now_texts[number] for number in new_cut.ids]
    downgrade(made.workspace, made.entry("m"), "base")
    assert files(model) == before


def tiny(kind: str, directory: Path) -> Any:
    """A tiny model of transformers' own, saved with a byte-level tokenizer."""
    import transformers as t

    rows = TOKENS + 3
    torch.manual_seed(0)
    shared = {"vocab_size": rows, "bos_token_id": TOKENS - 2, "eos_token_id": TOKENS - 1, "pad_token_id": 0}
    decoder = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    built: Any
    if kind.startswith("llama"):
        config = t.LlamaConfig(**shared, **decoder, num_key_value_heads=2, tie_word_embeddings=kind == "llama-tied")
        built = t.LlamaForCausalLM(config)
    elif kind == "gpt2":
        built = t.GPT2LMHeadModel(t.GPT2Config(**shared, n_embd=8, n_layer=1, n_head=2, n_positions=32))
    elif kind == "t5":
        sizes = {"d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2}
        built = t.T5ForConditionalGeneration(t.T5Config(**shared, **sizes, decoder_start_token_id=0))
    else:
        built = t.BertForMaskedLM(t.BertConfig(**shared, **decoder, max_position_embeddings=32))
        torch.nn.init.normal_(built.cls.predictions.bias)
    built.save_pretrained(directory)
    write_tokenizer(directory)
    return built.eval()


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        found: torch.Tensor = model(input_ids=ids, **more).logits
    return found


@pytest.mark.parametrize("kind", ["llama-tied", "llama-untied", "gpt2", "t5", "bert"])
def test_the_logits_are_the_same_in_another_order(tmp_path: Path, kind: str) -> None:
    before = tiny(kind, tmp_path / "m")
    image, old = files(tmp_path / "m"), ids_of(tmp_path / "m")
    texts = {number: token for token, number in old.items()}
    wanted = {
        texts[3]: 60,
        texts[60]: TOKENS + 1,
        "<s>": 3,
        "</s>": 64,
        texts[64]: TOKENS - 1,
        texts[0]: 5,
        texts[5]: 0,
    }
    made = move(tmp_path / "w", tmp_path / "m", wanted)
    upgrade(made.workspace, made.entry("m"))
    after = type(before).from_pretrained(tmp_path / "m").eval()
    place = list(range(TOKENS + 3))
    for token, number in wanted.items():
        place[old[token]] = number
    # The row without token that made room stands where room was left.
    place[TOKENS + 1] = (set(range(TOKENS + 3)) - {place[n] for n in range(TOKENS + 3) if n != TOKENS + 1}).pop()
    order = torch.tensor(place)
    ids = torch.tensor([[TOKENS - 2, 3, 60, 64, 0, 17, 5, TOKENS - 1, 200]])
    assert torch.equal(logits(after, order[ids])[..., order], logits(before, ids))
    assert after.config.eos_token_id == wanted["</s>"]
    assert after.config.pad_token_id == 5
    downgrade(made.workspace, made.entry("m"), "base")
    assert files(tmp_path / "m") == image


def test_stepwise_is_fused(tmp_path: Path) -> None:
    texts = {number: token for token, number in {**tokenizer_json()["model"]["vocab"]}.items()}
    steps = ({texts[10]: 0, texts[0]: 10}, {texts[10]: 1, texts[1]: 0}, {"<s>": 2, texts[2]: TOKENS + 1})
    model, other = (llama(tmp_path / name, spare=2, shards=2) for name in "ab")
    once, often = move(tmp_path / "w1", model, *steps), move(tmp_path / "w2", other, *steps)
    upgrade(once.workspace, once.entry("m"))
    for revision in often.revisions:
        upgrade(often.workspace, often.entry("m"), revision)
    assert files(model) == files(other)


def test_roberta_keeps_its_padding(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", spare=2)
    rows = tensors_of(model)["lm_head.weight"]
    write_weights(model, {"roberta.embeddings.word_embeddings.weight": rows, "lm_head.bias": rows[:, 0].clone()})
    config = {"model_type": "roberta", "hidden_size": rows.shape[1], "vocab_size": len(rows)}
    write_json(model / "config.json", config | {"pad_token_id": 7, "tie_word_embeddings": True})
    token = next(token for token, number in ids_of(model).items() if number == 7)
    made = move(tmp_path / "w", model, {token: TOKENS})
    with pytest.raises(OperationError, match="counts its positions"):
        upgrade(made.workspace, made.entry("m"))


def test_an_unknown_field_stops_a_move(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", spare=2)
    config = json.loads((model / "config.json").read_text())
    write_json(model / "config.json", config | {"audio": {"whistle_token": 7}})
    token = next(token for token, number in ids_of(model).items() if number == 7)
    made = move(tmp_path / "w", model, {token: TOKENS})
    with pytest.raises(OutOfStepError, match=r"config\.json.*audio\.whistle_token"):
        upgrade(made.workspace, made.entry("m"))
