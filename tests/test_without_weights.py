"""Of a model only tokenizer and configuration are here: what a team does with migrations goes on without weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import making
import pytest
from test_rebase import forked, tokens
from workspaces import Workspace, contents, edit_json

from tokmigrate.commands.lock import update_lock
from tokmigrate.commands.roundtrip import run_roundtrip
from tokmigrate.commands.squash import squash
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import VerificationError, WeightsError
from tokmigrate.model.dummy_model import lacks_weights, make_dummy_without_weights
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.settings import ModelEntry

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
KINDS: dict[str, Callable[[Path], Path]] = {
    "untied": making.llama,
    "tied": lambda path: making.llama(path, head="tied", dtype="bfloat16"),
    "stored twice": lambda path: making.llama(path, head="stored twice"),
    "spare rows": lambda path: making.llama(path, spare=7, shards=2),
    "a bias": making.phi,
    "an encoder": making.bert,
    "another axis": making.bart,
    "input rows only": making.mllama,
    "a table of layers": making.per_layer,
    "rows behind": making.tailed,
    "a table of integers": making.routed,
}


HEADS = {
    "a bias": {"num_attention_heads": 2},
    "an encoder": {"num_attention_heads": 2},
    "another axis": {"encoder_attention_heads": 2, "decoder_attention_heads": 2},
    "input rows only": {
        "architectures": ["MllamaForCausalLM"],
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
    },
}
"""What a configuration has to say besides for transformers to build the model."""


def take_away(model: Path) -> None:
    """Remove the weights of a model."""
    for path in model.glob("*.safetensors*"):
        path.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_a_dummy_model_without_weights_has_the_state_of_the_model(tmp_path: Path, kind: str) -> None:
    entry = ModelEntry("m", KINDS[kind](tmp_path / "model"))
    edit_json(entry.path / "config.json", **HEADS.get(kind, {}))
    whole = take_snapshot(entry).state
    take_away(entry.path)
    assert lacks_weights(entry.path)
    made = take_snapshot(make_dummy_without_weights(entry, tmp_path / "made")).state
    assert (made.rows, made.lineage, made.baseline_tokens, made.init) == (
        whole.rows,
        whole.lineage,
        whole.baseline_tokens,
        whole.init,
    )
    assert made.traits == whole.traits
    assert made.tokenizer.ids == whole.tokenizer.ids
    assert made.documents == {name: held for name, held in whole.documents.items() if "index" not in name}


def test_it_takes_no_room(tmp_path: Path) -> None:
    entry = ModelEntry("m", making.llama(tmp_path / "model"))
    take_away(entry.path)
    edit_json(entry.path / "config.json", hidden_size=1 << 20)
    made = make_dummy_without_weights(entry, tmp_path / "made")
    status = (made.path / "model.safetensors").stat()
    assert status.st_size > 2 << 30
    assert status.st_blocks * 512 < 1 << 20


def test_a_squash_is_proven_on_a_dummy_model_and_says_so(tmp_path: Path) -> None:
    added = [{**tokens(f"<{word}>"), "init": {"strategy": "normal"}} for word in "abc"]
    for name in ("whole", "bare"):
        made = making.workspace(tmp_path / name, {"m": tmp_path / name / "m"}, added)
        making.llama(tmp_path / name / "m")
        update_lock(made.workspace, [made.entry("m")], None)
    take_away(tmp_path / "bare" / "m")
    here = Workspace(tmp_path / "bare")
    told = here.run("squash", "1:3")
    assert told.returncode == 0, told.stderr
    assert "the same result on a dummy model of m (its weights are not here): files, rows" in told.stdout
    whole = making.Made(tmp_path / "whole", made.revisions)
    done = squash(whole.workspace, [whole.entry("m")], "1", "3")
    assert done.trials == {"m": "model"}
    assert contents(tmp_path / "bare" / "migrations") == contents(tmp_path / "whole" / "migrations")
    assert here.run("validate").returncode == 0


def test_a_squash_names_what_it_was_tried_on_in_json(tmp_path: Path) -> None:
    models = {name: making.llama(tmp_path / name) for name in ("one", "two")}
    making.workspace(tmp_path, models, [tokens("<a>"), tokens("<b>")])
    take_away(models["two"])
    assert Workspace(tmp_path).asked("squash", "1:2")["tried_on"] == [
        {"model": "one", "subject": "model"},
        {"model": "two", "subject": "dummy"},
    ]


def test_a_rebase_promises_the_same_ids_without_weights(tmp_path: Path) -> None:
    locks = []
    for name in ("whole", "bare"):
        forked(tmp_path / name, tokens("<ours>"), tokens("<theirs>"))
        if name == "bare":
            take_away(tmp_path / name / "model")
        told = Workspace(tmp_path / name).run("rebase", "bbbb")
        assert told.returncode == 0, told.stderr
        assert "note" not in told.stdout
        locks.append((tmp_path / name / "migrations" / "tokmigrate.lock").read_bytes())
    assert locks[0] == locks[1]
    assert b'"<theirs>"' in locks[0]


@pytest.mark.parametrize("steps", [0, 1])
def test_migrations_are_tried_and_linted(tmp_path: Path, steps: int) -> None:
    making.llama(tmp_path / "m", shards=2)
    made = making.workspace(tmp_path, {"m": tmp_path / "m"}, [tokens("<a>"), tokens("<b>"), tokens("<a>")])
    if steps:
        upgrade(made.workspace, made.entry("m"), "+1")
    take_away(tmp_path / "m")
    told = made.run("lint")
    assert "'<a>' exists already" in told.stdout, told
    assert "not looked at" not in told.stderr
    (tmp_path / "migrations" / "0003_step_3.yaml").unlink()
    told = made.run("test")
    assert told.returncode == 0, told.stderr
    assert "passed" in told.stdout
    assert "its weights are not here: the dummy model has the shapes that its configuration gives them" in told.stdout
    assert made.asked("test")["models"][0]["made_of"] == "configuration"
    assert run_roundtrip(made.workspace, made.entry("m")).migrations[0].revision == made.revisions[steps]


@pytest.mark.parametrize("pointers", [False, True])
def test_what_needs_weights_says_what_does_not(tmp_path: Path, pointers: bool) -> None:
    model = making.llama(tmp_path / "m")
    making.workspace(tmp_path, {"m": model}, [tokens("<a>"), tokens("<b>")])
    take_away(model)
    if pointers:
        (model / "model.safetensors").write_text(POINTER, "utf-8")
    here = Workspace(tmp_path)
    for words in (("plan",), ("upgrade",), ("status",)):
        told = here.run(*words)
        assert told.returncode == 1, words
        assert ("git lfs pull" if pointers else "no weights") in told.stderr
        assert "without weights there are `lint`, `lock`, `rebase`, `squash` and `test`" in told.stderr
    assert here.run("squash", "1:2").returncode == 0


def test_a_model_past_the_range_cannot_be_thought_back_without_weights(tmp_path: Path) -> None:
    model = making.llama(tmp_path / "m")
    made = making.workspace(tmp_path, {"m": model}, [tokens("<a>"), tokens("<b>")])
    upgrade(made.workspace, made.entry("m"))
    take_away(model)
    told = made.run("squash", "1:2")
    assert (told.returncode, "no model here to try it on" in told.stderr) == (1, True)


def test_what_transformers_does_not_know_is_reported(tmp_path: Path) -> None:
    model = making.llama(tmp_path / "m")
    take_away(model)
    edit_json(model / "config.json", model_type="of_my_own")
    with pytest.raises(WeightsError, match="weights are not here, and what shapes they have is not known") as caught:
        make_dummy_without_weights(ModelEntry("m", model), tmp_path / "made")
    assert caught.value.hint == "fetch the weights"
    making.write_json(model / "config.json", {"model_type": "llama", "num_attention_heads": "many"})
    with pytest.raises(VerificationError):
        make_dummy_without_weights(ModelEntry("m", model), tmp_path / "made")


def test_one_model_that_cannot_be_asked_takes_no_promise_from_the_others(tmp_path: Path) -> None:
    forked(tmp_path, tokens("<ours>"), tokens("<theirs>"))
    other = Path(shutil.copytree(tmp_path / "model", tmp_path / "other"))
    take_away(other)
    edit_json(other / "config.json", model_type="of_my_own")
    making.say_of(tmp_path, "other", path="other")
    told = Workspace(tmp_path).run("rebase", "bbbb")
    assert told.returncode == 0, told.stderr
    assert "note: other adds no ids: " in told.stdout
    assert '"<theirs>" id' in told.stdout
