"""Symbolic links, owners and attributes of a model's files: kept through a change, or the change is refused."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path

import pytest
from workspaces import Workspace

SHARD = "model-00001-of-00002.safetensors"
Tree = dict[str, tuple[str, int, int, bytes | str]]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def tree(directory: Path) -> Tree:
    """Return all of a directory: kind, mode, time and contents of each entry, links not followed."""
    found: Tree = {}
    for path in sorted((directory, *directory.rglob("*"))):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        name = str(path.relative_to(directory))
        if kind == stat.S_IFLNK:
            found[name] = ("link", 0, status.st_mtime_ns, str(path.readlink()))
        elif kind == stat.S_IFDIR:
            found[name] = ("directory", status.st_mode, 0, "")
        else:
            found[name] = ("file", status.st_mode, status.st_mtime_ns, path.read_bytes())
    return found


def behind_link(directory: Path, name: str, target: str) -> None:
    """Put a file into another place of the directory, and a link in its own."""
    real = directory / target
    real.parent.mkdir(parents=True, exist_ok=True)
    (directory / name).rename(real)
    (directory / name).symlink_to(os.path.relpath(real, (directory / name).parent))


def runs(place: Workspace, *words: str) -> str:
    done = place.run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# Links


def test_links_inside_the_directory_stay_links(place: Workspace) -> None:
    behind_link(place.model, "tokenizer.json", "real.json")
    behind_link(place.model, "config.json", "parts/more/config.json")
    behind_link(place.model, "model.safetensors.index.json", "index/i.json")
    behind_link(place.model, SHARD, "weights.bin")
    behind_link(place.model, "tokenizer_config.json", "hop")
    behind_link(place.model, "hop", "parts/tokenizer_config.json")
    (place.model / "latest").symlink_to("parts")
    (place.model / "real.json").chmod(0o640)
    before = tree(place.model)
    runs(place, "upgrade")
    after = tree(place.model)
    links = {name: held for name, held in before.items() if held[0] == "link"}
    assert len(links) == 7
    assert {name: held for name, held in after.items() if held[0] == "link"} == links
    assert after["real.json"] != before["real.json"]
    assert after["real.json"][1] == before["real.json"][1]
    assert after.keys() - before.keys() == {"chat_template.jinja", "tokmigrate.json"}
    runs(place, "verify")
    assert "every byte verified" in runs(place, "downgrade", "base")
    assert tree(place.model) == before


def test_a_link_that_was_replaced_since_comes_back(place: Workspace) -> None:
    behind_link(place.model, "tokenizer.json", "real.json")
    before = tree(place.model)
    runs(place, "upgrade")
    data = (place.model / "tokenizer.json").read_bytes()
    (place.model / "tokenizer.json").unlink()
    (place.model / "tokenizer.json").write_bytes(data)
    runs(place, "downgrade", "base")
    assert tree(place.model) == before


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("tokenizer.json", "{outside}/x", "is a link that points outside the model's directory"),
        ("tokenizer.json", "../../x", "is a link that points outside the model's directory"),
        ("generation_config.json", "{model}/real", "is a link that is absolute"),
        ("config.json", "../demo/real", "is a link that is absolute, or points outside the model's directory and back"),
        (SHARD, "../demo/real", "is a link that is absolute, or points outside the model's directory and back"),
        ("model.safetensors.index.json", "{outside}/x", "is a link that points outside the model's directory"),
        ("chat_template.jinja", "nowhere", "is a dangling link"),
        ("special_tokens_map.json", "special_tokens_map.json", "Too many levels of symbolic links"),
        ("special_tokens_map.json", "tokenizer_config.json", "are one file"),
        ("tokmigrate.json", "nowhere", "is a dangling link"),
    ],
)
def test_other_links_are_refused(place: Workspace, name: str, target: str, reason: str) -> None:
    path = place.model / name
    to = target.format(outside=place.root, model=place.model)
    real = Path(os.path.normpath(place.model / to))
    if path.exists():
        path.rename(real)
    path.symlink_to(to)
    before = tree(place.root / "models")
    for words in (("plan",), ("upgrade",)):
        done = place.run(*words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert reason in done.stderr
        assert "what to do: " in done.stderr
    assert tree(place.root / "models") == before


def test_a_cache_snapshot_is_refused_with_the_remedy(place: Workspace, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--o--n" / "snapshots" / "0123"
    (snapshot.parents[1] / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(place.model.iterdir())):
        path.rename(snapshot.parents[1] / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    place.model.rmdir()
    place.model.symlink_to(snapshot)
    before = tree(tmp_path / "hub")
    done = place.run("upgrade")
    assert (done.returncode, "a Hugging Face cache snapshot is refused" in done.stderr) == (1, True), done.stderr
    assert tree(tmp_path / "hub") == before
    # The remedy works.
    place.model.unlink()
    shutil.copytree(snapshot, place.model)
    runs(place, "upgrade")


def test_links_among_the_files_of_an_adapter(place: Workspace) -> None:
    adapter = place.root / "lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "trainable_token_indices": [3]}\n', "utf-8")
    header = b'{"x.lora_A.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (adapter / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    settings = place.settings.read_text("utf-8")
    place.settings.write_text(settings.replace("{path: models/demo}", "{path: models/demo, adapters: [lora]}"), "utf-8")
    behind_link(adapter, "adapter_config.json", "real.json")
    before = tree(adapter)
    runs(place, "upgrade")
    assert (adapter / "adapter_config.json").is_symlink()
    assert (adapter / "tokmigrate.json").exists()
    runs(place, "downgrade", "base")
    assert tree(adapter) == before
    (adapter / "real.json").rename(place.root / "real.json")
    (adapter / "adapter_config.json").unlink()
    (adapter / "adapter_config.json").symlink_to("../real.json")
    assert "points outside the model's directory" in place.run("upgrade").stderr


# Owners and attributes


def without_the_right_to_give(place: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as one who may write every file, and may not give files away."""
    limits = ("setpriv", "--bounding-set=-chown", "--inh-caps=-chown")
    if shutil.which("setpriv") is None or subprocess.run([*limits, "true"], check=False).returncode:
        pytest.skip("capabilities cannot be dropped here")
    return place.run_process(*words, before=limits)


