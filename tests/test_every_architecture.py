"""Every class of transformers with a language-model head: its rows move and grow with the tokens, and come back."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import making
import pytest
import torch
import yaml
from pinned import with_pinned_transformers
from safetensors.torch import load_file, save_file
from tiny_models import LanguageModel, build, builds_by_default, language_models, tiny_config, whole_models
from workspaces import REPOSITORY, image

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.plan import plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import ModelError, OperationError, OutOfStepError, UnexplainedTensorError
from tokmigrate.model.documents.architecture_quirks import FIXED_IDS, REFUSED, TWO_SIDED

pytestmark = with_pinned_transformers

PAGE = REPOSITORY / "docs" / "architectures.md"
NEW = ("<first>", "<second>")
SWAPPED = ("Ġthe", "Ġof")
COPIED = "Ġin"
VOCABULARY: Mapping[str, int] = making.tokenizer_json()["model"]["vocab"]

TABLE = {"input": {"strategy": "mean"}, "table": {"strategy": "copy", "token": COPIED}}
ADD = {"add_tokens": {"tokens": [NEW[0], {"content": NEW[1], "special": True}], "init": TABLE}}
SWAP = {
    "move_tokens": {
        "acknowledge": "breaking",
        "tokens": {SWAPPED[0]: VOCABULARY[SWAPPED[1]], SWAPPED[1]: VOCABULARY[SWAPPED[0]]},
    }
}

NO_MORE_ROWS = {
    "Gemma3nForConditionalGeneration",
    "KyutaiSpeechToTextForConditionalGeneration",
    "Molmo2ForConditionalGeneration",
    "Qwen4ExpForCausalLM",
    "Qwen4ExpForConditionalGeneration",
}
"""They take new tokens into spare rows only."""


def listed(name: str) -> str:
    """Return the heading under which docs/architectures.md has a class."""
    headings = [part.partition("\n") for part in PAGE.read_text("utf-8").split("\n## ")[1:]]
    (found,) = [heading for heading, _, text in headings if re.search(rf"\b{name}\b", text)]
    return found


def saved(model: LanguageModel, config: Any, directory: Path) -> Any:
    """Save a random model of the class with the tokenizer of `making`, and return it."""
    built = build(model, config)
    built.save_pretrained(directory)
    making.write_tokenizer(directory)
    if model.name == "Molmo2ForConditionalGeneration":
        _mend_molmo2(directory, config.text_config.vocab_size)
    return built


def _mend_molmo2(directory: Path, size: int) -> None:
    # transformers splits the matrix in the middle when it saves, and joins the published halves when it loads.
    path = directory / "model.safetensors"
    tensors = load_file(path)
    names = ("model.transformer.wte.embedding", "model.transformer.wte.new_embedding")
    whole = torch.cat([tensors[name] for name in names])
    tensors |= {names[0]: whole[:size].clone(), names[1]: whole[size:].clone()}
    save_file(tensors, path, metadata={"format": "pt"})


def loaded(model: LanguageModel, directory: Path) -> Any:
    """Load a directory and assert that transformers finds each tensor as it expects it."""
    found, told = model.model.from_pretrained(directory, output_loading_info=True)
    assert not any(told[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), told
    return found


def sizes_said(directory: Path) -> dict[str, int]:
    """Return every size of a vocabulary that config.json gives anywhere, by its dotted place."""

    def walk(value: Any, place: str) -> Iterator[tuple[str, int]]:
        for name, inner in value.items():
            if isinstance(inner, dict):
                yield from walk(inner, f"{place}{name}.")
            elif "vocab_size" in name and isinstance(inner, int):
                yield place + name, inner

    return dict(walk(json.loads((directory / "config.json").read_text("utf-8")), ""))


@pytest.mark.parametrize("name", language_models())
def test_its_rows_move_and_grow_and_come_back(name: str, tmp_path: Path) -> None:
    model = language_models()[name]
    spare = 4 if name in NO_MORE_ROWS else 0
    config = tiny_config(model, making.TOKENS + spare)
    if config is None:
        # Only what transformers itself cannot build by default may be missing here.
        assert not builds_by_default(model)
        assert listed(name) != "Migrated"
        pytest.skip("transformers builds it neither with its default config nor with a small one made from that")
    directory = tmp_path / "model"
    assert listed(name) == ("Refused" if config.model_type in REFUSED else "Migrated")
    if config.model_type in REFUSED:
        return
    before = saved(model, config, directory)
    moves = config.model_type not in FIXED_IDS
    steps = [{"operations": [SWAP]}] if moves else []
    made = making.workspace(tmp_path, {"m": directory}, [*steps, {"operations": [ADD]}])
    if config.model_type in TWO_SIDED:
        _say_that_both_sides_have_one_vocabulary(made)
    place, entry = made.workspace, made.entry("m")
    base, old = image(directory), making.tensors_of(directory)

    done = upgrade(place, entry)

    new = making.tensors_of(directory)
    assert new.keys() == old.keys()
    tensors = {tensor.name: tensor for tensor in done.plan.snapshot.tensors}
    rows = [VOCABULARY[token] for token in SWAPPED]
    for tensor, was in old.items():
        if tensor not in tensors:
            assert torch.equal(new[tensor], was), tensor
            continue
        axis = tensors[tensor].axis
        expected = was.clone()
        if moves:
            expected.index_copy_(axis, torch.tensor(rows), was.index_select(axis, torch.tensor(rows[::-1])))
        kept = torch.arange(making.TOKENS)
        assert torch.equal(new[tensor].index_select(axis, kept), expected.index_select(axis, kept)), tensor
        assert new[tensor].shape[axis] - was.shape[axis] == (0 if spare else len(NEW)), tensor
        # What stands behind the tokens' rows stays behind them.
        tail = was.shape[axis] - making.TOKENS - spare
        if tail > 0 and not done.plan.final.traits.short:
            assert torch.equal(
                new[tensor].narrow(axis, new[tensor].shape[axis] - tail, tail), was.narrow(axis, -tail, tail)
            )
    stale = [place for place, size in sizes_said(directory).items() if not spare and size == making.TOKENS]
    assert not stale
    after = loaded(model, directory)
    _check_tied(before, after, done.plan.final.traits.tied)

    downgrade(place, entry, "base")
    assert image(directory) == base


def _say_that_both_sides_have_one_vocabulary(made: making.Made) -> None:
    with pytest.raises(UnexplainedTensorError, match="one vocabulary is not known") as raised:
        plan(made.workspace, made.entry("m"))
    _, _, lines = str(raised.value.hint).partition("\n")
    making.say_of(made.root, "m", **yaml.safe_load(lines))


def _check_tied(before: Any, after: Any, tied: bool) -> None:
    try:
        pairs = [
            (model.get_input_embeddings().weight, model.get_output_embeddings().weight) for model in (before, after)
        ]
    except (AttributeError, NotImplementedError):
        return
    was, now = (single is head for single, head in pairs)
    assert was == now
    assert tied or not was


def test_molmo2_as_transformers_saves_it_says_how_to_save_it_whole(tmp_path: Path) -> None:
    model = language_models()["Molmo2ForConditionalGeneration"]
    config = tiny_config(model, making.TOKENS + 4)
    assert config is not None
    directory = tmp_path / "model"
    built = build(model, config)
    built.save_pretrained(directory)
    making.write_tokenizer(directory)
    made = making.workspace(tmp_path, {"m": directory}, [{"operations": [SWAP]}, {"operations": [ADD]}])
    with pytest.raises(OutOfStepError, match="divided the embeddings in the middle") as raised:
        plan(made.workspace, made.entry("m"))

    command = shlex.split(str(raised.value.hint).partition(": ")[2])
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True, capture_output=True)
    for path in directory.glob("tokenizer*"):
        shutil.copy(path, tmp_path / "NEW")

    made = making.migrated(tmp_path, tmp_path / "NEW", SWAP, ADD)
    old, new = (each.get_input_embeddings().weight for each in (built, loaded(model, tmp_path / "NEW")))
    rows = [VOCABULARY[token] for token in SWAPPED]
    assert torch.equal(new[rows], old[rows[::-1]])
    assert torch.equal(new[making.TOKENS + 4 :], old[making.TOKENS + 4 :])


def test_the_page_counts_what_it_lists() -> None:
    names = list(language_models())
    outcomes = [listed(name) for name in names]
    text = PAGE.read_text("utf-8")
    for words, count in {
        "in transformers' language-model mappings": len(names),
        "migrated, loaded again": outcomes.count("Migrated"),
        "refused, with": outcomes.count("Refused"),
        "not tried": outcomes.count("Not tried"),
    }.items():
        assert re.search(rf"\| {words}[^|]*\| {count} \|", text), (words, count)


def test_the_page_lists_whole_models_too() -> None:
    part = PAGE.read_text("utf-8").partition("\n## Whole models\n")[2].partition("\n## ")[0]
    listed_here = re.findall(r"^\| (\w+) \| `", part, re.MULTILINE)
    assert listed_here == list(whole_models())
    assert "`thinker.model.embed_tokens.weight`" in part
    assert part.count("not tried") < len(listed_here) / 2


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_model_type_that_is_refused_says_why(model_type: str, tmp_path: Path) -> None:
    model = making.llama(tmp_path / "model")
    config = json.loads((model / "config.json").read_text("utf-8"))
    making.write_json(model / "config.json", {**config, "model_type": model_type})
    made = making.workspace(tmp_path, {"m": model}, [{"operations": [ADD]}])
    with pytest.raises(ModelError, match="cannot be migrated") as raised:
        plan(made.workspace, made.entry("m"))
    assert REFUSED[model_type].reason in raised.value.message
    assert raised.value.hint == REFUSED[model_type].hint


def test_a_table_of_integers_asks_for_the_row_to_copy(tmp_path: Path) -> None:
    model = making.routed(tmp_path / "model")
    tokens = {"tokens": ["<copied>"], "init": {"strategy": "copy", "token": COPIED}}
    begun = {"tokens": ["<begun>"], "init": {"strategy": "mean"}}
    made = making.workspace(
        tmp_path, {"m": model}, [{"operations": [{"add_tokens": content}]} for content in (tokens, begun)]
    )
    upgrade(made.workspace, made.entry("m"), "+1")
    table = making.tensors_of(model)["model.layers.0.mlp.gate.tid2eid"]
    assert torch.equal(table[making.TOKENS], table[VOCABULARY[COPIED]])
    with pytest.raises(OperationError, match="looks '<begun>' up in a table of integers") as raised:
        plan(made.workspace, made.entry("m"))
    assert '"table": {"strategy": "copy"' in str(raised.value.hint)
