"""`weights: {isolate_vocab: true}`: vocabulary tensors get a shard of their own, and `downgrade` restores the files."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import pytest
import torch
from dying import STREAMED, dying_at, exit_code
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from test_crash import DIRECTIONS, has_happened
from test_demo import model_of
from test_properties import Chain, Kind, folder, stories, thorough
from test_static_embeddings import COPY, quantized
from workspaces import BASE, Contents, Workspace, contents, image, make_workspace

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.inspect import verify
from tokmigrate.commands.plan import plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.events import Step
from tokmigrate.model.formats.safetensors_header import read_header
from tokmigrate.plan.shard_layout import OTHER_SHARD, VOCABULARY_SHARD
from tokmigrate.settings import ModelEntry
from tokmigrate.settings.workspace import WeightsSetting
from tokmigrate.state.database import open_state

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADD = [{"operations": [{"add_tokens": {"tokens": [token]}}]} for token in ("<one>", "<two>")]


def isolating(entry: ModelEntry) -> ModelEntry:
    return replace(entry, weights=WeightsSetting(isolate_vocab=True))


def make_one_file(directory: Path) -> None:
    """Put the tensors of a model with shards into one file."""
    tensors = making.tensors_of(directory)
    for path in (directory / INDEX, *directory.glob("*.safetensors")):
        path.unlink()
    save_file(tensors, directory / SINGLE, metadata={"format": "pt"})


def make_isolating(root: Path, *, one_file: bool = False) -> Workspace:
    """Return the demo in a workspace with the setting."""
    made = make_workspace(root)
    if one_file:
        make_one_file(made.model)
    made.settings.write_text(made.settings.read_text("utf-8") + "weights: {isolate_vocab: true}\n", "utf-8")
    return made


def tensor_names(path: Path) -> set[str]:
    return {entry.name for entry in read_header(path).entries}


def test_the_new_shards_are_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokmigrate.apply.known_files._FINE_NS", 0)
    place = make_isolating(tmp_path / "w", one_file=True)
    for words, shards in ((("upgrade",), {OTHER_SHARD, VOCABULARY_SHARD}), (("downgrade", BASE), {SINGLE})):
        assert place.run(*words).returncode == 0
        state = open_state(f"sqlite:///{place.root}/.tokmigrate/state.db", place.root)
        (model,) = state.list_models()
        assert state.known_files(model).keys() == shards


@thorough(6)
@given(stories(), st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=4, max_size=6))
def test_any_way_leads_to_the_same_bytes_and_back(story: tuple[Kind, Chain, int], walk: list[tuple[int, bool]]) -> None:
    kind, chain, _ = story
    with folder() as root:
        kind.make(root / "model")
        shutil.copytree(root / "model", root / "plain")
        made = making.workspace(root, {name: root / name for name in ("model", "plain")}, chain.migrations)
        place, entry, base = made.workspace, made.entry("model"), image(root / "model")
        known: dict[tuple[int, bool], Contents] = {}
        at = 0
        for target, isolates in (*walk, (len(chain.migrations), True)):
            here = isolating(entry) if isolates else entry
            number = min(target, len(chain.migrations))
            if number > at:
                upgrade(place, here, made.revisions[number - 1])
            elif number < at:
                assert not downgrade(place, here, made.revisions[number - 1] if number else BASE).semantic_undo
            at = number
            assert not verify(place, here).changed
            is_isolated = (root / "model" / VOCABULARY_SHARD).exists()
            found = contents(root / "model")
            assert known.setdefault((number, is_isolated), found) == found
        upgrade(place, made.entry("plain"))
        plain, found = making.tensors_of(root / "plain"), making.tensors_of(root / "model")
        assert plain.keys() == found.keys()
        assert all(torch.equal(plain[name], found[name]) for name in plain)
        downgrade(place, entry, BASE)
        assert image(root / "model") == base


@pytest.mark.parametrize(("head", "shards"), [("tied", 1), ("untied", 1), ("untied", 3)])
def test_later_migrations_write_only_the_vocabulary(tmp_path: Path, head: making.Head, shards: int) -> None:
    model = making.llama(tmp_path / "model", head=head, shards=shards, spare=3, dtype="bfloat16")
    made = making.workspace(tmp_path, {"m": model}, ADD)
    place, entry = made.workspace, isolating(made.entry("m"))
    before = set(made.root.glob("model/*.safetensors"))
    for path in before:
        path.chmod(0o640)
    vocabulary = {name for name in making.tensors_of(model) if name.startswith(("lm_head", "model.embed_tokens"))}
    first = plan(place, entry, "+1")
    assert f"into {VOCABULARY_SHARD}" in " ".join(first.notes)
    upgrade(place, entry, "+1")
    kinds = {change.name: change.kind for change in first.file_changes()}
    assert kinds[VOCABULARY_SHARD] == "new"
    assert tensor_names(model / VOCABULARY_SHARD) == vocabulary
    assert {path.stat().st_mode & 0o777 for path in model.glob("*.safetensors")} == {0o640}
    if shards == 1:
        assert (kinds[OTHER_SHARD], kinds[SINGLE], kinds[INDEX]) == ("new", "removed", "new")
        assert {path.name for path in model.glob("*.safetensors")} == {VOCABULARY_SHARD, OTHER_SHARD}
        sizes = sum(tensor.nbytes for tensor in making.tensors_of(model).values())
        assert json.loads((model / INDEX).read_text("utf-8"))["metadata"] == {"total_size": sizes}
    else:
        assert before <= {*model.glob("*.safetensors")}
    # Switched off again nothing moves, and the shard is the only one that is written.
    for later in (entry, made.entry("m")):
        second = plan(place, later)
        written = [change.name for change in second.file_changes() if change.name.endswith(".safetensors")]
        assert written == [VOCABULARY_SHARD]
        assert "isolate_vocab" not in " ".join(second.notes)


def test_tensors_that_are_alone_stay_where_they_are(tmp_path: Path) -> None:
    model = making.llama(tmp_path / "model")
    tensors = making.tensors_of(model)
    (model / SINGLE).unlink()
    alone = {name: tensors.pop(name) for name in ("lm_head.weight", "model.embed_tokens.weight")}
    places = {}
    for file, held in (("model-a.safetensors", alone), ("model-b.safetensors", tensors)):
        save_file(held, model / file, metadata={"format": "pt"})
        places |= dict.fromkeys(held, file)
    making.write_json(model / INDEX, {"metadata": {}, "weight_map": places})
    made = making.workspace(tmp_path, {"m": model}, ADD)
    planned = plan(made.workspace, isolating(made.entry("m")))
    assert [change.name for change in planned.file_changes() if change.name.startswith("model")] == [
        "model-a.safetensors"
    ]
    assert not [note for note in planned.notes if "isolate_vocab" in note]


def test_model2vec_keeps_its_one_file(tmp_path: Path) -> None:
    add = {"tokens": ["<same>"], "init": COPY}
    made = making.workspace(tmp_path, {"m": quantized(tmp_path / "model")}, [{"operations": [{"add_tokens": add}]}])
    names = [change.name for change in plan(made.workspace, isolating(made.entry("m"))).file_changes()]
    assert SINGLE in names
    assert VOCABULARY_SHARD not in names


@pytest.mark.parametrize("taken", [VOCABULARY_SHARD, OTHER_SHARD, INDEX])
def test_a_name_that_is_taken(tmp_path: Path, taken: str) -> None:
    place = make_isolating(tmp_path / "w", one_file=True)
    text = json.dumps({"weight_map": {"a": "gone.safetensors"}}) if taken == INDEX else "old"
    (place.model / taken).write_text(text, "utf-8")
    before = image(place.model)
    done = place.run("upgrade")
    assert done.returncode == 1
    assert f"`isolate_vocab` makes a file {taken}" in done.stderr
    assert image(place.model) == before
    (place.model / taken).unlink()
    assert place.run("upgrade").returncode == 0


def test_what_status_and_a_stale_plan_say(tmp_path: Path) -> None:
    place = make_isolating(tmp_path / "w")
    said = place.run("status").stdout
    assert (
        f"with the next migration that changes rows `isolate_vocab` moves 2 vocabulary tensors into {VOCABULARY_SHARD}"
        in said
    )
    assert "of other tensors are written once" in said
    assert place.run("plan", "-o", "plan.json").returncode == 0
    text = place.settings.read_text("utf-8")
    place.settings.write_text(text.replace("true", "false"), "utf-8")
    done = place.run("upgrade", "--plan", "plan.json")
    assert done.returncode == 1
    assert "`isolate_vocab` is off in tokmigrate.yaml now" in done.stderr
    place.settings.write_text(text, "utf-8")
    assert place.run("upgrade", "--plan", "plan.json").returncode == 0
    assert "isolate_vocab" not in place.run("status").stdout


def test_transformers_loads_it_and_removes_its_files_when_it_saves(tmp_path: Path) -> None:
    place = make_isolating(tmp_path / "w", one_file=True)
    place.settings.write_text(place.settings.read_text("utf-8").replace("verify: fast", "verify: full"), "utf-8")
    before, base = making.tensors_of(place.model), image(place.model)
    done = place.run("upgrade")
    assert done.returncode == 0, done.stderr
    loaded = model_of(place.model)
    for name, held in loaded.state_dict().items():
        assert torch.equal(held[: len(before[name])], before[name]), name
    kept = Workspace(Path(shutil.copytree(place.root, tmp_path / "kept")))
    assert kept.run("downgrade", BASE).returncode == 0
    assert image(kept.model) == base

    loaded.save_pretrained(place.model)
    assert {path.name for path in place.model.glob("*.safetensors")} == {SINGLE}
    assert place.run("check").returncode == 0
    assert "by a semantic undo" in place.run("downgrade", BASE).stdout
    after = making.tensors_of(place.model)
    assert all(torch.equal(after[name], held) for name, held in before.items())


@pytest.mark.parametrize("file", [VOCABULARY_SHARD, OTHER_SHARD])
def test_a_trained_model_keeps_its_shards(tmp_path: Path, file: str) -> None:
    place = make_isolating(tmp_path / "w", one_file=True)
    before = making.tensors_of(place.model)
    assert place.run("upgrade").returncode == 0
    with (place.model / file).open("r+b") as shard:
        shard.seek(read_header(place.model / file).data_start)
        shard.write(b"\x01\x3f")
    assert place.run("check").returncode == 0
    assert file in place.run("verify").stdout
    done = place.run("downgrade", BASE)
    assert "by a semantic undo" in done.stdout, done.stderr
    assert {path.name for path in place.model.glob("*.safetensors")} == {VOCABULARY_SHARD, OTHER_SHARD}
    after = making.tensors_of(place.model)
    changed = [name for name, held in before.items() if not torch.equal(held, after[name])]
    assert len(changed) == 1
    index = json.loads((place.model / INDEX).read_text("utf-8"))
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in after.values())
    assert place.run("upgrade").returncode == 0
    assert place.run("verify").returncode == 0


def test_files_that_were_edited(tmp_path: Path) -> None:
    place = make_isolating(tmp_path / "w", one_file=True)
    base = contents(place.model)
    config, index = place.model / "config.json", place.model / INDEX
    assert place.run("upgrade").returncode == 0
    # The shards are those of the migrations, so that only the edit stays.
    making.write_json(config, {**json.loads(config.read_text("utf-8")), "my_key": 1})
    assert "by a semantic undo" in place.run("downgrade", BASE).stdout
    left = contents(place.model)
    assert {name for name in {*base, *left} if base.get(name) != left.get(name)} == {"config.json"}
    # An index that is not the one of the migrations may mean other files.
    assert place.run("upgrade").returncode == 0
    making.write_json(index, {**json.loads(index.read_text("utf-8")), "my_key": 1})
    assert INDEX in place.run("downgrade", BASE).stdout
    assert json.loads(index.read_text("utf-8"))["my_key"] == 1
    assert not (place.model / SINGLE).exists()
    assert making.tensors_of(place.model).keys() == json.loads(index.read_text("utf-8"))["weight_map"].keys()


def test_a_model_saved_in_one_file_again_and_upgraded_without_the_setting(tmp_path: Path) -> None:
    place = make_isolating(tmp_path / "w", one_file=True)
    assert place.run("upgrade", "0002").returncode == 0
    make_one_file(place.model)
    saved = contents(place.model)
    place.settings.write_text(place.settings.read_text("utf-8").replace("true", "false"), "utf-8")
    assert place.run("upgrade").returncode == 0
    assert VOCABULARY_SHARD not in place.run("verify").stdout
    assert place.run("downgrade", "0002").returncode == 0
    assert contents(place.model) == saved
    assert "by a semantic undo" in place.run("downgrade", BASE).stdout


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workspace]:
    """Return a workspace about to go up, and one about to go down."""
    root = tmp_path_factory.mktemp("ends")
    base, head = (make_isolating(root / name, one_file=True) for name in ("base", "head"))
    shutil.copytree(base.model, head.model, dirs_exist_ok=True)
    assert head.run("upgrade").returncode == 0
    return {"upgrade": base, "downgrade": head}


@pytest.mark.parametrize("moment", [STREAMED, Step.PREPARED, Step.SWAPPED, Step.APPLIED])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_killed_while_tensors_change_their_files(
    tmp_path: Path, ends: dict[str, Workspace], direction: str, moment: str
) -> None:
    place = Workspace(Path(shutil.copytree(ends[direction].root, tmp_path / "w")))
    base, head = (contents(ends[name].model) for name in DIRECTIONS)
    before, after = (base, head) if direction == "upgrade" else (head, base)
    assert exit_code(dying_at, place.root, direction, moment) == -signal.SIGKILL
    wanted = after if has_happened(moment) else before
    assert contents(place.model) == wanted
    assert place.run("recover").returncode == 0
    assert contents(place.model) == wanted
    assert place.left_over() == []
    if wanted == head:
        assert place.run("downgrade", BASE).returncode == 0
    assert contents(place.model) == base


def test_the_round_trip_test_and_links_inside_the_directory(tmp_path: Path) -> None:
    place = make_isolating(tmp_path / "w", one_file=True)
    done = place.run("test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.run("upgrade").returncode == 0
    done = place.run("test", "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.run("downgrade", BASE).returncode == 0
    (place.model / "blobs").mkdir()
    (place.model / SINGLE).rename(place.model / "blobs" / "weights")
    (place.model / SINGLE).symlink_to("blobs/weights")
    before: Any = image(place.model)
    assert place.run("upgrade").returncode == 0
    assert (place.model / VOCABULARY_SHARD).is_file()
    assert place.run("downgrade", BASE).returncode == 0
    assert image(place.model) == before
    assert (place.model / SINGLE).is_symlink()
