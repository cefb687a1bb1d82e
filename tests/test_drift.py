"""Changes of a model after it was migrated, each kind for real, and what `check` reports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from test_demo import model_of, tokenizer_of
from test_semantic_undo import trained
from workspaces import HEAD, Workspace, edit, edit_json, image, make_workspace


@pytest.fixture
def place(place_at_head: Workspace) -> Workspace:
    return place_at_head


def change(path: Path, edit: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text("utf-8"))
    edit(document)
    path.write_text(json.dumps(document), "utf-8")


def checked(place: Workspace, code: int) -> tuple[str, dict[str, Any]]:
    """Return what `check` prints and what it says in JSON, after looking at its exit code and that it wrote nothing."""
    before = {path: path.stat().st_mtime_ns for path in place.root.rglob("*")}
    said, told = place.run("check"), place.run("check", "--json")
    assert (said.returncode, told.returncode) == (code, code), said.stdout + said.stderr
    assert {path: path.stat().st_mtime_ns for path in place.root.rglob("*")} == before
    (found,) = json.loads(told.stdout)["models"]
    return said.stdout, found


def times_reported_as_trained(place: Workspace, model: str) -> int:
    """Return how often `blame` has that the token which begins a message was trained."""
    told = place.asked("blame", "<|im_start|>", "--model", model)
    (token,) = told["models"][0]["tokens"]
    return [event["event"] for event in token["events"]].count("trained")


def test_pending_and_up_to_date(tmp_path: Path) -> None:
    made = make_workspace(tmp_path / "w")
    said, found = checked(made, 3)
    assert "at base, 3 pending" in said
    assert len(found["pending"]) == 3
    made.run("upgrade")
    said, _ = checked(made, 0)
    assert said == f"demo: at {HEAD}, up to date\n"


def test_saved_again(place: Workspace) -> None:
    model_of(place.model).save_pretrained(place.model)
    tokenizer_of(place.model).save_pretrained(place.model)
    said, found = checked(place, 0)
    assert "saved again with equivalent content (fine): " in said
    assert {"model.safetensors", "tokenizer_config.json"} <= set(found["resaved"])
    assert found["moved"] == []


def test_trained(place: Workspace) -> None:
    trained(place.model, place.model)
    said, found = checked(place, 0)
    assert "changed by training (fine): " in said
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= set(found["moved"])
    # For each new token it is reported whether it was in the text.
    assert "new tokens trained since init: " in said
    assert {token["token"]: token["training"] for token in found["training"]}["<|pad|>"] in ("moved", "untrained")
    assert found["differences"] == []


def test_ids_and_rules(place: Workspace) -> None:
    def edit(document: Any) -> None:
        vocabulary = document["model"]["vocab"]
        vocabulary["Ġon"], vocabulary["Ġof"] = vocabulary["Ġof"], vocabulary["Ġon"]
        document["normalizer"] = {"type": "NFKC"}

    change(place.model / "tokenizer.json", edit)
    said, found = checked(place, 4)
    assert "the token 'Ġon' has id" in said
    assert 'part normalizer: none → {"type": "NFKC"}' in said
    assert {(each["aspect"], each["subject"]) for each in found["differences"]} == {
        ("moved", "Ġof"),
        ("moved", "Ġon"),
        ("part", "normalizer"),
    }


@pytest.mark.parametrize(
    ("file", "key", "value", "said"),
    [
        ("config.json", "eos_token_id", 5, "id field config.json: eos_token_id"),
        ("tokenizer_config.json", "padding_side", "right", "padding_side"),
        ("tokenizer_config.json", "eos_token", "<|pad|>", "role eos"),
    ],
)
def test_settings(place: Workspace, file: str, key: str, value: Any, said: str) -> None:
    edit_json(place.model / file, **{key: value})
    assert said in checked(place, 4)[0]


def test_a_tokenizer_that_does_not_hang_together(place: Workspace) -> None:
    change(place.model / "tokenizer.json", lambda document: document["added_tokens"].pop(-2))
    said, found = checked(place, 4)
    assert found["broken"] in said
    assert "  more: tokmigrate explain drift\n" in said


def test_a_changed_file_whose_undo_data_is_lost(place: Workspace) -> None:
    file = place.model / "tokenizer_config.json"
    digest = blake3(file.read_bytes()).hexdigest()
    objects = (place.root / ".tokmigrate" / "objects").rglob("*")
    (held,) = (path for path in objects if path.is_file() and digest.endswith(path.name))
    held.unlink()
    edit_json(file, padding_side="right")
    assert "tokenizer_config.json was changed, and its earlier contents are unknown here" in checked(place, 4)[0]


def test_a_stamp_that_is_missing(place: Workspace) -> None:
    (place.model / "tokmigrate.json").unlink()
    said, _ = checked(place, 4)
    assert f"tokmigrate.json is missing; the ledger has the model at {HEAD}" in said
    assert "looks like" not in said
    assert place.run("stamp", "head").returncode == 0
    assert checked(place, 0)[0].startswith(f"demo: at {HEAD}, up to date")


def test_a_stamp_of_another_model(place: Workspace, tmp_path: Path) -> None:
    other = make_workspace(tmp_path / "other")
    edit_json(other.model / "config.json", rope_theta=12345.0)
    assert other.run("upgrade").returncode == 0
    shutil.copy(other.model / "tokmigrate.json", place.model)
    assert "is of another model: its baseline is" in checked(place, 4)[0]


def test_a_stamp_or_a_migration_that_was_edited(place: Workspace) -> None:
    path = place.migration(3)
    edit(path, "side: left", "side: right")
    refused = place.run("check")
    assert refused.returncode == 4
    assert "was edited" in refused.stderr or "was changed" in refused.stderr, refused.stderr
    edit_json(place.model / "tokmigrate.json", reshaped=False)
    assert place.run("check").returncode == 4


def test_a_copy_that_was_trained_elsewhere(place: Workspace, tmp_path: Path) -> None:
    base = make_workspace(tmp_path / "base")
    target = place.root / "models" / "tuned"
    trained(place.model, target)
    edit(place.settings, "verify:", "  tuned: {path: models/tuned}\nverify:")
    learnt = model_of(target).get_input_embeddings().weight.detach()
    taken = place.asked("stamp", "--from", "demo", "--model", "tuned")
    assert (taken["revision"], taken["undoable"]) == (HEAD, True)
    assert "model.embed_tokens.weight" in taken["moved"]
    assert times_reported_as_trained(place, "tuned") == 1
    done = place.run("downgrade", "base", "--model", "tuned")
    assert done.returncode == 0, done.stderr
    assert "by a semantic undo" in done.stdout
    assert times_reported_as_trained(place, "tuned") == 1
    left = model_of(target).get_input_embeddings().weight.detach()
    assert torch.equal(left, learnt[: len(left)])
    assert tokenizer_of(target).get_vocab() == tokenizer_of(base.model).get_vocab()


def test_a_few_of_the_trained_tensors_are_named(place: Workspace) -> None:
    target = place.root / "models" / "tuned"
    trained(place.model, target)
    edit(place.settings, "verify:", "  tuned: {path: models/tuned}\nverify:")
    said = place.run("stamp", "--from", "demo", "--model", "tuned").stdout.splitlines()[1]
    assert re.fullmatch(r"changed since it was migrated: (\d+) tensors: \S+, \S+, \S+ and \d+ more", said)


def test_adopted_again_a_token_is_reported_as_trained_once(place: Workspace) -> None:
    for _ in range(2):
        trained(place.model, place.model)
        (place.model / "tokmigrate.json").unlink()
        assert place.run("stamp", "head").returncode == 0
    assert times_reported_as_trained(place, "demo") == 1


def test_what_is_not_a_copy_is_not_adopted(place: Workspace) -> None:
    target = place.root / "models" / "tuned"
    shutil.copytree(place.model, target)
    (target / "tokmigrate.json").unlink()
    edit_json(target / "tokenizer_config.json", eos_token="<|pad|>")
    edit(place.settings, "verify:", "  tuned: {path: models/tuned}\nverify:")
    refused = place.run("stamp", "--from", "demo", "--model", "tuned")
    assert refused.returncode == 4
    assert "it does not mean what the other model means: role eos" in refused.stderr
    assert "what to do: copy tokenizer_config.json from that model beside these weights" in refused.stderr
    assert not (target / "tokmigrate.json").exists()


def test_a_model_is_adopted_where_it_is_what_the_migrations_say(place: Workspace) -> None:
    shutil.rmtree(place.root / ".tokmigrate")
    (place.model / "tokmigrate.json").unlink()
    done = place.asked("stamp", "head")
    assert (done["revision"], done["undoable"]) == (HEAD, False)
    checked(place, 0)
    back = place.run("downgrade", "base")
    assert back.returncode == 1
    assert "the undo data of" in back.stderr


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d["added_tokens"].pop(), "is not a token"),
        (lambda d: d["added_tokens"][-1].update({"special": False}), "other flags"),
        (lambda d: d["padding"].update({"direction": "Right"}), "padding"),
    ],
)
def test_a_model_that_is_not_there_is_not_adopted(place: Workspace, edit: Callable[[Any], None], said: str) -> None:
    shutil.rmtree(place.root / ".tokmigrate")
    (place.model / "tokmigrate.json").unlink()
    change(place.model / "tokenizer.json", edit)
    refused = place.run("stamp", "head")
    assert refused.returncode == 1
    assert "the model is not at that revision" in refused.stderr
    assert said in refused.stderr
    assert not (place.model / "tokmigrate.json").exists()


def test_a_tag_stands_for_a_revision(place: Workspace) -> None:
    assert place.run("tag", "chat", "0002").stdout == "chat: 9f3c2a7e41b0\n"
    assert place.run("downgrade", "chat").returncode == 0
    assert place.asked("tag")["tags"] == {"chat": "9f3c2a7e41b0"}
    for name in ("head", "base", "9f3c", "0001", "+1", ""):
        assert place.run("tag", name, "head").returncode == 2


def test_a_plan_is_applied_as_it_was_made(tmp_path: Path) -> None:
    made = make_workspace(tmp_path / "w")
    assert made.run("plan", "0002", "-o", "plan.json").returncode == 0
    done = made.run("upgrade", "--plan", "plan.json")
    assert done.returncode == 0, done.stderr
    assert made.run("current").stdout == "demo: 9f3c2a7e41b0\n"
    again = made.run("upgrade", "--plan", "plan.json")
    assert again.returncode == 1
    assert _reason(again) == "the model is at 9f3c2a7e41b0 now, not at base"


def _edited(made: Workspace) -> None:
    path = made.migration(2)
    edit(path, "preset: chatml", "preset: phi")


def _another_file(made: Workspace) -> None:
    edit_json(made.model / "generation_config.json", top_k=3)


def _other_weights(made: Workspace) -> None:
    path = made.model / "model-00001-of-00002.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def _there_and_back(made: Workspace) -> None:
    made.run("upgrade", "0001")
    made.run("downgrade", "base")


def _another_seed(made: Workspace) -> None:
    made.settings.write_text(made.settings.read_text("utf-8") + "seed: 7\n", "utf-8")


def _one_more_between(made: Workspace) -> None:
    text = made.migration(1).read_text("utf-8")
    text = text.replace("3b8f0d5a61c2", "111111111111").replace("null", "3b8f0d5a61c2")
    (made.root / "migrations" / "0001_z.yaml").write_text(text, "utf-8")
    second = made.migration(3)
    edit(second, "n: 3b8f0d5a61c2", "n: 111111111111")


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda made: made.run("upgrade", "0001"), "the model is at 3b8f0d5a61c2 now, not at base"),
        (_edited, "since it was made 9f3c2a7e41b0 was edited"),
        (
            _one_more_between,
            "since it was made 9f3c2a7e41b0 was edited; it leads by 3b8f0d5a61c2, 9f3c2a7e41b0, "
            "and 3b8f0d5a61c2, 111111111111, 9f3c2a7e41b0 would be next",
        ),
        (_another_file, "files of the model were changed: generation_config.json"),
        (_other_weights, "weights of the model were changed: model-00001-of-00002.safetensors"),
        (_there_and_back, "the model was worked on since it was made"),
        (_another_seed, "the workspace has another seed"),
    ],
)
def test_a_stale_plan_is_refused_for_what_is_so(act: Callable[[Workspace], Any], reason: str, tmp_path: Path) -> None:
    made = make_workspace(tmp_path / "w")
    assert made.run("plan", "0002", "-o", "plan.json").returncode == 0
    act(made)
    at = made.run("current").stdout
    done = made.run("upgrade", "--plan", "plan.json")
    assert done.returncode == 1
    assert _reason(done) == reason
    assert made.run("current").stdout == at


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return why a plan is stale, as the one error says."""
    said, hint, more = done.stderr.splitlines()
    assert hint == "what to do: make and review a new one: `tokmigrate plan -o FILE`"
    assert more == "more: tokmigrate explain stale-plan"
    return said.removeprefix("error: demo: the plan is stale: ")


