"""`train`: only the rows of tokens in the data learn, and the migration gives the model that was trained."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from making import TOKENS, built, llama, migrated, per_layer, routed, tensors_of, workspace
from peft import PeftModel
from safetensors import safe_open
from workspaces import REPOSITORY, Workspace, command_line, contents, environment, make_workspace, on_terminal

from tokmigrate.model.worker.corpora import open_corpus
from tokmigrate.render.train import loss_curve
from tokmigrate.training import new_rows, trainer
from tokmigrate.training import train as training
from tokmigrate.training.examples import IGNORED, collect_examples
from tokmigrate.training.loaded_model import load_models

NEW = ["<x>", "<y>", "<z>"]
TEXT = "the <x> in the end\n<y>the <x>of\nthe end\n"
IDS = torch.tensor([[1, 2, TOKENS, 5, TOKENS + 1, TOKENS + 2, 7]])


MAKERS = {
    "untied": llama,
    "tied": lambda path: llama(path, head="tied"),
    "stored twice": lambda path: llama(path, head="stored twice"),
    "bfloat16": lambda path: llama(path, dtype="bfloat16"),
    "bias": lambda path: built(path, "PhiForCausalLM", tie_word_embeddings=False),
}


def make(root: Path, kind: str = "untied") -> Workspace:
    """Return a workspace with a model `m` that has new tokens, and texts with two of them."""
    init = {"strategy": "copy", "token": "the"}
    migrated(root, MAKERS[kind](root / "m"), {"add_tokens": {"tokens": NEW, "init": init}})
    (root / "texts.txt").write_text(TEXT, "utf-8")
    return Workspace(root)


def train(here: Workspace, *words: str) -> dict[str, Any]:
    return here.asked("train", "--data", "texts.txt", "-m", "Learn", "--steps", "4", *words)


def states(here: Workspace) -> dict[str, str]:
    (model,) = here.asked("status")["models"]
    return {token["token"]: token["training"] for token in model["training"]}


def mean_loss(model: Path) -> float:
    """Return the mean loss of the texts, which are all in each batch."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    lines = [torch.tensor([tokenizer(line)["input_ids"]]) for line in TEXT.splitlines()]
    with torch.no_grad():
        losses = [(float(loaded(ids, labels=ids).loss), ids.shape[1] - 1) for ids in lines]
    return sum(loss * count for loss, count in losses) / sum(count for _, count in losses)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_model_after_the_upgrade_is_the_one_that_was_trained(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = make(tmp_path, kind)
    before, files = tensors_of(tmp_path / "m"), contents(tmp_path / "m")
    trained: list[torch.Tensor] = []

    def write_rows(*arguments: Any) -> Path:
        model = next(each for each in arguments if isinstance(each, torch.nn.Module))
        with torch.no_grad():
            trained.append(model(IDS).logits.float())
        return new_rows.write_rows(*arguments)

    monkeypatch.setattr(training, "write_rows", write_rows)
    loss = mean_loss(tmp_path / "m")
    done = train(here)
    assert done["losses"]["1"] == pytest.approx(loss, rel=1e-3)
    assert (done["tokens"], done["absent"]) == (["<x>", "<y>"], ["<z>"])
    assert (done["texts"], done["used"], done["others"]) == (3, 2, 1)
    assert list(done["losses"]) == ["1", "2", "3", "4"]
    assert done["losses"]["4"] < done["losses"]["1"]
    assert contents(tmp_path / "m") == files
    assert not list((tmp_path / ".tokmigrate" / "training").iterdir())
    here.asked("upgrade")
    after = tensors_of(tmp_path / "m")
    sides = {"untied": 2, "bfloat16": 2, "bias": 2, "tied": 1, "stored twice": 2}[kind]
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert len(changed) == sides
    for name in changed:
        rows = [row for row in range(TOKENS + 3) if not torch.equal(after[name][row], before[name][row])]
        assert rows == [TOKENS, TOKENS + 1]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    close = {"rtol": 2**-6, "atol": 2**-6} if kind == "bfloat16" else {"rtol": 1e-5, "atol": 1e-5}
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, trained[-1], **close)
    assert states(here) == {"<x>": "trained", "<y>": "trained", "<z>": "untrained"}
    here.asked("downgrade", "-1")
    assert contents(tmp_path / "m") == files


