"""Adapters of peft go with their base model: in one transaction, with its rows and ids, and back to the exact bytes."""

from __future__ import annotations

import json
import shutil
import signal
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import making
import pytest
import torch
import transformers
from dying import dying_at, exit_code
from making import TOKENS
from safetensors.torch import load_file, save_file
from workspaces import Workspace as Place
from workspaces import image, run_here

from tokmigrate.apply.journal import Journal
from tokmigrate.apply.publish import RecoveryOutcome
from tokmigrate.apply.workarea import WorkArea
from tokmigrate.commands.check import check
from tokmigrate.commands.current import current
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.inspect import status, verify
from tokmigrate.commands.plan import bind_plan, plan
from tokmigrate.commands.session import recover_model
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import (
    DriftError,
    ModelError,
    OperationError,
    OutOfStepError,
    RecoveryNeededError,
    StorageError,
    UndoError,
    WeightsError,
)
from tokmigrate.events import Event, OnProgress, Step, StepReached, Warned
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.rows import Status

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")

VOCABULARY: Mapping[str, int] = making.tokenizer_json()["model"]["vocab"]
TEXT = [5, 40, 7, VOCABULARY["Ġthe"], VOCABULARY["Ġof"]]
ADD = {"add_tokens": {"tokens": ["<first>", {"content": "<second>", "special": True}]}}
SWAP = {"move_tokens": {"acknowledge": "breaking", "tokens": {"Ġthe": VOCABULARY["Ġof"], "Ġof": VOCABULARY["Ġthe"]}}}

KINDS: Mapping[str, Mapping[str, Any]] = {
    "away from the vocabulary": {"target_modules": ["q_proj"]},
    "on the embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "on the head": {"target_modules": ["q_proj", "lm_head"]},
    "on both": {"target_modules": ["embed_tokens", "lm_head"]},
    "on the head, with a bias": {"target_modules": ["lm_head"], "lora_bias": True},
    "with both saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "with the embeddings saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "of a list of tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [TEXT[3], 9, TEXT[4]]},
    "of tokens by layer": {
        "target_modules": ["q_proj"],
        "trainable_token_indices": {"embed_tokens": [TEXT[3], 9], "lm_head": [7, TEXT[4]]},
    },
}
CASES = [
    (kind, head) for kind in KINDS for head in ("tied", "untied") if (kind, head) != ("of tokens by layer", "tied")
]