def test_what_is_no_plan(tmp_path: Path) -> None:
    made = make_workspace(tmp_path / "w")
    for words in (["nothing.json"], ["tokmigrate.yaml"], ["models/demo/config.json"], ["tokmigrate.yaml", "head"]):
        refused: subprocess.CompletedProcess[str] = made.run("upgrade", "--plan", *words)
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr


def test_verify_says_that_a_model_was_saved_again(place: Workspace) -> None:
    assert place.run("verify").returncode == 0
    model_of(place.model).save_pretrained(place.model)
    assert not (place.model / "model-00001-of-00002.safetensors").exists()
    done = place.run("verify")
    assert done.returncode == 4, done.stderr
    assert f"demo: {HEAD}, saved again since it was migrated: " in done.stdout
    assert "model-00001-of-00002.safetensors" in done.stdout
    assert "it is equivalent to what its migrations left (`tokmigrate check`)" in done.stdout
    (told,) = json.loads(place.run("verify", "--json").stdout)["models"]
    assert told["same_meaning"] is True
    edit_json(place.model / "tokenizer_config.json", padding_side="right")
    done = place.run("verify")
    assert done.returncode == 4
    assert "changed since it was migrated" in done.stdout


def drifted(root: Path) -> Workspace:
    """Make a workspace whose model has two of three migrations, and a normalizer that none of them set."""
    made = make_workspace(root)
    assert made.run("upgrade", "0002").returncode == 0
    edit_json(made.model / "tokenizer.json", normalizer={"type": "NFKC"})
    return made