def test_the_same_settings_give_the_same_rows_and_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    here = make(tmp_path)
    first = train(here)
    files = sorted(path for path in (tmp_path / "migrations").iterdir() if path.suffix == ".safetensors")
    held = [path.read_bytes() for path in files]
    again = train(here)
    assert (again["was_done"], again["path"], again["losses"]) == (True, first["path"], first["losses"])
    assert (
        "this run was done before: migrations/0002_learn.yaml"
        in here.run("train", "--data", "texts.txt", "-m", "Learn", "--steps", "4").stdout
    )
    other = here.run("train", "--data", "texts.txt", "-m", "Learn", "--steps", "5")
    assert other.returncode == 2
    assert "m: migrations are pending: " in other.stderr
    assert "`tokmigrate upgrade` applies it" in other.stderr
    for path in [*files, tmp_path / first["path"]]:
        path.unlink()
    assert not train(here)["was_done"]
    assert [path.read_bytes() for path in files] == held
    with safe_open(files[0], "pt") as file:
        told = json.loads(file.metadata()["tokmigrate"])
    assert (told["command"], told["data"], told["steps"], told["seed"]) == ("train", ["texts.txt"], 4, 0)
    assert told["libraries"]["torch"] == version("torch")
    assert told["losses"] == first["losses"]


def test_only_what_the_steps_read_is_trained(tmp_path: Path) -> None:
    here = make(tmp_path)
    # A text of one token predicts nothing, and after the last token of a text nothing is predicted.
    (tmp_path / "texts.txt").write_text("<z>\n" + "the <x>\n" * 40 + "the <y>of\n", "utf-8")
    done = train(here, "--batch-size", "1")
    assert (done["tokens"], done["absent"]) == (["<x>", "<y>"], ["<z>"])
    assert (done["texts"], done["used"], done["others"]) == (42, 4, 0)
    here.asked("upgrade")
    (model,) = here.asked("status")["models"]
    sides = {token["token"]: token["sides"] for token in model["training"]}
    assert "peft-config` gives" in here.run("status").stdout
    assert sides["<x>"] == {"input": "given", "output": "trained"}
    assert sides["<y>"] == {"input": "trained", "output": "trained"}
    assert set(sides["<z>"].values()) == {"untrained"}


def test_another_field_of_the_data_is_another_run(tmp_path: Path) -> None:
    here = make(tmp_path)
    (tmp_path / "texts.jsonl").write_text('{"text": "the <x> in", "other": "the <y> of"}', "utf-8")
    words = ("train", "--data", "texts.jsonl", "-m", "Learn", "--steps", "1")
    assert here.asked(*words)["tokens"] == ["<x>"]
    assert here.asked(*words)["was_done"]
    other = here.run(*words, "--field", "other")
    assert (other.returncode, "migrations are pending" in other.stderr) == (2, True)


def test_little_memory_divides_a_batch_and_changes_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make(tmp_path)
    whole = train(here)
    (tmp_path / whole["path"]).unlink()
    for path in (tmp_path / "migrations").glob("*.safetensors"):
        path.unlink()
    passes: list[int] = []
    original = trainer.divide_batch

    def divide_batch(*arguments: Any) -> int:
        passes.append(original(*arguments))
        return passes[-1]

    monkeypatch.setattr(trainer, "find_free_memory", lambda _: 0)
    monkeypatch.setattr(trainer, "divide_batch", divide_batch)
    divided = train(here)
    assert passes == [8]
    assert list(divided["losses"].values()) == pytest.approx(list(whole["losses"].values()), abs=2e-4)


