"""Trainers of others train the new rows: the recipes of docs/trainers.md, and what `peft-config --for` prints."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import datasets
import peft
import pytest
import torch
import transformers
import trl
import yaml
from making import EOS, TOKENS, Head, Made, built, llama, migrated, tensors_of
from safetensors.torch import load_file
from test_readme import typed
from workspaces import REPOSITORY, Workspace, run_here

from tokmigrate.audit.lora import LoraRows
from tokmigrate.audit.trainers import Trainer, configure_trainer
from tokmigrate.errors import ModelError

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
NEW = ["<x>", "<y>", "<z>"]
ADD = {"add_tokens": {"tokens": NEW}}
IDS = [TOKENS, TOKENS + 1, TOKENS + 2]
KEYS = {
    "axolotl": {"peft_trainable_token_indices", "lora_modules_to_save"},
    "llamafactory": {"finetuning_type", "additional_target", "freeze_trainable_layers", "freeze_extra_modules"},
}
"""Fields of LoraConfig in axolotl/utils/schemas/peft.py, and of FinetuningArguments in hparams/finetuning_args.py."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Threads that wait for a core take longer than these models.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recipes() -> list[tuple[str, str]]:
    """Return the blocks of the page on other trainers, with their language."""
    page = (REPOSITORY / "docs" / "trainers.md").read_text("utf-8")
    return re.findall(r"^```(bash|python)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def test_each_recipe_of_the_page_trains_the_new_rows(place: Workspace) -> None:
    names: dict[str, Any] = {}
    with contextlib.chdir(place.root):
        for language, code in recipes():
            if language == "bash":
                typed(place.root, code)
            else:
                exec(compile(code, "docs/trainers.md", "exec"), names)  # noqa: S102

    # The pad token is in no text that counts: weight decay is off, and the softmax moves its output row.
    for model in ("tuned", "by-hand"):
        (found,) = place.asked("status", "--model", f"models/{model}")["models"]
        sides = {token["token"]: token["sides"] for token in found["training"]}
        assert (sides[START]["input"], sides[END]["input"]) == ("trained", "trained")
        assert sides[PAD]["input"] == "untrained"
    before, after = tensors_of(place.model), load_file(place.root / "models" / "by-hand" / "model.safetensors")
    for name, tensor in before.items():
        changed = [row for row in range(len(tensor)) if not torch.equal(tensor[row], after[name][row])]
        new = {"model.embed_tokens.weight": [1024, 1025], "lm_head.weight": [1024, 1025, 1026]}
        assert changed == new.get(name, [])

    (found,) = place.asked("status")["models"]
    assert {token["training"] for token in found["training"]} == {"untrained"}
    assert [Path(adapter["path"]).name for adapter in found["adapters"]] == ["trainer", "peft", "trl", "trl-rows"]
    for adapter in found["adapters"]:
        assert set(adapter["trained"]) == {START, END}
        assert {held["side"]: held["is_whole"] for held in adapter["rows"]} == {
            "input": False,
            "output": Path(adapter["path"]).name == "trl",
        }


def printed(made: Made, trainer: Trainer) -> dict[str, Any]:
    """Return what `--for` prints, read as its trainer reads it."""
    text = run_here(made.root, "peft-config", "--for", trainer).stdout
    read = {"axolotl": yaml.safe_load, "llamafactory": yaml.safe_load, "unsloth": lambda text: eval(f"dict(\n{text})")}  # noqa: S307
    settings: dict[str, Any] = read.get(trainer, json.loads)(text)
    return settings


def changed_rows(model: Any, before: Mapping[str, torch.Tensor]) -> tuple[list[int], list[int]]:
    """Return the rows of input and output that are not as in the upgraded model."""
    pairs = (
        (model.get_input_embeddings().weight, before["model.embed_tokens.weight"]),
        (model.get_output_embeddings().weight, before.get("lm_head.weight", before["model.embed_tokens.weight"])),
    )
    found = [[row for row, (a, b) in enumerate(zip(*pair, strict=True)) if not torch.equal(a, b)] for pair in pairs]
    return found[0], found[1]


@pytest.mark.parametrize("head", ["tied", "untied"])
def test_trl_asks_for_the_bias_that_the_wrapper_of_single_rows_does_not_have(tmp_path: Path, head: Head) -> None:
    model = llama(tmp_path / "m", head=head)
    made = migrated(tmp_path / "w", model, ADD)
    before = tensors_of(model)
    options = trl.SFTConfig(
        str(tmp_path / "runs"), max_steps=2, learning_rate=1e-2, report_to="none", save_strategy="no", use_cpu=True
    )
    texts = datasets.Dataset.from_dict({"text": [f"the <x>in<y> of{EOS}"] * 2})

    def make_trainer(given: dict[str, Any]) -> Any:
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **given)
        return trl.SFTTrainer(str(model), options, train_dataset=texts, peft_config=config)

    with pytest.raises(AttributeError, match="'TrainableTokensWrapper' object has no attribute 'bias'"):
        make_trainer(printed(made, "peft")).train()
    assert "TRL 1.16 reads the bias" in run_here(made.root, "peft-config", "--for", "trl").stderr

    whole = make_trainer(printed(made, "trl"))
    whole.train()
    rows, output = changed_rows(whole.model, before)
    assert set(IDS[:2]) <= set(rows) & set(output)
    assert len(output) == TOKENS + 3

    single = make_trainer(printed(made, "peft"))
    single.model.get_output_embeddings().bias = None
    single.train()
    rows, output = changed_rows(single.model, before)
    assert output == IDS
    assert rows == (IDS if head == "tied" else IDS[:2])