@dataclass(frozen=True)
class Pair:
    """A model with an adapter, in a workspace."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def adapter(self) -> Path:
        return self.root / "loras" / "adapter"

    @property
    def workspace(self) -> Workspace:
        return making.Made(self.root, ()).workspace

    @property
    def entry(self) -> ModelEntry:
        return self.workspace.models["m"]

    def write(self, *operations: dict[str, Any]) -> None:
        """Write migrations of one operation each, and list the adapter."""
        making.workspace(self.root, {"m": self.model}, [{"operations": [operation]} for operation in operations])
        making.say_of(self.root, "m", adapters=[str(self.adapter)])

    def list_none(self) -> None:
        """Take the adapter out of the workspace."""
        making.say_of(self.root, "m", adapters=[])

    def loaded(self) -> Any:
        """Load the model with the adapter upon it."""
        base = transformers.AutoModelForCausalLM.from_pretrained(self.model)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = peft.PeftModel.from_pretrained(base, self.adapter)
        assert not [each for each in said if "missing adapter keys" in str(each.message).lower()]
        return found.eval()

    def logits(self, ids: list[int]) -> torch.Tensor:
        """Return the logits of a text, `(tokens, vocabulary)`."""
        with torch.no_grad():
            found: torch.Tensor = self.loaded()(input_ids=torch.tensor([ids])).logits[0]
        return found


def pair(root: Path, options: Mapping[str, Any], head: making.Head = "untied", spare: int = 4) -> Pair:
    """Make a model with an adapter of random numbers."""
    made = Pair(root)
    making.llama(made.model, head=head, spare=spare)
    base = transformers.AutoModelForCausalLM.from_pretrained(made.model)
    torch.manual_seed(3)
    wrapped = peft.get_peft_model(base, peft.LoraConfig(r=4, task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        # A new row adds nothing, and would not show that it moved.
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    wrapped.save_pretrained(made.adapter)
    return made


@pytest.mark.parametrize(("kind", "head"), CASES)
def test_old_tokens_have_the_logits_that_they_had_and_every_byte_comes_back(
    tmp_path: Path, kind: str, head: making.Head
) -> None:
    both = pair(tmp_path, KINDS[kind], head)
    both.write(ADD, SWAP)
    before = both.logits(TEXT)
    base, adapter = image(both.model), image(both.adapter)

    upgrade(both.workspace, both.entry, "+1")
    # Spare rows take the new tokens, so that nothing moves and the same kernels run.
    old = range(TOKENS)
    assert torch.equal(both.logits(TEXT)[:, old], before[:, old])
    assert torch.isfinite(both.logits([*TEXT, TOKENS, TOKENS + 1])).all()

    upgrade(both.workspace, both.entry)
    moved = {TEXT[3]: TEXT[4], TEXT[4]: TEXT[3]}
    order = [moved.get(number, number) for number in old]
    after = both.logits([moved.get(number, number) for number in TEXT])
    assert torch.equal(after[:, order], before[:, old])
    assert not verify(both.workspace, both.entry).changed

    downgrade(both.workspace, both.entry, "base")
    assert image(both.model) == base
    assert image(both.adapter) == adapter


@pytest.mark.parametrize("kind", KINDS)
def test_one_run_gives_what_many_runs_give(tmp_path: Path, kind: str) -> None:
    both = pair(tmp_path, KINDS[kind], spare=0)
    both.write(ADD, SWAP, {"resize_vocab": {"multiple_of": 64}})
    before = image(both.adapter)
    for _ in range(3):
        upgrade(both.workspace, both.entry, "+1")
    stepwise = {name: file.data for name, file in image(both.adapter).items()}
    downgrade(both.workspace, both.entry, "base")
    assert image(both.adapter) == before
    upgrade(both.workspace, both.entry)
    assert {name: file.data for name, file in image(both.adapter).items()} == stepwise
    both.loaded()


INITS: Mapping[str, Mapping[str, Any]] = {
    "mean": {"strategy": "mean"},
    "copy": {"strategy": "copy", "token": "Ġin"},
    "average": {"strategy": "average", "tokens": {"Ġin": 2, "Ġa": 1}},
    "description": {"strategy": "description", "text": "in the ending"},
}


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("kind", ["on the embeddings", "on both", "with both saved"])
def test_with_the_adapter_too_a_new_row_is_what_its_strategy_says(tmp_path: Path, kind: str, init: str) -> None:
    both = pair(tmp_path, KINDS[kind], spare=0)
    both.write({"add_tokens": {"tokens": [{"content": "<new>", "init": INITS[init]}]}})
    upgrade(both.workspace, both.entry)
    merged = both.loaded().merge_and_unload()
    for matrix in (merged.get_input_embeddings().weight, merged.get_output_embeddings().weight):
        rows = matrix.detach().double()
        ids = {"copy": [VOCABULARY["Ġin"]], "average": [VOCABULARY["Ġin"]] * 2 + [VOCABULARY["Ġa"]]}.get(init)
        if init == "description":
            library = transformers.AutoTokenizer.from_pretrained(both.model)
            ids = library("in the ending", add_special_tokens=False)["input_ids"]
        expected = rows[:TOKENS].mean(0) if ids is None else rows[ids].mean(0)
        torch.testing.assert_close(rows[TOKENS], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("init", [{"strategy": "normal"}, {"strategy": "zeros"}])
def test_the_factors_add_nothing_to_a_row_that_is_no_sum_of_others(tmp_path: Path, init: dict[str, Any]) -> None:
    both = pair(tmp_path, KINDS["on both"], spare=0)
    both.write({"add_tokens": {"tokens": [{"content": "<new>", "init": init}]}})
    upgrade(both.workspace, both.entry)
    held = making.tensors_of(both.adapter)
    assert not held["base_model.model.model.embed_tokens.lora_embedding_A"][:, TOKENS].any()
    assert not held["base_model.model.lm_head.lora_B.weight"][TOKENS].any()
    # The copy of the base model's matrix is still a copy.
    weights = making.tensors_of(both.model)
    assert torch.equal(held["base_model.model.lm_head.base_layer.weight"], weights["lm_head.weight"])


def test_a_trained_row_keeps_its_place_in_the_list(tmp_path: Path) -> None:
    both = pair(tmp_path, KINDS["of a list of tokens"])
    both.write(SWAP)
    name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    before = making.tensors_of(both.adapter)[name]
    upgrade(both.workspace, both.entry)
    config = json.loads((both.adapter / "adapter_config.json").read_text("utf-8"))
    assert config["trainable_token_indices"] == [TEXT[4], 9, TEXT[3]]
    assert torch.equal(making.tensors_of(both.adapter)[name], before)


@pytest.mark.parametrize(
    "operation",
    [
        {"reinit_tokens": {"acknowledge": "breaking", "tokens": ["Ġthe"]}},
        {"remove_tokens": {"tokens": ["Ġof"], "ids": "compact", "acknowledge": "breaking"}},
    ],
)
def test_a_row_that_the_adapter_trains_is_neither_initialised_again_nor_removed(
    tmp_path: Path, operation: dict[str, Any]
) -> None:
    both = pair(tmp_path, KINDS["of a list of tokens"])
    both.write(operation)
    before = image(both.model), image(both.adapter)
    with pytest.raises(OperationError, match="the adapter uses") as raised:
        upgrade(both.workspace, both.entry)
    assert str(both.adapter) in str(raised.value.where)
    assert (image(both.model), image(both.adapter)) == before


def test_tokenizer_files_of_the_adapter_follow_with_what_is_their_own(tmp_path: Path) -> None:
    both = pair(tmp_path, KINDS["on the head"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(both.model / name, both.adapter)
    path = both.adapter / "tokenizer_config.json"
    making.write_json(path, {**json.loads(path.read_text("utf-8")), "model_max_length": 7})
    both.write(ADD, {"set_padding": {"token": making.EOS, "side": "left"}})
    upgrade(both.workspace, both.entry)
    assert (both.adapter / "tokenizer.json").read_bytes() == (both.model / "tokenizer.json").read_bytes()
    settings = json.loads(path.read_text("utf-8"))
    assert (settings["model_max_length"], settings["padding_side"]) == (7, "left")
    assert transformers.AutoTokenizer.from_pretrained(both.adapter)("<second>")["input_ids"] == [TOKENS + 1]
    downgrade(both.workspace, both.entry, "base")


def test_what_is_shown(tmp_path: Path) -> None:
    both = pair(tmp_path, KINDS["on both"])
    both.write(ADD)
    place = Place(tmp_path)
    planned = place.run("plan").stdout
    assert "adapter_model.safetensors" in planned
    asked = place.asked("plan")["models"][0]
    assert [file["name"] for file in asked["adapters"][0]["files"]] == ["adapter_model.safetensors"]
    assert place.run("upgrade").returncode == 0
    found = status(both.workspace, both.entry)
    assert [(each.path, each.revision) for each in found.adapters] == [(str(both.adapter), f"{1:012x}")]
    assert "4 tensors with rows of the vocabulary" in place.run("status").stdout


def broken(both: Pair, how: str) -> None:
    """Damage what `test_an_adapter_that_does_not_fit` is about."""
    weights = both.adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    if how == "pickled":
        weights.rename(both.adapter / "adapter_model.bin")
    if how == "gone":
        shutil.rmtree(both.adapter)
    if how == "no config":
        (both.adapter / "adapter_config.json").unlink()
    if how == "rows":
        name = "base_model.model.lm_head.lora_B.weight"
        save_file({**tensors, name: tensors[name][:-1].clone()}, weights)
    if how == "unknown":
        save_file({**tensors, "base_model.model.x.lokr_w1": torch.zeros(TOKENS + 4, 2)}, weights)
    if how == "dora":
        save_file({**tensors, "base_model.model.lm_head.lora_magnitude_vector": torch.zeros(TOKENS + 4)}, weights)
    if how == "tokenizer":
        making.write_tokenizer(both.adapter, making.tokenizer_json(("<x>", *(making.BOS, making.EOS))))
    if how == "index":
        path = both.adapter / "adapter_config.json"
        config = json.loads(path.read_text("utf-8"))
        making.write_json(path, {**config, "trainable_token_indices": [TOKENS + 99]})


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("pickled", WeightsError, "never unpickled"),
        ("gone", ModelError, "no such adapter directory"),
        ("no config", ModelError, "no adapter_config.json"),
        ("rows", OutOfStepError, "has not 285 rows"),
        ("unknown", ModelError, "LoRA saves no such tensor"),
        ("dora", ModelError, "DoRA"),
        ("tokenizer", OutOfStepError, "other ids than its model's"),
        ("index", OutOfStepError, "trains the row of id"),
    ],
)
def test_an_adapter_that_does_not_fit(tmp_path: Path, how: str, error: type[Exception], words: str) -> None:
    both = pair(tmp_path, KINDS["on the head"])
    both.write(ADD)
    broken(both, how)
    before = image(both.model)
    with pytest.raises(error, match=words):
        upgrade(both.workspace, both.entry)
    assert image(both.model) == before


def test_an_adapter_inside_its_model_is_refused(tmp_path: Path) -> None:
    both = pair(tmp_path, KINDS["on the head"])
    both.write(ADD)
    shutil.move(both.adapter, both.model / "adapter")
    (both.adapter.parent).rmdir()
    both.adapter.parent.symlink_to(both.model)
    with pytest.raises(StorageError, match="is inside the other"):
        upgrade(both.workspace, both.entry)


def test_an_adapter_that_was_trained_meanwhile_keeps_what_it_learnt(tmp_path: Path) -> None:
    both = pair(tmp_path, KINDS["on the head"])
    base = image(both.model)
    name, path = "base_model.model.lm_head.lora_B.weight", both.adapter / "adapter_model.safetensors"
    others = load_file(path)
    before = others.pop(name)
    both.write(ADD)
    upgrade(both.workspace, both.entry)
    tensors = load_file(path)
    tensors[name] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    assert verify(both.workspace, both.entry).changed == (str(path),)
    downgrade(both.workspace, both.entry, "base")
    assert image(both.model) == base
    left = load_file(path)
    # The two rows that the new tokens took were spare ones: they come back as they were.
    taken = [making.TOKENS, making.TOKENS + 1]
    kept = [row for row in range(len(before)) if row not in taken]
    assert torch.equal(left[name][kept], tensors[name][kept])
    assert torch.equal(left.pop(name)[taken], before[taken])
    assert left.keys() == others.keys()
    assert all(torch.equal(held, others[other]) for other, held in left.items())


def test_an_adapter_that_came_later_goes_up_but_not_below(tmp_path: Path) -> None:
    both = pair(tmp_path, KINDS["on the head"])
    both.write(ADD, SWAP)
    held = tmp_path / "held"
    shutil.move(both.adapter, held)
    both.list_none()
    upgrade(both.workspace, both.entry, "+1")
    shutil.move(held, both.adapter)
    both.write(ADD, SWAP)
    before = image(both.adapter)
    upgrade(both.workspace, both.entry)
    downgrade(both.workspace, both.entry, "-1")
    assert image(both.adapter) == before
    with pytest.raises(UndoError, match="was added after a revision"):
        downgrade(both.workspace, both.entry, "base")


def test_an_adapter_that_is_not_listed_any_more_stays_and_is_reported(tmp_path: Path) -> None:
    both = pair(tmp_path, KINDS["on the head"])
    both.write(ADD)
    upgrade(both.workspace, both.entry)
    both.list_none()
    after, told = image(both.adapter), []
    downgrade(both.workspace, both.entry, "base", on_progress=lambda event: told.append(str(event)))
    assert image(both.adapter) == after
    assert any("1 adapters that went up with it are not listed" in event for event in told)
    both.write(ADD)
    with pytest.raises(DriftError, match="the adapter is at revision"):
        plan(both.workspace, both.entry)


def test_an_adapter_without_a_word_of_its_ids_is_refused_where_ids_moved(tmp_path: Path) -> None:
    both = pair(tmp_path, KINDS["of a list of tokens"])
    both.write(SWAP, ADD)
    both.list_none()
    upgrade(both.workspace, both.entry, "+1")
    both.write(SWAP, ADD)
    with pytest.raises(OutOfStepError, match="it is unknown which of them the adapter uses"):
        upgrade(both.workspace, both.entry)
    shutil.copy(both.model / "tokenizer.json", both.adapter)
    upgrade(both.workspace, both.entry)


@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
@pytest.mark.parametrize("moment", [Step.STAGED, Step.PREPARED, Step.SWAPPED, Step.FOLLOWED, Step.APPLIED])
def test_killed_at_any_step_both_are_before_or_both_after(tmp_path: Path, direction: str, moment: Step) -> None:
    both = pair(tmp_path, KINDS["on both"])
    both.write(ADD)
    base = image(both.model), image(both.adapter)
    if direction == "downgrade":
        upgrade(both.workspace, both.entry)
    start = image(both.model), image(both.adapter)
    assert exit_code(dying_at, tmp_path, direction, moment) == -signal.SIGKILL

    recover_model(both.workspace, both.entry)

    now = image(both.model), image(both.adapter)
    revisions = [
        found.revision for found in (status(both.workspace, both.entry), *status(both.workspace, both.entry).adapters)
    ]
    assert len(set(revisions)) == 1
    if list(Step).index(moment) < list(Step).index(Step.SWAPPED):
        assert now == start
    elif direction == "downgrade":
        assert now == base
    else:
        assert revisions[0] == f"{1:012x}"
    for area in (WorkArea(both.model), WorkArea(both.adapter)):
        assert sorted(path.name for path in area.root.iterdir()) == ["lock"]
    if revisions[0] is None:
        upgrade(both.workspace, both.entry)
    downgrade(both.workspace, both.entry, "base")
    assert (image(both.model), image(both.adapter)) == base


def test_a_change_that_died_between_the_two_is_finished_although_the_adapter_is_not_listed_any_more(
    tmp_path: Path,
) -> None:
    both = pair(tmp_path, KINDS["on both"])
    both.write(ADD)
    assert exit_code(dying_at, tmp_path, "upgrade", Step.SWAPPED) == -signal.SIGKILL
    area = WorkArea(both.model)
    journal = area.read_journal()
    assert journal is not None
    assert [each.model for each in Journal.from_json(journal, area, tmp_path).areas] == [both.model, both.adapter]
    both.list_none()
    recover_model(both.workspace, both.entry)
    assert (both.adapter / "tokmigrate.json").exists()
    assert load_file(both.adapter / "adapter_model.safetensors").keys()


def interrupted_pair(root: Path, adapter: Path | None = None) -> Pair:
    """Make a workspace whose upgrade stopped between the model and the adapter, which lies in it unless it is moved."""
    both = pair(root, KINDS["on both"])
    both.write(ADD)
    if adapter is not None:
        both.adapter.rename(adapter)
    # A workspace that is copied names what lies in it relative to it.
    making.say_of(root, "m", path="model", adapters=[str(adapter or "loras/adapter")])
    with pytest.raises(RecoveryNeededError):
        upgrade(both.workspace, both.entry, on_progress=stopped_at(Step.SWAPPED))
    return both


def stopped_at(moment: Step) -> OnProgress:
    def listen(event: Event) -> None:
        if isinstance(event, StepReached) and event.step is moment:
            raise KeyboardInterrupt

    return listen


def revisions_of(both: Pair) -> tuple[str | None, str | None]:
    return tuple(stamp.revision if (stamp := read_stamp(each)) else None for each in (both.model, both.adapter))  # type: ignore[return-value]


def test_recovery_of_a_copied_workspace_leaves_the_original_alone(tmp_path: Path) -> None:
    both = interrupted_pair(tmp_path / "a")
    shutil.copytree(both.root, tmp_path / "copy", symlinks=True)
    before = image(both.root)
    copy = Pair(tmp_path / "copy")
    assert recover_model(copy.workspace, copy.entry) is RecoveryOutcome.AFTER
    assert image(both.root) == before
    assert revisions_of(copy) == (f"{1:012x}",) * 2
    assert recover_model(both.workspace, both.entry) is RecoveryOutcome.AFTER
    assert revisions_of(both) == (f"{1:012x}",) * 2


def test_a_workspace_that_was_moved_is_recovered(tmp_path: Path) -> None:
    both = interrupted_pair(tmp_path / "a")
    # Not that the adapter is at another revision than its model.
    for look in (status, verify, plan, check, current):
        with pytest.raises(RecoveryNeededError, match="recovery needed"):
            look(*((both.workspace,) if look is not current else ()), both.entry)  # type: ignore[operator]
    both.root.rename(tmp_path / "b")
    moved = Pair(tmp_path / "b")
    assert recover_model(moved.workspace, moved.entry) is RecoveryOutcome.AFTER
    assert revisions_of(moved) == (f"{1:012x}",) * 2
    assert status(moved.workspace, moved.entry).adapters[0].revision == f"{1:012x}"


def test_an_adapter_outside_the_workspace_belongs_to_the_original_and_moves_with_nothing(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    both = interrupted_pair(tmp_path / "a", outside)
    shutil.copytree(both.root, tmp_path / "copy", symlinks=True)
    before = image(both.root), image(outside), sorted((tmp_path / ".outside.tokmigrate").iterdir())
    copy = Pair(tmp_path / "copy")
    told: list[Event] = []
    assert recover_model(copy.workspace, copy.entry, on_progress=told.append) is RecoveryOutcome.AFTER
    assert [str(outside) in event.message for event in told if isinstance(event, Warned)] == [True]
    assert (image(both.root), image(outside), sorted((tmp_path / ".outside.tokmigrate").iterdir())) == before
    # The original may be moved: what it left outside is still its own.
    both.root.rename(tmp_path / "b")
    moved = Pair(tmp_path / "b")
    assert recover_model(moved.workspace, moved.entry) is RecoveryOutcome.AFTER
    stamp = read_stamp(outside)
    assert stamp is not None
    assert stamp.revision == f"{1:012x}"


def test_a_workspace_that_came_from_another_filesystem_takes_its_adapter_along(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    both = interrupted_pair(tmp_path / "a", outside)
    # What `mv` does between filesystems.
    shutil.copytree(both.root, tmp_path / "b", symlinks=True)
    shutil.rmtree(both.root)
    moved = Pair(tmp_path / "b")
    assert recover_model(moved.workspace, moved.entry) is RecoveryOutcome.AFTER
    assert read_stamp(outside) is not None


def test_a_model_that_two_workspaces_list_is_recovered_where_its_adapters_lie(tmp_path: Path) -> None:
    both = pair(tmp_path / "a", KINDS["on both"])
    both.write(ADD)
    model = both.model.rename(tmp_path / "model")
    making.say_of(both.root, "m", path=str(model), adapters=["loras/adapter"])
    with pytest.raises(RecoveryNeededError):
        upgrade(both.workspace, both.entry, on_progress=stopped_at(Step.SWAPPED))
    shutil.copytree(both.root, tmp_path / "copy", symlinks=True)
    before, copy = image(both.root), Pair(tmp_path / "copy")
    with pytest.raises(RecoveryNeededError, match="started in the workspace") as refused:
        recover_model(copy.workspace, copy.entry)
    assert refused.value.hint == f"run `tokmigrate recover` in {both.root}"
    assert image(both.root) == before
    both.root.rename(tmp_path / "b")
    moved = Pair(tmp_path / "b")
    assert recover_model(moved.workspace, moved.entry) is RecoveryOutcome.AFTER
    assert read_stamp(moved.adapter) is not None


def test_a_run_that_another_workspace_recovered_is_on_record_as_it_ended(tmp_path: Path) -> None:
    model = making.llama(tmp_path / "model")
    places = [making.workspace(tmp_path / name, {"m": model}, [{"operations": [ADD]}]) for name in ("a", "b")]
    first, second = ((place.workspace, place.entry("m")) for place in places)
    with pytest.raises(RecoveryNeededError):
        upgrade(*first, on_progress=stopped_at(Step.SWAPPED))
    assert recover_model(*second) is RecoveryOutcome.AFTER
    recover_model(*first)
    state = open_state_if_present(first[0].state, first[0].root)
    assert state is not None
    assert [row.status for row in state.runs(None, None)] == [Status.APPLIED]
    downgrade(*first, "base")


def test_a_plan_fits_the_workspace_where_it_was_moved_to(tmp_path: Path) -> None:
    both = pair(tmp_path / "a", KINDS["on both"])
    both.write(ADD)
    making.say_of(both.root, "m", path="model", adapters=["loras/adapter"])
    made = bind_plan(both.workspace, plan(both.workspace, both.entry))
    both.root.rename(tmp_path / "b")
    moved = Pair(tmp_path / "b")
    upgrade(moved.workspace, moved.entry, bound=made)
    assert read_stamp(moved.adapter) is not None


@pytest.mark.parametrize("options", [{}, {"trainable_token_indices": [TOKENS + 6]}], ids=["matrices", "a row"])
def test_the_hint_for_an_adapter_of_a_resized_model_is_a_way_out(tmp_path: Path, options: dict[str, Any]) -> None:
    """peft saves the matrices of a model that was resized in memory; a model of that size was never saved."""
    both = Pair(tmp_path)
    making.llama(both.model)
    base = transformers.AutoModelForCausalLM.from_pretrained(both.model)
    base.resize_token_embeddings(TOKENS + 7, mean_resizing=False)
    chosen = {"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **options}
    peft.get_peft_model(base, peft.LoraConfig(**chosen)).save_pretrained(
        both.adapter, save_embedding_layers=not options
    )
    both.write({"resize_vocab": {"rows": TOKENS + 7}})
    with pytest.raises(OutOfStepError) as refused:
        status(both.workspace, both.entry)
    hint = refused.value.hint or ""
    assert f"resize_vocab: {{rows: {TOKENS + 7}}}" in hint
    assert "resized in memory" in hint
    both.list_none()
    upgrade(both.workspace, both.entry)
    both.write({"resize_vocab": {"rows": TOKENS + 7}})
    (adapter,) = status(both.workspace, both.entry).adapters
    assert [held.rows for held in adapter.rows] == ([1] if options else [TOKENS + 7] * 2)
    # It fits for peft too.
    both.loaded()


def test_the_hint_for_an_adapter_of_the_model_before_its_migrations_is_a_way_out(tmp_path: Path) -> None:
    both = pair(tmp_path, KINDS["on the head"], spare=0)
    both.write(ADD)
    both.list_none()
    upgrade(both.workspace, both.entry)
    both.write(ADD)
    with pytest.raises(OutOfStepError) as refused:
        status(both.workspace, both.entry)
    assert "downgrade base" in (refused.value.hint or "")
    both.list_none()
    downgrade(both.workspace, both.entry, "base")
    both.write(ADD)
    upgrade(both.workspace, both.entry)
    assert len(status(both.workspace, both.entry).adapters) == 1


@pytest.mark.parametrize("head", ["tied", "untied"])
def test_status_says_which_new_tokens_an_adapter_holds(tmp_path: Path, head: making.Head) -> None:
    both = Pair(tmp_path)
    making.llama(both.model, head=head)
    add = {"add_tokens": {"tokens": ["<x>", "<y>", "<z>"]}}
    both.write(add)
    both.list_none()
    upgrade(both.workspace, both.entry)
    both.write(add)
    new = [TOKENS, TOKENS + 1, TOKENS + 2]
    for options, whole in (({"trainable_token_indices": new}, False), ({"modules_to_save": ["embed_tokens"]}, True)):
        base = transformers.AutoModelForCausalLM.from_pretrained(both.model)
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **options)
        tuned = peft.get_peft_model(base, config)
        text = torch.tensor([[5, TOKENS, 9, 12, TOKENS, 5]])
        trainable = [each for each in tuned.parameters() if each.requires_grad]
        # Untied rows of eight numbers are too short to tell decay from chance. Where peft trains a copy of tied
        # embeddings as input alone, other rows show that only by their decay.
        optimizer = torch.optim.AdamW(trainable, lr=1e-2, weight_decay=0.01 if head == "tied" else 0.0)
        for _ in range(2):
            tuned(input_ids=text, labels=text).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        shutil.rmtree(both.adapter, ignore_errors=True)
        tuned.save_pretrained(both.adapter)
        (adapter,) = status(both.workspace, both.entry).adapters
        (held,) = [each for each in adapter.rows if each.matrix == "model.embed_tokens.weight"]
        assert (held.is_whole, held.rows) == (whole, TOKENS + 3 if whole else 3)
        assert [token.token for token in held.tokens] == ["<x>", "<y>", "<z>"]
        became = {token.token: token.training.value for token in held.tokens}
        # <x> alone is in the text; where the head shares the rows the two others moved with it.
        assert became["<x>"] == "trained"
        assert became["<y>"] == became["<z>"]
        assert became["<y>"] != "trained"
        assert adapter.trained == ("<x>",)
        said = run_here(tmp_path, "status").stdout.replace("\n", " ")
        assert ("all" if whole else "the rows of 3 listed ids") in said
        assert f'"<x>" ({TOKENS}, trained' in " ".join(said.split())