def test_a_killed_run_continues_and_gives_the_same_rows(tmp_path: Path) -> None:
    here = make(tmp_path / "w")
    whole = Workspace(tmp_path / "whole")
    shutil.copytree(here.root, whole.root)
    (whole.root / "tokmigrate.yaml").write_text((here.root / "tokmigrate.yaml").read_text().replace("/w/m", "/whole/m"))
    words = ("train", "--data", "texts.txt", "-m", "Learn", "--steps", "400")
    process = subprocess.Popen([*command_line(), *words], cwd=here.root, env=environment())
    while not list((here.root / ".tokmigrate").glob("training/*/checkpoint-*/trainer_state.json")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list((here.root / "migrations").glob("*.yaml"))) == 1
    # A checkpoint that is not complete is passed over.
    (run,) = (here.root / ".tokmigrate" / "training").iterdir()
    (run / "checkpoint-399").mkdir()
    (run / "checkpoint-399" / "trainer_state.json").write_text("{", "utf-8")
    resumed, expected = here.asked(*words), whole.asked(*words)
    assert 0 < resumed["resumed"] < 399
    assert expected["resumed"] == 0
    assert resumed["losses"] == expected["losses"]
    for side in ("input", "output"):
        pair = []
        for root in (here.root, whole.root):
            with safe_open(root / "migrations" / f"0002_learn.{side}.safetensors", "pt") as file:
                pair.append(torch.stack([file.get_tensor(token) for token in ("<x>", "<y>")]))
        assert torch.equal(*pair)


def test_a_run_that_is_killed_after_its_last_step_only_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make(tmp_path)
    first = train(here)
    files = sorted(path for path in (tmp_path / "migrations").iterdir() if path.suffix == ".safetensors")
    held = [path.read_bytes() for path in files]
    for path in [*files, tmp_path / first["path"]]:
        path.unlink()

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "write_rows", stop)
        assert here.run("train", "--data", "texts.txt", "-m", "Learn", "--steps", "4").returncode == 130
    again = train(here)
    assert (again["resumed"], again["losses"]) == (4, first["losses"])
    assert [path.read_bytes() for path in files] == held


def test_an_interrupt_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make(tmp_path)

    def stop(*_: object, checkpoints: Path, **__: object) -> None:
        (checkpoints / "checkpoint-1").mkdir(parents=True)
        (checkpoints / "checkpoint-1" / "trainer_state.json").write_text('{"global_step": 1}', "utf-8")
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "run_trainer", stop)
    done = here.run("train", "--data", "texts.txt", "-m", "Learn")
    assert done.returncode == 130
    assert "the same command continues from the last checkpoint" in done.stderr
    assert len(list((tmp_path / "migrations").glob("*.yaml"))) == 1


