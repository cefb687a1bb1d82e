"""How each error comes about, on real files: the cause as its page names it, and the command that fails."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from dying import dying, dying_at, exit_code, put_together
from gguf_files import convert
from safetensors.torch import load_file, save_file
from workspaces import BASE, DEMO, HEAD, Workspace, edit, edit_json

from tokmigrate.events import Step


@dataclass(frozen=True)
class Trouble:
    """What goes wrong.

    Args:
        command: The command that fails, without the name of the program.
        fill: What the placeholders of the page stand for here, by their names in capitals.
        then: The exit code of the same command after the remedy; None where the remedy is another command.
        folder: Where the commands are run, below the workspace.
        remedy_code: The exit code of the commands of the remedy.
    """

    command: str
    fill: Mapping[str, str] = field(default_factory=dict)
    then: int | None = 0
    folder: str = "."
    remedy_code: int = 0


Provoke = Callable[[Workspace, pytest.MonkeyPatch], Trouble]


@dataclass(frozen=True)
class Scenario:
    """A cause of an error: the name of its page, the heading of its remedy there, and what brings it about."""

    page: str
    cause: str
    provoke: Provoke


SCENARIOS: list[Scenario] = []


def scenario(page: str, cause: str) -> Callable[[Provoke], Provoke]:
    """Register what brings about a cause of an error."""

    def register(provoke: Provoke) -> Provoke:
        SCENARIOS.append(Scenario(page, cause, provoke))
        return provoke

    return register


# What the scenarios are made of


def succeed(place: Workspace, command: str) -> str:
    """Run a command that has to work, and return what it prints."""
    done = place.run(*command.split())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_migration(place: Workspace, operations: str, revision: str = "4d5e6f708192") -> Path:
    """Write one more migration."""
    return place.add_migration(operations, revision, message="Mine", name="mine")


def add_copy(place: Workspace, name: str = "copy") -> None:
    """Add a copy of the model to the workspace."""
    shutil.copytree(place.model, place.root / "models" / name)
    edit(place.settings, "models:\n", f"models:\n  {name}: {{path: models/{name}}}\n")


def back_up(place: Workspace) -> dict[str, str]:
    """Copy the model, as a backup or a download is, and return the placeholder for it."""
    shutil.copytree(place.model, place.root / "backup")
    return {"BACKUP": "backup"}


def let_gguf_follow(place: Workspace, kind: str = "F16") -> dict[str, str]:
    """List a GGUF of the model as it is, and return the placeholders of its model and file."""
    convert(place.model, place.root / "demo.gguf", kind)
    edit(place.settings, "{path: models/demo}", "{path: models/demo, copies: [{path: demo.gguf, follow: true}]}")
    return {"NAME": "demo", "MODEL": "models/demo", "FILE": "demo.gguf"}


# The scenarios, in the order of `tokmigrate/errors.py`


@scenario("internal", "The program has a bug")
def a_bug(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    monkeypatch.setattr("tokmigrate.revision.history.migration_files", lambda _: 1 / 0)
    return Trouble("history", then=1, remedy_code=1)


@scenario("usage", "The workspace has several models")
def several_models(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    add_copy(place)
    return Trouble("peft-config", {"NAME": "demo"}, then=None)


@scenario("usage", "The command line lacks something, or says too much")
def a_missing_argument(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade")
    return Trouble("downgrade", then=None)


@scenario("usage", "There is no workspace here")
def no_workspace(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    place.settings.unlink()
    return Trouble("status", {"NAME": "demo", "DIRECTORY": "models/demo"})


@scenario("file-problems", "A word in the file is wrong")
def a_misspelled_word(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    write_migration(place, '  - add_tokens: {tokens: [{content: "<|tool|>", specal: true}]}\n')
    return Trouble("validate")


@scenario("file-problems", "The file is not UTF-8")
def not_utf8(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    path = write_migration(place, '  - add_tokens: ["<|café|>"]\n')
    path.write_bytes(path.read_text("utf-8").encode("latin-1"))
    return Trouble("lock", {"FILE": f"migrations/{path.name}", "ENCODING": "latin1"})


@scenario("file-problems", "Git left conflict marks in tokmigrate.lock")
def conflict_marks(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    lock = place.root / "migrations" / "tokmigrate.lock"
    path = write_migration(place, '  - add_tokens: ["<|planner|>"]\n', "be0000000001")
    planner = path.read_text("utf-8")
    succeed(place, "lock")
    ours = lock.read_text("utf-8")
    path.unlink()
    write_migration(place, '  - add_tokens: ["<|critic|>"]\n', "c1e000000001").rename(path.with_name("0004_yours.yaml"))
    succeed(place, "lock")
    path.write_text(planner, "utf-8")
    lock.write_text(f"<<<<<<< HEAD\n{ours}=======\n{lock.read_text('utf-8')}>>>>>>> yours\n", "utf-8")
    return Trouble("validate", {"REVISION": "c1e000000001"})


@scenario("unknown-name", "A revision is misspelled")
def an_unknown_revision(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    return Trouble("upgrade 9f3d", {"REVISION": "9f3c"}, then=None)


@scenario("unknown-name", "A model is misspelled")
def an_unknown_model(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    return Trouble("status -M demmo", {"NAME": "demo"}, then=None)


@scenario("unknown-name", "The vocabulary writes the token in another way")
def an_unknown_token(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade")
    return Trouble('blame "<pad>"', {"TOKEN": "<|pad|>"}, then=None)


@scenario("plugin", "The plug-in does not fit this version of tokmigrate")
def a_plugin(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    environment = place.root / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (site,) = environment.glob("lib/*/site-packages")
    info = site / "shout-1.0.dist-info"
    info.mkdir()
    files = {
        "shout.py": "from tokmigrate.operations.operation import Operation\n\n\nclass Shout(Operation):\n    pass\n",
        f"{info.name}/METADATA": "Metadata-Version: 2.1\nName: shout\nVersion: 1.0\n",
        f"{info.name}/entry_points.txt": "[tokmigrate.operations]\nshout = shout:Shout\n",
        f"{info.name}/INSTALLER": "pip\n",
    }
    files[f"{info.name}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info.name}/RECORD"))
    for name, text in files.items():
        (site / name).write_text(text, "utf-8")
    # The pip of this environment, for that one.
    pip = environment / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec {sys.executable} -m pip --python {environment}/bin/python "$@"\n', "utf-8")
    pip.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pip.parent}:{os.environ['PATH']}")
    monkeypatch.syspath_prepend(site)
    return Trouble("schema", {"PACKAGE": "shout"})


@scenario("history", "Two branches added a migration")
def two_heads(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    write_migration(place, '  - add_tokens: ["<|planner|>"]\n', "be0000000001")
    succeed(place, "lock")
    succeed(place, "upgrade")
    write_migration(place, '  - add_tokens: ["<|critic|>"]\n', "c1e000000001")
    return Trouble("upgrade")


@scenario("history", "The file of a migration is missing")
def a_missing_file(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade")
    place.migration(2).unlink()
    return Trouble("status", {"REVISION": "9f3c2a7e41b0"})


@scenario("model", "A file of the model is damaged")
def damaged_config(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    fill = back_up(place)
    path = place.model / "config.json"
    path.write_bytes(path.read_bytes()[:100])
    return Trouble("upgrade", {**fill, "FILE": "config.json", "MODEL": "models/demo"})


@scenario("model", "A link points outside the directory")
def a_link(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    path = place.model / "generation_config.json"
    path.rename(place.root / "shared.json")
    path.symlink_to("../../shared.json")
    return Trouble("upgrade", {"MODEL": "models/demo", "FILE": path.name})


@scenario("model", "A GGUF that follows stores token rows in another type")
def a_gguf_in_q4(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    return Trouble("upgrade", let_gguf_follow(place, "Q4_0"))


@scenario("missing-model", "The directory was renamed or moved")
def a_moved_model(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    place.model.rename(place.root / "models" / "demo-v1")
    return Trouble("upgrade", {"NAME": "demo", "DIRECTORY": "models/demo-v1"})


@scenario("missing-model", "The model was never downloaded")
def no_model(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    fill = back_up(place)
    shutil.rmtree(place.model)
    return Trouble("status", {**fill, "MODEL": "models/demo"})


@scenario("weights", "A shard is missing or cut off")
def a_missing_shard(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    fill = back_up(place)
    os.truncate(place.model / "model-00001-of-00002.safetensors", 1 << 20)
    return Trouble("plan", {**fill, "FILE": "model-00001-of-00002.safetensors", "MODEL": "models/demo"})


@scenario("weights", "The index of the shards is missing")
def no_index(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    fill = back_up(place)
    (place.model / "model.safetensors.index.json").unlink()
    return Trouble("plan", {**fill, "MODEL": "models/demo"})


@scenario("weights", "Two saves lie in one directory")
def two_saves(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    shutil.copy(place.model / "model-00001-of-00002.safetensors", place.model / "model.safetensors")
    return Trouble("plan", {"MODEL": "models/demo", "FILE": "model.safetensors"})


@scenario("tokenizer", "tokenizer.json is damaged")
def a_damaged_tokenizer(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    fill = back_up(place)
    edit(place.model / "tokenizer.json", '"type": "BPE"', '"type": "BPX"')
    return Trouble("upgrade", {**fill, "MODEL": "models/demo"})


@scenario("tokenizer", "There is no tokenizer.json")
def no_tokenizer(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    fill = back_up(place)
    (place.model / "tokenizer.json").unlink()
    return Trouble("plan", {**fill, "MODEL": "models/demo"})


@scenario("out-of-step", "The tokenizer has more tokens than the weights have rows")
def too_many_tokens(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    fill = back_up(place)
    path = place.model / "tokenizer.json"
    held = json.loads(path.read_text("utf-8"))
    held["added_tokens"].append({**held["added_tokens"][0], "id": 1024, "content": "<|mine|>"})
    path.write_text(json.dumps(held), "utf-8")
    return Trouble("plan", {**fill, "MODEL": "models/demo"})


@scenario("out-of-step", "A field of config.json may hold the id of a token")
def an_unknown_field(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    edit_json(place.model / "config.json", router_token_id=1022)
    write_migration(place, '  - remove_tokens: {tokens: ["Ġapples"], ids: compact, acknowledge: breaking}\n')
    return Trouble("plan", {"NAME": "demo", "MODEL": "models/demo", "FIELD": "router_token_id"})


@scenario("out-of-step", "A GGUF that follows is of another state of the model")
def an_old_gguf(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    fill = let_gguf_follow(place)
    with_gguf = place.settings.read_text("utf-8")
    place.settings.write_text(with_gguf.replace(", copies: [{path: demo.gguf, follow: true}]", ""), "utf-8")
    succeed(place, "upgrade 0002")
    place.settings.write_text(with_gguf, "utf-8")
    return Trouble("upgrade", fill)


@scenario("unexplained-tensor", "The tensor has nothing to do with tokens")
def an_unexplained_tensor(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    add_tensor(place.model / "model-00002-of-00002.safetensors", "router.weight")
    return Trouble("plan", {"NAME": "demo", "MODEL": "models/demo", "TENSOR": "router.weight"})


@scenario("unexplained-tensor", "The tensor has a row for each token")
def a_second_head(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    add_tensor(place.model / "model-00002-of-00002.safetensors", "medusa.weight")
    return Trouble("plan", {"NAME": "demo", "MODEL": "models/demo", "TENSOR": "medusa.weight"})


def add_tensor(path: Path, name: str) -> None:
    """Put a tensor of vocabulary size into a shard and the index."""
    save_file({**load_file(path), name: torch.zeros(1024, 128, dtype=torch.bfloat16)}, path, metadata={"format": "pt"})
    index = path.parent / "model.safetensors.index.json"
    held = json.loads(index.read_text("utf-8"))
    held["weight_map"][name] = path.name
    del held["metadata"]
    index.write_text(json.dumps(held), "utf-8")


@scenario("operation", "The operation is breaking, and nobody said that it is intended")
def not_acknowledged(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    write_migration(place, '  - reinit_tokens: {tokens: ["Ġvalley"], init: {strategy: mean}}\n')
    return Trouble("upgrade")


@scenario("operation", "The token is there already")
def a_token_twice(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    write_migration(place, '  - add_tokens: {tokens: ["<|endoftext|>"]}\n')
    return Trouble("upgrade")


@scenario("operation", "An adapter uses a token that goes")
def an_adapter_with_the_row(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    adapter = place.root / "lora"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "trainable_token_indices": {"embed_tokens": [1020]}}
    (adapter / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    save_file({name: torch.zeros(1, 128)}, adapter / "adapter_model.safetensors")
    edit(place.settings, "{path: models/demo}", "{path: models/demo, adapters: [lora]}")
    write_migration(place, '  - remove_tokens: {tokens: ["Ġapples"], ids: compact, acknowledge: breaking}\n')
    return Trouble("upgrade", {"NAME": "demo", "MODEL": "models/demo"})


@scenario("operation", "The token is missing")
def a_missing_token(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    write_migration(place, '  - set_special_tokens: {eos: "<|im_ends|>"}\n')
    return Trouble("upgrade")


@scenario("storage", "Something that is no file lies in the model directory")
def a_pipe(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    os.mkfifo(place.model / "commands")
    return Trouble("upgrade", {"MODEL": "models/demo", "FILE": "commands"})


@scenario("storage", "The model is in the cache of Hugging Face")
def a_cache(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    cache = place.root / "hub" / "models--ada--demo"
    snapshot = cache / "snapshots" / "1f2e"
    (cache / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in list(place.model.iterdir()):
        shutil.move(path, cache / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    place.model.rmdir()
    edit(place.settings, "models/demo", "hub/models--ada--demo/snapshots/1f2e")
    return Trouble(
        "upgrade", {"SNAPSHOT": "hub/models--ada--demo/snapshots/1f2e", "NAME": "demo", "MODEL": "models/demo"}
    )


@scenario("storage", "The journal of an interrupted change is damaged")
def a_damaged_journal(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    kill_upgrade(place)
    (place.area / "journal").write_text("{", "utf-8")
    return Trouble("recover", {"WORKAREA": "models/.demo.tokmigrate"})


@scenario("verification", "The case is wrong")
def a_wrong_case(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    write_migration(place, '  - add_tokens: ["<|tool|>"]\nverify:\n  - single_token: "<|tools|>"\n')
    return Trouble("upgrade")


@scenario("verification", "transformers cannot load the model")
def an_unknown_activation(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    edit_json(place.model / "config.json", hidden_act="nothing of the kind")
    edit(place.settings, "verify: fast", "verify: full")
    return Trouble("upgrade")


@scenario("limit", "The model needs more than the setting allows")
def too_little_memory(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    settings = place.settings.read_text("utf-8").replace("verify: fast", "verify: full")
    place.settings.write_text(f"{settings}worker: {{memory_mib: 400}}\n", "utf-8")
    write_migration(place, """  - set_chat_template: "{{ 'x' * 106000000 }}"\n""")
    return Trouble("upgrade")


@scenario("undo", "The undo data was deleted")
def no_undo_data(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade")
    (place.root / ".tokmigrate" / "objects").rename(place.root / "saved")
    return Trouble(f"downgrade {BASE}", {"BACKUP": "saved"})


@scenario("undo", "The model does not have that revision")
def not_applied(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade 0002")
    return Trouble(f"downgrade {HEAD}", {"REVISION": "0001"}, then=None)


@scenario("undo", "The model was upgraded in another workspace")
def another_workspace(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade")
    (place.root / "other").mkdir()
    shutil.copytree(place.root / "migrations", place.root / "other" / "migrations")
    other = Workspace(place.root / "other")
    other.settings.write_text(place.settings.read_text("utf-8").replace("models/demo", "../models/demo"), "utf-8")
    return Trouble(f"downgrade {BASE}", {"WORKSPACE": ".."}, then=1, folder="other")


@scenario("undo", "The model is a copy of one that was upgraded here")
def a_copy(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade")
    add_copy(place)
    fill = {"MODEL": "models/copy", "SOURCE": "demo", "NAME": "copy"}
    return Trouble(f"downgrade {BASE} -M copy", fill)


@scenario("undo", "A GGUF did not follow a migration that is undone")
def a_gguf_converted_later(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade")
    return Trouble("downgrade base", let_gguf_follow(place))


@scenario("already-there", "The model is there")
def already_there(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    return Trouble(f"downgrade {BASE}", then=1)


@scenario("drift", "A migration was edited after it was applied")
def an_edited_migration(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade")
    edit(place.migration(3), "side: left", "side: right")
    return Trouble("upgrade", {"REVISION": HEAD})


@scenario("drift", "The stamp is missing")
def no_stamp(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade")
    (place.model / "tokmigrate.json").unlink()
    return Trouble("upgrade", {"REVISION": HEAD, "NAME": "demo"})


@scenario("drift", "The original model was put in its place")
def the_original_again(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    original = shutil.copytree(place.model, place.root / "original")
    succeed(place, "upgrade")
    shutil.rmtree(place.model)
    original.rename(place.model)
    return Trouble("upgrade", {"NAME": "demo"})


@scenario("drift", "The stamp is damaged")
def a_damaged_stamp(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade")
    (place.model / "tokmigrate.json").write_text("{", "utf-8")
    return Trouble("check", {"MODEL": "models/demo", "NAME": "demo", "REVISION": HEAD})


@scenario("drift", "The stamp is of another model")
def a_wrong_stamp(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    add_copy(place)
    edit_json(place.root / "models" / "copy" / "generation_config.json", top_k=5)
    succeed(place, "upgrade 0002")
    shutil.copy(place.root / "models" / "copy" / "tokmigrate.json", place.model)
    return Trouble("upgrade -M demo", {"MODEL": "models/demo", "NAME": "demo", "REVISION": "0002"})


@scenario("drift", "A migration precedes those that the model has")
def a_migration_in_between(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    add_copy(place, "other")
    edit(place.migration(2), "message:", "models: [other]\nmessage:")
    succeed(place, "upgrade -M demo")
    edit(place.migration(2), "[other]", '["*"]')
    return Trouble("upgrade -M demo")


def edit_by_hand(place: Workspace) -> Trouble:
    """Give the end of a text to another token."""
    succeed(place, "upgrade 0002")
    fill = back_up(place)
    edit_json(place.model / "tokenizer_config.json", eos_token="<|endoftext|>")
    return Trouble("upgrade", {**fill, "FILE": "tokenizer_config.json", "MODEL": "models/demo", "NAME": "demo"})


@scenario("drift", "The model was edited, and that was a mistake")
def edited_by_mistake(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    return edit_by_hand(place)


@scenario("drift", "The model was edited, and that is to stay")
def edited_on_purpose(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    return edit_by_hand(place)


@scenario("format", "An older tokmigrate wrote the file")
def an_old_plan(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "plan -o plan.json")
    edit_json(place.root / "plan.json", format=1)
    return Trouble("upgrade --plan plan.json", {"FILE": "plan.json"})


@scenario("format", "An older tokmigrate wrote the state")
def an_old_state(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade")
    with closing(sqlite3.connect(place.root / ".tokmigrate" / "state.db")) as state, state:
        state.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    return Trouble("check")


@scenario("stale-plan", "The model or a migration was changed since")
def a_stale_plan(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "plan -o plan.json")
    succeed(place, "upgrade 0001")
    return Trouble("upgrade --plan plan.json", {"FILE": "plan.json"})


@scenario("busy", "Another command works on the model")
def a_locked_model(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    threading.Timer(1, os.close, (hold_lock(place),)).start()
    return Trouble("upgrade")


def hold_lock(place: Workspace) -> int:
    """Take the lock of the model as another process does, and return its descriptor."""
    place.area.mkdir(exist_ok=True)
    descriptor = os.open(place.area / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, b'{"pid": 4242, "host": "studio"}')
    return descriptor


@scenario("recovery-needed", "A command was killed while it changed the model")
def a_killed_upgrade(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    kill_upgrade(place)
    return Trouble("check")


def kill_upgrade(place: Workspace) -> None:
    """Kill an upgrade in a process of its own, just after the new model is in place."""
    assert exit_code(dying_at, place.root, "upgrade", Step.SWAPPED) == -signal.SIGKILL


@scenario("recovery-needed", "A command was killed while it wrote the migrations")
def a_killed_squash(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    assert exit_code(dying, put_together, place.root, 6) == -signal.SIGKILL
    return Trouble("history")


@scenario("recovery-needed", "Someone changed the model after the interruption")
def a_changed_model(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    succeed(place, "upgrade 0001")
    kill_upgrade(place)
    shutil.rmtree(place.model)
    shutil.copytree(DEMO, place.model)
    return Trouble("recover", {"WORKAREA": "models/.demo.tokmigrate"})


@scenario("stopped", "Ctrl-C, or a scheduler that ends its jobs")
def a_stop(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    descriptor = hold_lock(place)

    def stop() -> None:
        # Before the command handles the signal, it would end this process.
        while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)
        os.close(descriptor)

    threading.Thread(target=stop, daemon=True).start()
    return Trouble("upgrade --lock-timeout 60")


# What leads to an exit code without an error, and to others by another way


def pending(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    """Leave the migrations pending, as they are."""
    return Trouble("check")


def edited_at_the_head(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Trouble:
    """Give the end of a text to another token, after all migrations."""
    succeed(place, "upgrade")
    fill = back_up(place)
    edit_json(place.model / "tokenizer_config.json", eos_token="<|endoftext|>")
    return Trouble("check", {**fill, "FILE": "tokenizer_config.json", "MODEL": "models/demo"})


EXIT_CODE_SCENARIOS: Mapping[int, Provoke] = {3: pending, 4: edited_at_the_head, 5: a_killed_upgrade, 130: a_stop}
