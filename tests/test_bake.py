"""Baking an adapter: base and adapter before give the logits of upgraded base and plain LoRA, and all can be undone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import making
import pytest
import torch
import transformers
from making import TOKENS
from safetensors.torch import load_file, save_file
from test_adapters import VOCABULARY, Pair
from workspaces import image, run_here

from tokmigrate.commands.bake import BakedAdapter, Wanted, bake_adapter
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.inspect import status
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import ModelError, OperationError, OutOfStepError, StorageError, UsageError
from tokmigrate.revision.new_file import write_schema

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")

NEW = ("<plan>", "<act>")
IDS = {token: TOKENS + place for place, token in enumerate(NEW)}
LISTED = [IDS["<plan>"], VOCABULARY["Ġthe"]]
ADDED = tuple(IDS.values())
TEXT = [5, TOKENS, 7, TOKENS + 1, *LISTED, VOCABULARY["Ġof"]]
ADD = {"add_tokens": {"tokens": list(NEW)}}
Q = {"target_modules": ["q_proj"], "lora_alpha": 64}
SAVED = {**Q, "modules_to_save": ["embed_tokens", "lm_head"]}
ROUNDING = {"float32": 0.0, "bfloat16": 0.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return what makes a workspace whose model has new tokens, once for each kind of model."""

    @cache
    def make(head: making.Head = "untied", dtype: making.Dtype = "float32") -> Path:
        both = Pair(tmp_path_factory.mktemp(head))
        making.llama(both.model, head=head, spare=8, dtype=dtype)
        both.adapter.mkdir(parents=True)
        write(both)
        upgrade(both.workspace, both.entry)
        return both.root

    return make


def write(both: Pair, *, is_listed: bool = False) -> None:
    """Write tokmigrate.yaml and the migration that adds the tokens."""
    both.write(ADD)
    making.say_of(both.root, "m", adapters=[str(both.adapter)] if is_listed else [])
    write_schema(both.workspace)


def tune(
    both: Pair,
    options: Mapping[str, Any],
    *,
    only: Sequence[int] = ADDED,
    resize: int = 0,
    seen: int = 0,
    to: str = "adapter",
) -> Path:
    """Make an adapter that was trained on the model as it is, and return its directory.

    Args:
        only: The rows that changed in whole matrices that are saved.
        resize: The rows of the model when it was trained; those of the ids from its tokens up to `seen` are others.
    """
    base = transformers.AutoModelForCausalLM.from_pretrained(both.model)
    if resize:
        base.resize_token_embeddings(resize, mean_resizing=False)
        with torch.no_grad():
            for layer in {base.get_input_embeddings(), base.get_output_embeddings()}:
                layer.weight[TOKENS + 2 : seen] += 1
    kind = peft.TrainableTokensConfig if "token_indices" in options else peft.LoraConfig
    wrapped = peft.get_peft_model(base, kind(task_type="CAUSAL_LM", **options))
    torch.manual_seed(len(to))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad:
                change = torch.randn_like(parameter) * 0.3
                if "modules_to_save" in name:
                    change[[row for row in range(len(change)) if row not in only]] = 0
                parameter.add_(change)
    output = both.root / "loras" / to
    shutil.rmtree(output, ignore_errors=True)
    wrapped.save_pretrained(output)
    return output


def trained(
    root: Path,
    models: Callable[..., Path],
    options: Mapping[str, Any],
    head: making.Head = "untied",
    dtype: making.Dtype = "float32",
    **how: Any,
) -> Pair:
    """Make a model with new tokens, and an adapter that was trained on it."""
    shutil.copytree(models(head, dtype), root, dirs_exist_ok=True)
    both = Pair(root)
    write(both)
    tune(both, options, **how)
    return both


def bake(both: Pair, rows: Wanted | None = None, adapter: str = "adapter", output: Path | None = None) -> BakedAdapter:
    """Bake an adapter into a directory of its own."""
    directory = both.root / "loras" / adapter
    output = output or both.root / f"{adapter}-plain"
    return bake_adapter(both.workspace, both.entry, directory, f"Bake {adapter}", output, rows)


