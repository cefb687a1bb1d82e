"""`diff A B --corpus`: what a trim or an extension kept, row by row, and what text costs then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from real_tokenizers import available
from safetensors.numpy import load_file, save_file
from shared_models import SharedModel, shared_model
from workspaces import Workspace

from tokmigrate.commands.upgrade import upgrade

NAME = available("phi-2", "mistral-chat")[0]
TEXTS = ["the documentation of the reference", "Привет, мир", "def find(word): return word"] * 10


@pytest.fixture
def model(tmp_path: Path) -> SharedModel:
    made = shared_model(tmp_path / "w", NAME)
    shutil.copytree(made.directory, tmp_path / "old")
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS), "utf-8")
    return made


def audit(model: SharedModel, *words: str) -> dict[str, Any]:
    told = Workspace(model.root).run("diff", *words, "--corpus", "../texts.txt", "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    found: dict[str, Any] = json.loads(told.stdout)["audit"]
    return found


def remove(model: SharedModel, *tokens: str) -> None:
    model.write(f"- remove_tokens: {{tokens: {json.dumps(tokens)}, ids: compact, acknowledge: breaking}}")
    upgrade(model.workspace, model.entry)


def test_a_trim_is_the_first_with_fewer_tokens(model: SharedModel) -> None:
    size = model.library().get_vocab_size()
    remove(model, "Ġdocumentation" if NAME == "phi-2" else "▁documentation")
    found = audit(model, "../old", "m")
    assert (found["tokens_before"], found["tokens_after"], found["kept"]) == (size, size - 1, size - 1)
    assert found["moved"] > 100
    assert (found["out_of_order"], found["unreachable"]) == (None, [])
    assert [(rows["differing"], rows["first"]) for rows in found["rows"]] == [(0, None)] * len(found["rows"])
    assert {rows["rows"] for rows in found["rows"]} == {size - 1}
    scripts = {each["script"]: (each["before"] - each["kept"], each["added"]) for each in found["by_script"]}
    assert scripts.pop("Latin") == (1, 0)
    assert scripts["Cyrillic"] == (0, 0)
    assert {*scripts.values()} == {(0, 0)}
    growth = found["corpus"]
    assert (growth["texts"], growth["tokenized_differently"], growth["with_removed_tokens"]) == (30, 10, 10)
    assert growth["unexpected"] is None
    assert growth["tokens_after"] > growth["tokens_before"]
    assert {each["script"]: each["texts"] for each in growth["by_script"]} == {"Latin": 20, "Cyrillic": 10}


def test_rows_that_are_others_and_an_order_that_is_another_are_named(model: SharedModel) -> None:
    library = model.library()
    first, second = library.id_to_token(300), library.id_to_token(301)
    document = model.json("tokenizer.json")
    vocab = document["model"]["vocab"]
    vocab[first], vocab[second] = 301, 300
    (model.directory / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    path = model.directory / "model.safetensors"
    rows = {name: held.copy() for name, held in load_file(path).items()}
    for held in rows.values():
        held[[300, 301]] = held[[301, 300]]
        held[400] += 1
    save_file(rows, path, {"format": "pt"})
    found = audit(model, "../old", "m")
    assert (found["moved"], found["out_of_order"]) == (2, second)
    assert {(rows["differing"], rows["first"]) for rows in found["rows"]} == {(1, library.id_to_token(400))}
    assert found["corpus"]["tokenized_differently"] == 0


def test_tokenizers_alone_are_audited_without_rows(model: SharedModel, tmp_path: Path) -> None:
    document = model.json("tokenizer.json")
    merges = document["model"]["merges"]
    merge = next(each for each in merges if "".join(each).replace(" ", "") in ("Ġdocumentation", "▁documentation"))
    merges.remove(merge)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    found = audit(model, "../old", "../b")
    assert found["rows"] == []
    assert "has no weights" in found["rows_not_compared"]
    (token,) = found["unreachable"]
    assert token in ("Ġdocumentation", "▁documentation")
    assert found["kept"] == found["tokens_after"] == found["tokens_before"]
    assert found["corpus"]["unexpected"] == {"file": "../texts.txt", "text": 1}
    told = Workspace(model.root).run("diff", "../old", "../b", "--corpus", "../texts.txt")
    assert "../texts.txt:1 has no removed token, and is tokenized differently" in told.stdout.replace("\n", " ")


def test_a_corpus_without_text_is_an_error(model: SharedModel, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n\n", "utf-8")
    told = Workspace(model.root).run("diff", "../old", "m", "--corpus", "../texts.txt")
    assert told.returncode == 2
    assert "texts.txt: the corpus has no text" in told.stderr