def test_nothing_is_planned_or_changed_through_drift(tmp_path: Path) -> None:
    place = drifted(tmp_path / "w")
    before = image(place.model)
    assert place.run("check").returncode == 4
    for words in (
        "plan",
        "plan -o p.json",
        "upgrade",
        "upgrade --json",
        "downgrade -1",
        "downgrade base --json",
        "test",
    ):
        done = place.run(*words.split())
        said = done.stderr + done.stdout
        assert done.returncode == 4, (words, said)
        assert "part normalizer: none" in said
        assert "--accept-drift" in said
        assert image(place.model) == before
    assert place.run("diff", "demo", "head").returncode == 0


def test_drift_that_is_accepted_is_reported_and_stays(tmp_path: Path) -> None:
    place = drifted(tmp_path / "w")
    assert place.run("test", "--accept-drift").returncode == 0
    done = place.run("plan", "--accept-drift", "-o", "p.json")
    assert (done.returncode, "accepted drift: part normalizer" in done.stdout) == (0, True)
    # Who made the plan accepted the drift; nobody has to say it again.
    assert place.run("upgrade", "--plan", "p.json").returncode == 0
    assert place.run("check").returncode == 0
    assert place.run("downgrade", "-1").returncode == 0
    assert place.run("downgrade", "base").returncode == 4
    done = place.run("downgrade", "base", "--accept-drift")
    assert done.returncode == 0, done.stderr
    assert json.loads((place.model / "tokenizer.json").read_text("utf-8"))["normalizer"] == {"type": "NFKC"}
    place.settings.write_text(place.settings.read_text("utf-8") + "drift: accept\n", "utf-8")
    assert place.run("upgrade", "0002").returncode == 0
    edit_json(place.model / "tokenizer.json", normalizer=None)
    assert place.run("check").returncode == 4
    assert place.run("upgrade").returncode == 0


def test_drift_of_one_model_stops_the_change_of_all(tmp_path: Path) -> None:
    place = drifted(tmp_path / "w")
    shutil.copytree(make_workspace(tmp_path / "fresh").model, place.model.with_name("first"))
    models = "models:\n  first: {path: models/first}\n"
    edit(place.settings, "models:\n", models)
    before = image(place.root / "models")
    done = place.run("upgrade")
    assert (done.returncode, "not tried: first" in done.stderr) == (4, True), done.stderr
    assert image(place.root / "models") == before


def test_weights_that_nothing_here_knows_are_no_drift(tmp_path: Path) -> None:
    place = make_workspace(tmp_path / "w")
    assert place.run("upgrade", "0002").returncode == 0
    # As on a machine that got the model and the migrations, and trained it.
    shutil.rmtree(place.root / ".tokmigrate")
    shard = next(place.model.glob("model-00001*"))
    shard.write_bytes(shard.read_bytes()[:-8] + b"\0\0\x80?\0\0\x80?")
    done = place.run("check")
    assert (done.returncode, "trained or saved again since" in done.stdout) == (3, True), done.stdout
    assert place.run("upgrade").returncode == 0
