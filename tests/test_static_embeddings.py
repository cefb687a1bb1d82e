"""Models of model2vec: embeddings alone, perhaps with a quantized vocabulary, in which ids are mapped to clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import making
import pytest
import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer
from workspaces import image

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.plan import plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import ModelError, OperationError

CLUSTERS = 40
VOCABULARY: dict[str, int] = making.tokenizer_json()["model"]["vocab"]
COPY = {"strategy": "copy", "token": "Ġthe"}


def static(directory: Path, config: dict[str, Any], tensors: making.Tensors) -> Path:
    """Write a directory as `StaticModel.save_pretrained` of model2vec 0.10 does."""
    directory.mkdir(parents=True)
    making.write_tokenizer(directory)
    (directory / "tokenizer_config.json").unlink()
    making.write_json(directory / "config.json", {"normalize": True, **config})
    save_file(tensors, directory / "model.safetensors")
    return directory


def quantized(directory: Path) -> Path:
    tensors = {
        "embeddings": torch.randint(-127, 127, (CLUSTERS, 6), dtype=torch.int8),
        "mapping": torch.randint(0, CLUSTERS, (making.TOKENS,)),
        "weights": torch.rand(making.TOKENS),
    }
    return static(directory, {"embedding_dtype": "int8", "vocabulary_quantization": CLUSTERS}, tensors)


def vectors(directory: Path, text: str) -> torch.Tensor:
    """Return the vectors of a text's tokens, as model2vec 0.10 computes them in `_encode_helper`."""
    tensors = making.tensors_of(directory)
    ids = torch.tensor(Tokenizer.from_file(str(directory / "tokenizer.json")).encode(text).ids)
    return tensors["embeddings"][tensors["mapping"][ids]] * tensors["weights"][ids][:, None]


def test_mapping_and_weights_follow_the_tokens(tmp_path: Path) -> None:
    model = quantized(tmp_path / "model")
    add = {"tokens": ["<same>", {"content": "<mean>", "init": {"input": {"strategy": "mean"}, "table": COPY}}]}
    steps: list[dict[str, Any]] = [
        {"add_tokens": {**add, "init": COPY}},
        {"move_tokens": {"tokens": {"Ġthe": VOCABULARY["Ġof"], "Ġof": VOCABULARY["Ġthe"]}, "acknowledge": "breaking"}},
        {"remove_tokens": {"tokens": ["</s>"], "ids": "compact", "shrink": True, "acknowledge": "breaking"}},
    ]
    made = making.workspace(tmp_path, {"m": model}, [{"operations": [step]} for step in steps])
    base, old = image(model), making.tensors_of(model)
    before = vectors(model, "in the of")

    done = upgrade(made.workspace, made.entry("m"))

    assert torch.equal(vectors(model, "in the of"), before)
    new = making.tensors_of(model)
    assert torch.equal(new["embeddings"], old["embeddings"])
    same, mean = (done.plan.final.tokenizer.ids[token] for token in ("<same>", "<mean>"))
    the = VOCABULARY["Ġthe"]
    assert new["mapping"][[same, mean]].tolist() == [old["mapping"][the]] * 2
    assert new["weights"][same] == old["weights"][the]
    assert new["weights"][mean] == pytest.approx(float(old["weights"].double().mean()))
    assert b"vocab_size" not in (model / "config.json").read_bytes()
    assert not done.plan.snapshot.notes
    downgrade(made.workspace, made.entry("m"), "base")
    assert image(model) == base


def test_a_new_token_needs_a_token_whose_cluster_it_gets_and_the_hint_gives_one(tmp_path: Path) -> None:
    model = quantized(tmp_path / "model")
    made = making.workspace(tmp_path, {"m": model}, [{"operations": [{"add_tokens": {"tokens": ["<new>"]}}]}])
    with pytest.raises(OperationError, match="rows can only be copied") as raised:
        plan(made.workspace, made.entry("m"))
    init = yaml.safe_load(str(raised.value.hint).partition("for example: ")[2])
    operation = {"add_tokens": {"tokens": ["<new>"], **init}}
    made = making.migrated(tmp_path, model, operation)
    assert making.tensors_of(model)["mapping"].shape == (making.TOKENS + 1,)


@pytest.mark.parametrize("name", ["float32", "float16", "int8"])
def test_a_vocabulary_that_is_not_quantized_has_a_row_for_each_token(name: str, tmp_path: Path) -> None:
    rows = (torch.rand(making.TOKENS, 6) * 100).to(getattr(torch, name))
    model = static(tmp_path / "model", {"embedding_dtype": name}, {"embeddings": rows})
    init = COPY if name == "int8" else {"strategy": "mean"}
    operation = {"add_tokens": {"tokens": ["<new>"], "init": init}}
    making.migrated(tmp_path, model, operation)
    new = making.tensors_of(model)["embeddings"]
    expected = rows[VOCABULARY["Ġthe"]].double() if name == "int8" else rows.double().mean(0)
    assert torch.equal(new[:-1], rows)
    assert torch.allclose(new[-1].double(), expected, rtol=1e-3)


def test_weights_of_another_tokenizer_are_reported_as_that(tmp_path: Path) -> None:
    model = static(tmp_path / "model", {}, {"matrix": torch.rand(CLUSTERS, 6)})
    made = making.workspace(tmp_path, {"m": model}, [{"operations": [{"add_tokens": {"tokens": ["<new>"]}}]}])
    with pytest.raises(ModelError, match=f"no tensor has a row for each of the {making.TOKENS} ids") as raised:
        plan(made.workspace, made.entry("m"))
    assert "vocab_tensors" not in str(raised.value.hint)


def test_tensors_of_an_unknown_kind_are_named_with_their_shapes(tmp_path: Path) -> None:
    rows = making.TOKENS + 7
    tensors = {"table": torch.rand(rows, 6), "other": torch.rand(6, 6)}
    model = static(tmp_path / "model", {}, tensors)
    operations = {"operations": [{"add_tokens": {"tokens": ["<new>"]}}]}
    made = making.workspace(tmp_path, {"m": model}, [operations])
    with pytest.raises(ModelError, match="which tensors have a vocabulary axis is not known") as raised:
        plan(made.workspace, made.entry("m"))
    lines = str(raised.value.hint).partition("\n")[2]
    assert f"[{rows}, 6]" in lines
    assert list(yaml.safe_load(lines)["vocab_tensors"]) == ["table"]
