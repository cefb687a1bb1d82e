"""Copies that a workspace lists: `status` and `check` say which of them are stale, exactly where that can be known."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from gguf import GGUFWriter
from making import llama, say_of
from making import workspace as write_workspace
from workspaces import Workspace

ADDED = {"operations": [{"add_tokens": {"tokens": ["<|new|>", {"content": "\u2581word", "special": True}]}}]}
REINIT = {"operations": [{"reinit_tokens": {"tokens": ["<|new|>"], "init": {"strategy": "zeros"}}}]}


def write_gguf(path: Path, tokens: Sequence[str]) -> None:
    """Write a GGUF that has a tokenizer and one tensor."""
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_types([1] * len(tokens))
    writer.add_token_list(tokens)
    writer.add_tensor("output_norm.weight", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokens_of(model: Path) -> list[str]:
    """Return the tokens of a model as the converter writes them, with placeholders for ids without one."""
    document = json.loads((model / "tokenizer.json").read_text("utf-8"))
    ids = document["model"]["vocab"] | {each["content"]: each["id"] for each in document["added_tokens"]}
    added = {each["content"] for each in document["added_tokens"]}
    rows = json.loads((model / "config.json").read_text("utf-8"))["vocab_size"]
    texts = {number: text.replace("\u2581", " ") if text in added else text for text, number in ids.items()}
    return [texts.get(number, f"[PAD{number}]") for number in range(rows)]


def write_onnx(path: Path, rows: int, width: int = 8) -> None:
    """Write a graph that has the embeddings of a model, as an export names them."""
    table = onnx.numpy_helper.from_array(np.zeros((rows, width), np.float32), "model.embed_tokens.weight")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [table])), path)


def made(root: Path, copies: Sequence[Any], *migrations: dict[str, Any]) -> Workspace:
    """Make a workspace of one model, of which the copies are in `root`."""
    llama(root / "models" / "demo", spare=3)
    write_workspace(root, {"demo": root / "models" / "demo"}, migrations)
    say_of(root, "demo", copies=copies)
    return Workspace(root)


def states(here: Workspace) -> dict[str, tuple[str, str]]:
    """Return state and reason of each copy by its name."""
    (model,) = here.asked("status")["models"]
    return {Path(copy["path"]).name: (copy["state"], copy["reason"]) for copy in model["copies"]}


def test_a_gguf_and_a_draft_model_are_compared_token_by_token(tmp_path: Path) -> None:
    here = made(tmp_path, ["m.gguf", "draft"], ADDED)
    write_gguf(tmp_path / "m.gguf", tokens_of(here.model))
    shutil.copytree(here.model, tmp_path / "draft")
    assert states(here) == dict.fromkeys(("m.gguf", "draft"), ("current", "it has the same tokens and ids"))
    first = len([text for text in tokens_of(here.model) if not text.startswith("[PAD")])

    planned = here.run("plan")
    assert f"copies that do not change with it, to be made again: {tmp_path}/m.gguf" in planned.stdout.replace(
        "\n", " "
    )
    assert here.run("upgrade").returncode == 0
    found = states(here)
    assert [state for state, _ in found.values()] == ["stale", "stale"]
    differs = f"2 ids with another token: {first} is '<|new|>' in the model"
    assert found["m.gguf"][1] == f"{differs}, '[PAD{first}]' in the copy"
    assert found["draft"][1] == f"{differs}, no token in the copy"
    assert "m.gguf: stale, 2 ids with another token" in " ".join(here.run("status").stdout.split())

    write_gguf(tmp_path / "made-again.gguf", tokens_of(here.model))
    (tmp_path / "made-again.gguf").replace(tmp_path / "m.gguf")
    shutil.copy(here.model / "tokenizer.json", tmp_path / "draft" / "tokenizer.json")
    assert [state for state, _ in states(here).values()] == ["current", "current"]

    undone = here.run("downgrade", "base")
    assert "copies that do not change with it" in undone.stderr
    assert [state for state, _ in states(here).values()] == ["stale", "stale"]


def test_the_ledger_tells_which_revision_a_file_was_made_from(tmp_path: Path) -> None:
    here = made(tmp_path, ["m.ort", "m.gguf", "export", "other"], ADDED, REINIT)
    assert here.run("upgrade", "+1").returncode == 0
    write_gguf(tmp_path / "m.gguf", tokens_of(here.model))
    (tmp_path / "m.ort").write_bytes(b"")
    shutil.copytree(here.model, tmp_path / "export")
    write_onnx(tmp_path / "export" / "model.onnx", len(tokens_of(here.model)))
    (tmp_path / "other").mkdir()
    younger = "not older than the last change of the model"
    equal = "it has the same tokens and ids"
    before = {
        "m.ort": ("current", younger),
        "m.gguf": ("current", equal),
        "export": ("current", equal),
        "other": ("unknown", "nothing in it can be compared"),
    }
    assert states(here) == before

    # The tokens are the same, and rows are not.
    assert here.run("upgrade").returncode == 0
    older = "older than the upgrade from 000000000001 to 000000000002"
    assert states(here) == before | {
        "m.ort": ("stale", older),
        "m.gguf": ("stale", f"{equal}, but it is {older}"),
        "export": ("stale", f"{equal}, but it is {older}"),
    }
    # The model is again what they were made from.
    assert here.run("downgrade", "-1").returncode == 0
    assert states(here) == before
    assert here.run("downgrade", "base").returncode == 0
    assert {state for state, _ in states(here).values()} == {"stale", "unknown"}


def test_the_rows_of_a_graph_are_those_of_the_model(tmp_path: Path) -> None:
    here = made(tmp_path, ["m.onnx"], {"operations": [{"resize_vocab": {"multiple_of": 64}}]})
    rows = len(tokens_of(here.model))
    write_onnx(tmp_path / "m.onnx", rows)
    assert states(here)["m.onnx"] == ("current", "it has as many rows")
    assert here.run("upgrade").returncode == 0
    more = len(tokens_of(here.model))
    reason = f"'model.embed_tokens.weight' of m.onnx has {rows} rows, and that of the model {more}"
    assert more > rows
    assert states(here)["m.onnx"] == ("stale", reason)


def test_what_is_missing_or_damaged_is_said(tmp_path: Path) -> None:
    here = made(tmp_path, ["gone.gguf", "damaged.gguf", "cut.gguf", "text.onnx", "m.ort"])
    (tmp_path / "damaged.gguf").write_bytes(b"no GGUF")
    write_gguf(tmp_path / "cut.gguf", tokens_of(here.model))
    os.truncate(tmp_path / "cut.gguf", 2000)
    (tmp_path / "text.onnx").write_bytes(b"no ONNX")
    (tmp_path / "m.ort").write_bytes(b"")
    found = states(here)
    assert [state for state, _ in found.values()] == ["missing", "unknown", "unknown", "unknown", "current"]
    assert "too few for a GGUF file" in found["damaged.gguf"][1]


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--copies",), 1)])
def test_check_warns_of_a_stale_copy_and_can_fail(tmp_path: Path, options: Sequence[str], code: int) -> None:
    here = made(tmp_path, ["m.gguf"])
    write_gguf(tmp_path / "m.gguf", [*tokens_of(here.model)[:-4], "<other>"])
    done = here.run("check", *options)
    assert done.returncode == code
    assert f"warning: the copy {tmp_path}/m.gguf is stale: 1 id" in done.stdout
    assert "; make it again from the model\n" in done.stdout