def logits(model: Path, adapter: Path | None, ids: list[int]) -> torch.Tensor:
    """Return the logits of a text of a model with an adapter, `(tokens, vocabulary)`."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    if adapter is not None:
        loaded = peft.PeftModel.from_pretrained(loaded, adapter)
    with torch.no_grad():
        found: torch.Tensor = loaded.eval()(input_ids=torch.tensor([ids])).logits[0].double()
    return found


CASES: Mapping[str, tuple[Mapping[str, Any], making.Head, making.Dtype]] = {
    "single rows, tied": ({**Q, "trainable_token_indices": LISTED}, "tied", "float32"),
    "single rows, tied, in bfloat16": ({**Q, "trainable_token_indices": LISTED}, "tied", "bfloat16"),
    "single rows, untied": ({**Q, "trainable_token_indices": LISTED}, "untied", "float32"),
    "single rows of both sides": (
        {**Q, "trainable_token_indices": {"embed_tokens": LISTED, "lm_head": [IDS["<act>"], 9]}},
        "untied",
        "bfloat16",
    ),
    "rows alone": ({"target_modules": ["embed_tokens", "lm_head"], "token_indices": LISTED}, "untied", "float32"),
    "rows alone, tied": ({"target_modules": ["embed_tokens"], "token_indices": LISTED}, "tied", "float32"),
    "a matrix of tied sides": (
        {**Q, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        "tied",
        "float32",
    ),
    "the input matrix": ({**Q, "modules_to_save": ["embed_tokens"]}, "untied", "float32"),
    "the head": ({**Q, "modules_to_save": ["lm_head"]}, "untied", "float32"),
    "both matrices": (SAVED, "untied", "float32"),
    "both matrices, in bfloat16": (SAVED, "untied", "bfloat16"),
}


@pytest.mark.parametrize("case", CASES)
def test_base_and_plain_lora_give_the_logits_of_before(tmp_path: Path, models: Callable[..., Path], case: str) -> None:
    options, head, dtype = CASES[case]
    both = trained(tmp_path, models, options, head, dtype)
    without, before = logits(both.model, None, TEXT), logits(both.model, both.adapter, TEXT)
    model, adapter = image(both.model), image(both.adapter)

    done = bake(both)
    assert (image(both.model), image(both.adapter)) == (model, adapter)
    assert (done.output is None) == ("token_indices" in options)
    if done.output is not None:
        check_plain(done.output)
    upgrade(both.workspace, both.entry)
    difference = (logits(both.model, done.output, TEXT) - before).abs().max().item()
    assert difference <= ROUNDING[dtype], difference
    assert (without - before).abs().max() > 0.1

    downgrade(both.workspace, both.entry, "-1")
    assert image(both.model) == model


def check_plain(output: Path) -> None:
    """Assert that servers load what is left: vLLM and llama.cpp look at these names and fields."""
    names = load_file(output / "adapter_model.safetensors")
    assert all(re.search(r"\.(lora_[AB]\.weight|lora_embedding_[AB])$", name) for name in names)
    config = json.loads((output / "adapter_config.json").read_text("utf-8"))
    assert (config["modules_to_save"], config["trainable_token_indices"]) == (None, None)


def test_what_is_said_and_what_takes_the_place_of_the_adapter(tmp_path: Path, models: Callable[..., Path]) -> None:
    both = trained(tmp_path, models, {**Q, "trainable_token_indices": LISTED})
    write(both, is_listed=True)
    assert run_here(tmp_path, "lock").returncode == 0
    shown = run_here(tmp_path, "bake", "loras/adapter")
    assert shown.returncode == 0, shown.stderr
    plain = f"{both.adapter}-plain"
    assert 'wrote migrations/0002_bake_the_rows_of_adapter.yaml: the rows of 2 tokens, "Ġthe", "<plan>"' in shown.stdout
    assert "\nwrote loras/adapter-plain: LoRA factors only\n" in shown.stdout
    for mistake in ("nosuch", "loras", "m", "tokmigrate.yaml"):
        refused = run_here(tmp_path, "bake", mistake)
        assert (refused.returncode, f"{mistake}: there is no adapter_config.json" in refused.stderr) == (2, True)
    assert "- loras/adapter          # take this out\n  - loras/adapter-plain    # put this in" in shown.stdout
    # As it is, the adapter trains a row that would be initialised again.
    assert run_here(tmp_path, "upgrade").returncode == 1
    settings = tmp_path / "tokmigrate.yaml"
    settings.write_text(settings.read_text("utf-8").replace(str(both.adapter), plain), "utf-8")
    model = image(both.model)
    upgraded = run_here(tmp_path, "upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    said = "trained in the adapter loras/adapter"
    found = " ".join(run_here(tmp_path, "status").stdout.split())
    # The adapter has no output row of them.
    one, two = VOCABULARY["Ġthe"], IDS["<plan>"]
    shown_tokens = f'"Ġthe" ({one}, not the output row), "<plan>" ({two}, not the output row)'
    assert f"2 of 3 new tokens {said}, on one side only: {shown_tokens}" in found
    assert said in " ".join(run_here(tmp_path, "blame", "<plan>").stdout.split())
    assert run_here(tmp_path, "validate").stderr == ""
    assert run_here(tmp_path, "downgrade", "-1").returncode == 0
    assert image(both.model) == model
    again = json.loads(run_here(tmp_path, "bake", "loras/adapter", "--output", "other", "--json").stdout)
    assert "migrations are pending" in again["error"]["message"]


def test_a_matrix_in_which_baseline_tokens_changed_too(tmp_path: Path, models: Callable[..., Path]) -> None:
    both = trained(tmp_path, models, SAVED, only=range(9, TOKENS + 2))
    before, files = logits(both.model, both.adapter, TEXT), image(tmp_path)
    with pytest.raises(OperationError, match=f"for {TOKENS - 9} tokens of the baseline too") as raised:
        bake(both)
    assert "--rows all" in str(raised.value.hint)
    assert image(tmp_path) == files
    few = bake(both, "new")
    assert (few.tokens, few.left_out) == (NEW, TOKENS - 9)
    forget(few)
    assert image(tmp_path) == files
    every = bake(both, "all")
    assert len(every.tokens) == TOKENS + 2 - 9
    upgrade(both.workspace, both.entry)
    assert torch.equal(logits(both.model, every.output, TEXT), before)


def test_a_matrix_in_which_every_row_changed(tmp_path: Path, models: Callable[..., Path]) -> None:
    both = trained(tmp_path, models, SAVED, only=range(TOKENS + 8))
    shutil.copy(both.model / "tokenizer.json", both.adapter)
    files = image(tmp_path)
    for rows in (None, "all"):
        with pytest.raises(OperationError, match=f"for {TOKENS} tokens of the baseline too") as raised:
            bake(both, rows)  # type: ignore[arg-type]
        assert "--rows all" not in str(raised.value.hint)
    assert image(tmp_path) == files
    assert bake(both, "new").tokens == NEW
    upgrade(both.workspace, both.entry)


def test_rows_that_are_kept_in_a_wider_dtype(tmp_path: Path, models: Callable[..., Path]) -> None:
    both = trained(tmp_path, models, SAVED, dtype="bfloat16")
    weights = both.adapter / "adapter_model.safetensors"
    held = {name: tensor.float() for name, tensor in load_file(weights).items()}
    for name in (f"base_model.model.{layer}.weight" for layer in ("model.embed_tokens", "lm_head")):
        held[name][list(ADDED)] *= 1.001
    save_file(held, weights, {"format": "pt"})
    before = logits(both.model, both.adapter, TEXT)
    done = bake(both)
    # All other rows are those of the model, in more bits.
    assert done.tokens == NEW
    upgrade(both.workspace, both.entry)
    assert torch.equal(logits(both.model, done.output, TEXT), before)


def forget(done: BakedAdapter) -> None:
    """Remove what was written."""
    assert done.path is not None
    assert done.output is not None
    for path in done.path.parent.glob(f"{done.path.name[:4]}_*"):
        path.unlink()
    shutil.rmtree(done.output)


RESIZED: Sequence[tuple[Mapping[str, Any], making.Head]] = (
    (Q, "tied"),
    (Q, "untied"),
    ({**Q, "trainable_token_indices": [TOKENS + 2]}, "tied"),
    ({**Q, "trainable_token_indices": [TOKENS + 2]}, "untied"),
    (SAVED, "untied"),
)


@pytest.mark.parametrize(("options", "head"), RESIZED)
def test_a_trainer_added_tokens_and_resized(
    tmp_path: Path, models: Callable[..., Path], options: dict[str, Any], head: making.Head
) -> None:
    # The padding of the model goes or grows, and there are rows for two tokens.
    resize = TOKENS + (4 if head == "tied" else 16)
    both = trained(tmp_path, models, options, head, resize=resize, seen=TOKENS + 4, only=[TOKENS + 2])
    with pytest.raises(OutOfStepError, match=r"tokenizer|no token has this id"):
        bake(both)
    library = transformers.AutoTokenizer.from_pretrained(both.model)
    library.add_tokens([transformers.AddedToken("<see>", special=True), "<hear>"])
    library.save_pretrained(both.adapter)
    base = transformers.AutoModelForCausalLM.from_pretrained(both.model)
    base.resize_token_embeddings(resize, mean_resizing=False)
    with torch.no_grad():
        text = torch.tensor([[*TEXT, TOKENS + 2, TOKENS + 3]])
        before = peft.PeftModel.from_pretrained(base, both.adapter).eval()(input_ids=text).logits[0]
    done = bake(both)
    assert done.added == ("<see>", "<hear>")
    upgrade(both.workspace, both.entry)
    after = logits(both.model, done.output, text[0].tolist())
    assert torch.equal(after[:, : TOKENS + 4], before[:, : TOKENS + 4].double())
    upgraded = transformers.AutoTokenizer.from_pretrained(both.model)
    assert upgraded("<see><hear>")["input_ids"] == [TOKENS + 2, TOKENS + 3]
    assert upgraded.decode([TOKENS + 2], skip_special_tokens=True) == ""


def test_a_resized_matrix_without_other_rows_needs_no_tokenizer(tmp_path: Path, models: Callable[..., Path]) -> None:
    both = trained(tmp_path, models, Q, resize=TOKENS + 2)
    done = bake(both)
    assert done.path is None
    assert done.output is not None
    check_plain(done.output)


def test_lora_on_the_embeddings_stays(tmp_path: Path, models: Callable[..., Path]) -> None:
    both = trained(tmp_path, models, {"target_modules": ["q_proj", "embed_tokens", "lm_head"]})
    before = logits(both.model, both.adapter, TEXT)
    done = bake(both)
    assert done.path is None
    assert done.output is not None
    check_plain(done.output)
    assert len(load_file(done.output / "adapter_model.safetensors")) == 6
    assert torch.equal(logits(both.model, done.output, TEXT), before)


def test_two_adapters_that_trained_one_token(tmp_path: Path, models: Callable[..., Path]) -> None:
    both = trained(tmp_path, models, {**Q, "trainable_token_indices": LISTED})
    tune(both, {**Q, "trainable_token_indices": LISTED[:1]}, to="second")
    tune(both, {**Q, "trainable_token_indices": [IDS["<act>"]]}, to="other")
    bake(both)
    upgrade(both.workspace, both.entry)
    with pytest.raises(OperationError, match="'<plan>' are those of another adapter, loras/adapter"):
        bake(both, adapter="second")
    other = bake(both, adapter="other")
    assert other.tokens == ("<act>",)
    forget(other)
    # What the model has already needs no migration, and one that was trained on may replace its own rows.
    shutil.rmtree(tmp_path / "adapter-plain")
    assert bake(both).path is None
    shutil.rmtree(tmp_path / "adapter-plain")
    tune(both, {**Q, "trainable_token_indices": LISTED})
    weights = both.adapter / "adapter_model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights)
    assert bake(both).tokens == ("Ġthe", "<plan>")


REFUSED: Mapping[str, tuple[Mapping[str, Any], making.Head, str]] = {
    "one side of tied embeddings": ({**Q, "modules_to_save": ["embed_tokens"]}, "tied", "alone, and the model has one"),
    "both sides of tied embeddings": (SAVED, "tied", "a row for each side, and the model has one matrix"),
    "DoRA": ({**Q, "use_dora": True, "trainable_token_indices": LISTED}, "untied", "servers do not load DoRA"),
    "another module": ({**Q, "modules_to_save": ["norm", "embed_tokens"]}, "untied", "no LoRA factor and no rows"),
    "a bias": ({**Q, "lora_bias": True, "trainable_token_indices": LISTED}, "untied", "no LoRA factor and no rows"),
    "factors of the vocabulary": (
        {"target_modules": ["lm_head"], "trainable_token_indices": LISTED},
        "untied",
        "which is added to all rows",
    ),
    "nothing to bake": (Q, "untied", "LoRA factors only"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(tmp_path: Path, models: Callable[..., Path], case: str) -> None:
    options, head, words = REFUSED[case]
    both = trained(tmp_path, models, options, head)
    files = image(tmp_path)
    with pytest.raises((ModelError, UsageError), match=words):
        bake(both)
    assert image(tmp_path) == files


def test_a_migration_that_cannot_be_written_leaves_no_lora(tmp_path: Path, models: Callable[..., Path]) -> None:
    both = trained(tmp_path, models, {**Q, "trainable_token_indices": LISTED})
    (both.workspace.migrations / "0002_bake_adapter.input.safetensors").write_bytes(b"")
    files = image(tmp_path)
    with pytest.raises(StorageError, match="cannot be written"):
        bake(both)
    assert image(tmp_path) == files
    (tmp_path / "adapter-plain").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        bake(both)
    for directory in (both.model, both.adapter):
        with pytest.raises(UsageError, match="which stays as it is"):
            bake(both, output=directory / "plain")


def test_status_shows_a_list_of_ids_for_each_layer_that_it_is_for(tmp_path: Path, models: Callable[..., Path]) -> None:
    both = trained(tmp_path, models, {"target_modules": ["embed_tokens", "lm_head"], "token_indices": LISTED})
    write(both, is_listed=True)
    (adapter,) = status(both.workspace, both.entry).adapters
    assert {(held.side, held.rows) for held in adapter.rows} == {("input", 2), ("output", 2)}