@pytest.mark.parametrize("head", ["tied", "untied"])
@pytest.mark.parametrize("trainer", ["transformers", "axolotl", "llamafactory", "unsloth"])
def test_the_settings_train_the_new_rows_of_both_sides(tmp_path: Path, trainer: Trainer, head: Head) -> None:
    model = llama(tmp_path / "m", head=head)
    made = migrated(tmp_path / "w", model, ADD)
    settings = printed(made, trainer)
    assert set(settings) <= KEYS.get(trainer, settings.keys())
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    # As the trainer gives them to peft, or unfreezes layers itself.
    if settings.get("finetuning_type") == "freeze":
        for name, weight in loaded.named_parameters():
            weight.requires_grad_(settings["freeze_extra_modules"] in name)
        tuned = loaded
    else:
        given = {
            "axolotl": lambda: {"trainable_token_indices": settings["peft_trainable_token_indices"]},
            "llamafactory": lambda: {"modules_to_save": settings["additional_target"].split(",")},
        }.get(trainer, lambda: settings)()
        tuned = peft.get_peft_model(loaded, peft.LoraConfig(r=2, target_modules=["q_proj"], **given))
    ids = torch.tensor([[1, *IDS, 5]])
    optimizer = torch.optim.AdamW([each for each in tuned.parameters() if each.requires_grad], lr=1e-2)
    tuned(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    merged = tuned if tuned is loaded else tuned.merge_and_unload()
    for rows in changed_rows(merged, tensors_of(model)):
        assert set(IDS) <= set(rows)
        assert trainer not in ("transformers", "axolotl") or rows == IDS
    same = merged.get_input_embeddings().weight is merged.get_output_embeddings().weight
    assert same == (head == "tied")


def test_peft_is_what_is_printed_by_default(tmp_path: Path) -> None:
    made = migrated(tmp_path / "w", llama(tmp_path / "m"), ADD)
    for words in ([], ["--json"]):
        default = run_here(made.root, "peft-config", *words)
        assert default.stdout == run_here(made.root, "peft-config", "--for", "peft", *words).stdout
    (model,) = json.loads(run_here(made.root, "peft-config", "--for", "unsloth", "--json").stdout)["models"]
    assert {key: set(value) for key, value in model["settings"].items()} == {
        "modules_to_save": {"embed_tokens", "lm_head"}
    }
    assert run_here(made.root, "peft-config", "--for", "fairseq").returncode == 2


def phi(root: Path, *, tied: bool) -> Made:
    """Make a Phi, whose output layer has a bias, and add the new tokens."""
    return migrated(root / "w", built(root / "m", "PhiForCausalLM", tie_word_embeddings=tied), ADD)


def logits(model: Path, given: dict[str, Any]) -> torch.Tensor:
    """Return the logits of a model with an adapter that is not trained."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    if given:
        loaded = peft.get_peft_model(loaded, peft.LoraConfig(r=2, target_modules=["q_proj"], **given))
    found: torch.Tensor = loaded.eval()(torch.tensor([[1, 2, 3]])).logits
    return found


def test_an_output_layer_with_a_bias_is_trained_as_a_whole(tmp_path: Path) -> None:
    made = phi(tmp_path, tied=False)
    assert "peft leaves out the bias" in run_here(made.root, "peft-config").stderr
    assert printed(made, "axolotl")["lora_modules_to_save"] == ["lm_head"]
    before = logits(tmp_path / "m", {})
    assert torch.equal(logits(tmp_path / "m", printed(made, "transformers")), before)
    assert torch.equal(logits(tmp_path / "m", printed(made, "trl")), before)
    assert not torch.allclose(logits(tmp_path / "m", printed(made, "peft")), before)


def test_with_peft_the_bias_of_a_tied_output_layer_is_lost(tmp_path: Path) -> None:
    made = phi(tmp_path, tied=True)
    for trainer in get_args(Trainer):
        said = run_here(made.root, "peft-config", "--for", trainer).stderr
        assert ("train without peft" in said) == (trainer != "llamafactory")
    for trainer in ("peft", "trl"):
        assert not torch.allclose(logits(tmp_path / "m", printed(made, trainer)), logits(tmp_path / "m", {}))


@pytest.mark.parametrize("trainer", ["trl", "unsloth"])
def test_tied_embeddings_of_another_name_are_refused(trainer: Trainer) -> None:
    # peft only warns, and trains a copy that the output layer does not follow.
    with pytest.raises(ModelError, match=r"not (?:in|to) 'wte'"):
        configure_trainer(trainer, LoraRows("m", {"wte": [7]}, 0, None, is_tied=True))
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1))
    given = {"modules_to_save": ["wte"], "ensure_weight_tying": True}
    with pytest.warns(UserWarning, match="no tied modules"):
        tuned = peft.get_peft_model(gpt2, peft.LoraConfig(r=2, target_modules=["c_attn"], **given))
    assert type(tuned.get_output_embeddings()) is torch.nn.Linear


@pytest.mark.parametrize("trainer", get_args(Trainer))
def test_a_model_whose_rows_are_all_trained(trainer: Trainer) -> None:
    for is_tied in (False, True):
        config = configure_trainer(trainer, LoraRows("m", {}, 0, None, is_tied=is_tied, has_output_bias=True))
        assert config.settings == ({"trainable_token_indices": None} if config.syntax == "json" else {})
        assert config.warning is None