def test_chats_go_through_the_template_and_what_users_say_is_not_learned(tmp_path: Path) -> None:
    made = make_workspace(tmp_path)
    here = Workspace(tmp_path)
    shutil.copy(REPOSITORY / "models" / "demo-chat.jsonl", tmp_path / "chat.jsonl")
    chat = [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": "Good day"}]
    (tmp_path / "two.jsonl").write_text(json.dumps({"messages": chat}) + "\n" + json.dumps({"messages": []}), "utf-8")
    words = ("train", "--data", "two.jsonl", "-m", "Learn", "--token", "Ġthe")
    no_template = here.run(*words)
    assert no_template.returncode == 2
    assert "migrations are pending" in no_template.stderr
    shutil.move(tmp_path / "migrations", tmp_path / "later")
    (tmp_path / "migrations").mkdir()
    no_template = here.run(*words)
    assert no_template.returncode == 2
    assert "two.jsonl: these are chats, and the model has no chat template" in no_template.stderr
    assert "set_chat_template" in no_template.stderr
    (tmp_path / "migrations").rmdir()
    shutil.move(tmp_path / "later", tmp_path / "migrations")
    here.asked("upgrade")
    (loaded,) = load_models(made.model)
    with open_corpus([str(tmp_path / "two.jsonl")]) as data:
        (example,) = collect_examples(loaded, data, [1024, 1025], None, 8).items
    learned = [token for token, label in zip(example.ids, example.labels, strict=True) if label != IGNORED]
    decode = loaded.tokenizer.decode
    assert "Hello there<|im_end|>" in decode(list(example.ids), skip_special_tokens=False)
    assert decode(learned, skip_special_tokens=False) == (
        "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\nGood day<|im_end|>\n"
    )
    # A role has the word of a message, a token begins with the space before it, and the template changes the order.
    template = "{% for each in messages[1:] + messages[:1] %}{{ each.role }}: {{ each.content }}\n{% endfor %}"
    held = (made.model / "chat_template.jinja").read_text("utf-8")
    (made.model / "chat_template.jinja").write_text(template, "utf-8")
    chat = [{"role": "assistant", "content": "the day"}, {"role": "user", "content": "user"}]
    (tmp_path / "one.jsonl").write_text(json.dumps({"messages": chat}), "utf-8")
    with open_corpus([str(tmp_path / "one.jsonl")]) as data:
        ids = [loaded.tokenizer.token_to_id("Ġthe")]
        (example,) = collect_examples(loaded, data, ids, None, 8).items
    learned = [token for token, label in zip(example.ids, example.labels, strict=True) if label != IGNORED]
    assert decode(learned) == "user:\nassistant: the day\n"
    (made.model / "chat_template.jinja").write_text(held, "utf-8")
    (tmp_path / "bad.jsonl").write_text('{"messages": [{"role": "user"}]}\n', "utf-8")
    bad = here.run("train", "--data", "bad.jsonl", "-m", "Learn")
    assert bad.returncode == 2
    assert "bad.jsonl:1:1: a message has the texts `role` and `content`" in bad.stderr
    done = here.asked("train", "--data", "chat.jsonl", "-m", "Learn", "--steps", "2")
    assert (done["tokens"], done["absent"]) == (["<|im_start|>", "<|im_end|>"], ["<|pad|>"])


def test_what_cannot_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make(tmp_path)
    (tmp_path / "texts.txt").write_text("the end\n", "utf-8")
    (tmp_path / "list.txt").write_text("<x>\nnosuch\n", "utf-8")
    shutil.copytree(tmp_path / "m", tmp_path / "other")
    words = ("train", "--data", "texts.txt", "-m", "Learn")
    for more, said in (
        ((), "texts.txt: none of the tokens to train occurs in the data\nwhat to do: give texts with '<x>', '<y>', "),
        (("--tokens", "list.txt"), "m: 'nosuch' is not in the vocabulary"),
        (("--tokens", "all"), "all: there is no such file of tokens"),
        (("--token", "<x>", "--model", str(tmp_path / "other")), "a migration is written for a model of the workspace"),
        (("--tokens", "new", "--token", "<x>"), "--tokens new and --token name other tokens"),
        (("--output", "there"), "--output is for an adapter"),
        (("--with-lora", "nosuch.json"), "nosuch.json: there is no such file"),
        *((("--lr", rate), "a learning rate is more than 0") for rate in ("0", "-1", "nan", "inf")),
        (("--message", ""), "a migration needs a message"),
    ):
        done = here.run(*words, *more)
        assert done.returncode in (1, 2)
        assert said in done.stderr
    (tmp_path / "texts.txt").write_text(TEXT, "utf-8")
    (tmp_path / ".tokmigrate" / "training").write_text("in the way", "utf-8")
    unsaved = here.run(*words, "--steps", "3")
    assert (unsaved.returncode, "cannot save the run" in unsaved.stderr) == (1, True), unsaved
    (tmp_path / ".tokmigrate" / "training").unlink()
    diverged = here.run(*words, "--lr", "1e30", "--steps", "3")
    assert (diverged.returncode, "m: training diverged" in diverged.stderr) == (1, True), diverged
    with monkeypatch.context() as broken:
        broken.setitem(sys.modules, "peft", None)
        broken.setattr(new_rows, "find_spec", lambda _: object())
        assert "peft cannot be imported" in here.run(*words).stderr
    monkeypatch.setattr(new_rows, "find_spec", lambda name: None if name == "peft" else object())
    missing = here.run(*words)
    assert missing.returncode == 2
    assert "training needs peft" in missing.stderr
    assert 'pip install "tokmigrate[train]"' in missing.stderr
    assert len(list((tmp_path / "migrations").glob("*.yaml"))) == 1


@pytest.mark.parametrize("maker", [per_layer, routed])
def test_rows_that_no_trainer_of_single_rows_knows(tmp_path: Path, maker: Callable[[Path], Path]) -> None:
    maker(tmp_path / "m")
    workspace(tmp_path, {"m": tmp_path / "m"}, [])
    (tmp_path / "texts.txt").write_text(TEXT, "utf-8")
    done = Workspace(tmp_path).run("train", "--data", "texts.txt", "-m", "Learn", "--token", "the")
    assert done.returncode == 1
    assert "cannot be learned alone" in done.stderr


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_a_lora_is_an_adapter_with_the_rows(tmp_path: Path, kind: str) -> None:
    here = make(tmp_path, kind)
    (tmp_path / "lora.json").write_text('{"r": 2, "target_modules": ["q_proj"], "learning_rate": 0.01}', "utf-8")
    words = ("train", "--data", "texts.txt", "--steps", "3", "--with-lora", "lora.json")
    done = here.run(*words)
    assert done.returncode == 0, done.stderr
    assert "  m:\n    adapters: [m-lora]\n" in done.stdout
    config = json.loads((tmp_path / "m-lora" / "adapter_config.json").read_text("utf-8"))
    ids = [TOKENS, TOKENS + 1]
    assert config["trainable_token_indices"] == {"embed_tokens": ids, **({"lm_head": ids} if kind == "untied" else {})}
    assert "this run was done before" in here.run(*words).stdout
    other = here.run(*words, "--seed", "1")
    assert (other.returncode, "it exists already" in other.stderr) == (2, True)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    plain = base(IDS).logits
    assert not torch.allclose(PeftModel.from_pretrained(base, tmp_path / "m-lora")(IDS).logits, plain)
    settings = json.loads((tmp_path / "tokmigrate.yaml").read_text("utf-8"))
    settings["models"]["m"]["adapters"] = ["m-lora"]
    (tmp_path / "tokmigrate.yaml").write_text(json.dumps(settings), "utf-8")
    (model,) = here.asked("status")["models"]
    assert model["adapters"]
    biased = make(tmp_path / "biased", "bias").run(*words[:-1], str(tmp_path / "lora.json"))
    assert "peft leaves out the bias of an output layer" in biased.stderr
    (tmp_path / "lora.json").write_text('{"nosuch": 2}', "utf-8")
    wrong = here.run(*words, "--output", "other")
    (tmp_path / "lora.json").write_text('{"learning_rate": "fast"}', "utf-8")
    assert "lora.json:1:1: `learning_rate` is not a positive number" in here.run(*words).stderr
    assert (wrong.returncode, "peft refuses the LoRA" in wrong.stderr) == (2, True)


def test_a_terminal_shows_steps_and_a_curve(tmp_path: Path) -> None:
    here = make(tmp_path)
    sent = on_terminal(here, "train", "--data", "texts.txt", "-m", "Learn", "--steps", "30")
    assert "m: training" in sent
    assert " of 30 steps" in sent
    assert "loss in nats per token: " in sent
    assert "Warning" not in sent
    assert "grad_norm" not in sent


def test_the_curve_has_few_lines_and_columns() -> None:
    lines = list(loss_curve({step: 1 / step for step in range(1, 1001)}))
    assert len(lines) == 8
    assert max(map(len, lines)) <= 80
    assert lines[0].endswith("|*")
    assert lines[-1].split() == ["step", "1", "1000"]
    assert list(loss_curve({1: 2.0})) == []
    assert list(loss_curve({1: 2.0, 2: 1.0}))[-1].split() == ["step", "1", "2"]
    assert sum(line.count("*") for line in loss_curve({1: 2.0, 2: 2.0})) == 2