def owners(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(directory)): (path.lstat().st_uid, path.lstat().st_gid)
        for path in (directory, *directory.rglob("*"))
    }


@needs_root
@pytest.mark.parametrize("given", ["directory", "group"])
def test_an_owner_that_cannot_be_kept_is_reported_before_anything_changes(place: Workspace, given: str) -> None:
    names = {"directory": ".", "document": "tokenizer.json", "shard": SHARD, "group": "config.json"}
    os.chown(place.model / names[given], 0 if given == "group" else 1234, 2345)
    before, owned = tree(place.model), owners(place.model)
    done = without_the_right_to_give(place, "upgrade")
    assert done.returncode == 1, done.stderr
    assert f"{names[given]} (owner {'0' if given == 'group' else '1234'}:2345)" in done.stderr
    assert "`--no-owner` continues without them" in done.stderr
    assert place.left_over() == []
    assert (tree(place.model), owners(place.model)) == (before, owned)
    # Root, who may give files away, keeps them both ways.
    runs(place, "upgrade")
    assert {name: owners(place.model)[name] for name in owned} == owned
    runs(place, "downgrade", "base")
    assert owners(place.model) == owned


@needs_root
def test_going_on_without_the_owner_is_reported(place: Workspace) -> None:
    os.chown(place.model / "tokenizer.json", 1234, 2345)
    before = tree(place.model)
    done = without_the_right_to_give(place, "upgrade", "--no-owner")
    assert done.returncode == 0, done.stderr
    assert "owner, mode or attributes are not kept: tokenizer.json (owner 1234:2345)" in done.stderr
    assert owners(place.model)["tokenizer.json"] == (0, 0)
    refused = without_the_right_to_give(place, "downgrade", "base")
    assert (refused.returncode, "tokenizer.json (owner 1234:2345)" in refused.stderr) == (1, True)
    done = without_the_right_to_give(place, "downgrade", "base", "--no-owner")
    assert (done.returncode, "not kept: tokenizer.json" in done.stderr) == (0, True)
    assert tree(place.model) == before


@needs_root
def test_of_several_models_none_is_changed_where_one_would_lose_an_owner(place: Workspace) -> None:
    shutil.copytree(place.model, place.root / "models" / "twin")
    settings = place.settings.read_text("utf-8").replace("verify:", "  twin: {path: models/twin}\nverify:")
    place.settings.write_text(settings, "utf-8")
    os.chown(place.root / "models" / "twin" / "config.json", 1234, 2345)
    before = tree(place.root / "models")
    done = without_the_right_to_give(place, "upgrade")
    assert (done.returncode, "config.json (owner 1234:2345)" in done.stderr) == (1, True), done.stderr
    assert tree(place.root / "models") == before


def attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path) if not name.startswith("security.")}


def test_extended_attributes_and_access_lists_are_kept(place: Workspace) -> None:
    # user::rw-, user:1234:r--, group::r--, mask::r--, other::---
    entries = [(1, 6, 0xFFFFFFFF), (2, 4, 1234), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]
    access = b"".join(
        [struct.pack("<I", 2)]
        + [
            tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + who.to_bytes(4, "little")
            for tag, perm, who in entries
        ]
    )
    try:
        for name in ("tokenizer.json", SHARD, "."):
            os.setxattr(place.model / name, "user.origin", b"here")
        os.setxattr(place.model / "config.json", "system.posix_acl_access", access)
    except OSError:
        pytest.skip("this filesystem has no extended attributes")
    names = [".", *(path.name for path in place.model.iterdir())]
    before = {name: attributes(place.model / name) for name in names}
    image = tree(place.model)
    assert before["config.json"] == {"system.posix_acl_access": access}
    runs(place, "upgrade")
    assert {name: attributes(place.model / name) for name in names} == before
    (place.model / "tokenizer.json").write_bytes((place.model / "tokenizer.json").read_bytes())
    os.removexattr(place.model / "tokenizer.json", "user.origin")
    runs(place, "downgrade", "base")
    assert {name: attributes(place.model / name) for name in names} == before
    assert tree(place.model) == image
