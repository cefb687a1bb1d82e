"""Bad input: a clear error with the right code, and the model as it was."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from workspaces import HEAD, Image, Workspace, command_line, image, make_workspace

UPGRADE = ("upgrade",)
BACK = ("downgrade", "base")


@dataclass(frozen=True)
class Told:
    """What a command said, once as text and once as a document."""

    text: str
    document: dict[str, object]


@dataclass(frozen=True)
class Bench(Workspace):
    """A workspace in which something is wrong."""

    def refused(self, code: int, *words: str) -> Told:
        """Run a command that must fail and leave the model as it is; return what it said."""
        before, beside = image(self.model), sorted(path.name for path in self.model.parent.iterdir())
        text = self.run(*words)
        assert (text.returncode, text.stdout) == (code, ""), text.stderr
        assert "Traceback" not in text.stderr
        assert "error in tokmigrate itself" not in text.stderr
        assert text.stderr.startswith("error: ")
        as_json = self.run(*words, "--json")
        assert (as_json.returncode, as_json.stderr) == (code, "")
        document = json.loads(as_json.stdout)
        assert document["schema_version"] == 1
        assert document["error"]["exit_code"] == code
        assert document["error"]["message"]
        assert image(self.model) == before
        assert self.left_over() == []
        assert sorted(path.name for path in self.model.parent.iterdir()) == beside
        return Told(text.stderr, document["error"])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(make_workspace(tmp_path / "workspace").root)


@pytest.fixture
def upgraded(bench: Bench) -> Bench:
    assert bench.run("upgrade").returncode == 0
    return bench


# Migrations that cannot be read


def test_a_misspelt_operation(bench: Bench) -> None:
    bench.add_migration('  - add_tokenz: {tokens: [{content: "<x>"}]}\n')
    told = bench.refused(2, *UPGRADE)
    assert "migrations/0004_new.yaml:6:5: unknown operation 'add_tokenz' (did you mean 'add_tokens'?)" in told.text
    problems = told.document["problems"]
    assert isinstance(problems, list)
    assert (problems[0]["line"], problems[0]["column"]) == (6, 5)
    assert problems[0]["hint"] == "did you mean 'add_tokens'?"


MORE = "more: tokmigrate explain file-problems"


@pytest.mark.parametrize(
    ("operations", "place"),
    [
        ("\t- add_tokens: [x]\n", "6:1"),
        ("  - add_tokens:\t{tokens: [x]}\n", "6:16"),
        ("  - set_padding:\n      side: left\n\tmax_length: 3\n", "8:1"),
    ],
)
def test_a_tab(bench: Bench, operations: str, place: str) -> None:
    bench.add_migration(operations)
    told = bench.refused(2, *UPGRADE).text
    assert (
        told == f"error: migrations/0004_new.yaml:{place}: a tab is not allowed here (use spaces, not tabs)\n{MORE}\n"
    )


def test_an_init_that_is_only_a_name(bench: Bench) -> None:
    bench.add_migration("  - add_tokens: {tokens: [x], init: mean}\n  - set_init: avarage\n  - set_init: what\n")
    assert bench.refused(2, *UPGRADE).text.splitlines() == [
        "error: migrations/0004_new.yaml:6:37: expected a mapping, found 'mean' (write {strategy: mean})",
        "error: migrations/0004_new.yaml:7:15: expected a mapping, found 'avarage' (did you mean {strategy: average}?)",
        "error: migrations/0004_new.yaml:8:15: expected a mapping, found 'what' (for example {strategy: mean})",
        MORE,
    ]


def test_an_alias_bomb(bench: Bench) -> None:
    lines = ["  - &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"  - &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(9)]
    bench.add_migration("\n".join(lines) + "\n")
    told = bench.refused(2, *UPGRADE)
    assert "0004_new.yaml:6:5: anchor '&a0' is not allowed" in told.text
    # What it would expand to is never built, nor printed.
    assert len(told.text) < 20_000


# Models that cannot be worked on


def only_pickled(model: Path) -> None:
    for path in model.glob("*.safetensors*"):
        path.unlink()
    # Unpickling this makes a file `opened` in the current directory.
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")


def truncated(model: Path) -> None:
    path = model / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def outside(model: Path) -> None:
    path = model / "model.safetensors.index.json"
    shutil.copy(model / "model-00002-of-00002.safetensors", model.parent / "model-00002-of-00002.safetensors")
    path.write_text(path.read_text("utf-8").replace('"model-00002-of', '"../model-00002-of'), "utf-8")


def other_config(model: Path) -> None:
    path = model / "config.json"
    document = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**document, "vocab_size": document["vocab_size"] + 6}, indent=2), "utf-8")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (only_pickled, r"only pickled weights \(pytorch_model\.bin\): refused, and never unpickled"),
        (truncated, r"model-00002-of-00002\.safetensors: the header describes \d+ bytes, the file has \d+"),
        (outside, r"the index puts tensor '[^']+' into '\.\./model-00002.*', which is not a file of this directory"),
        (other_config, r"embed_tokens\.weight' \[1024, 128\] has 1024 rows .* config\.json says vocab_size: 1030"),
    ],
)
@pytest.mark.parametrize("word", ["upgrade", "plan", "status"])
def test_a_model_that_cannot_be_worked_on(bench: Bench, spoil: Callable[[Path], None], said: str, word: str) -> None:
    spoil(bench.model)
    told = bench.refused(1, word)
    assert re.search(said, told.text), told.text
    assert told.document["hint"]
    assert not (bench.root / "opened").exists()


# Drift


@pytest.mark.parametrize("words", [UPGRADE, ("plan",), ("verify",)])
def test_a_migration_that_was_edited_after_it_was_applied(upgraded: Bench, words: tuple[str, ...]) -> None:
    path = upgraded.migration(1)
    path.write_text(path.read_text("utf-8").replace("{strategy: mean}", "{strategy: zeros}"), "utf-8")
    told = upgraded.refused(4, *words)
    assert path.name in told.text
    assert "3b8f0d5a61c2" in told.text
    assert told.document["hint"]


@pytest.mark.parametrize("words", [UPGRADE, BACK])
def test_a_stamp_that_was_edited(upgraded: Bench, words: tuple[str, ...]) -> None:
    path = upgraded.model / "tokmigrate.json"
    text = path.read_text("utf-8")
    for old, new in (
        ('"reshaped": true', '"reshaped": false'),
        (f'"revision": "{HEAD}"', '"revision": "9f3c2a7e41b0"'),
        ('"rows": 1024', '"rows": 1023'),
        ('"checksum": "1:', '"checksum": "1:0'),
        ('"format": 1', '"format": 2'),
        ('"applied": [', '"applied": ['[:-1]),
        ('"files": {', '"files": [], "other": {'),
        ('"init": {', '"init": {"norm": "match", '),
    ):
        assert old in text
        path.write_text(text.replace(old, new, 1), "utf-8")
        told = upgraded.refused(4, *words)
        assert "tokmigrate.json: " in told.text, old
        assert "stamp" in told.text, old


def test_a_stamp_that_is_no_text(upgraded: Bench) -> None:
    (upgraded.model / "tokmigrate.json").write_bytes(b"\xff\xfe\x00")
    assert "the stamp is damaged" in upgraded.refused(4, *BACK).text


def test_a_value_that_was_changed_after_the_upgrade(upgraded: Bench) -> None:
    path = upgraded.model / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(config | {"padding_side": "both"}), "utf-8")
    assert "padding_side" in upgraded.refused(4, *BACK).text
    told = upgraded.refused(4, *BACK, "--accept-drift")
    assert (
        "tokenizer_config.json: padding_side: it was changed since it was migrated, from 'left' to 'both'" in told.text
    )
    assert told.document["kind"] == "DriftError"


def test_a_text_that_was_changed_after_the_upgrade(upgraded: Bench) -> None:
    with (upgraded.model / "chat_template.jinja").open("a", encoding="utf-8") as file:
        file.write("{# mine #}")
    # Long texts are shown from where they differ.
    assert "{# mine #}" in upgraded.refused(4, *BACK).text
    told = upgraded.refused(4, *BACK, "--accept-drift")
    assert "chat_template.jinja: the file was changed since it was migrated" in told.text
    assert told.document["kind"] == "DriftError"


def test_undo_data_that_is_damaged(upgraded: Bench) -> None:
    for path in (upgraded.root / ".tokmigrate" / "objects").glob("??/*"):
        data = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    told = upgraded.refused(1, *BACK)
    assert told.document["kind"] == "UndoError"
    assert "damaged" in told.text


def test_a_state_that_is_missing(upgraded: Bench) -> None:
    shutil.rmtree(upgraded.root / ".tokmigrate")
    told = upgraded.refused(1, *BACK)
    assert told.document["kind"] == "UndoError"
    assert "is missing in this workspace" in told.text


# Disks that refuse


def unshared(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script with mounts of its own."""
    command = ["unshare", "--mount", "--map-root-user", "sh", "-euc", script, "sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def mounts(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    tried = unshared('mount -t tmpfs tokmigrate "$1"', str(tmp_path))
    if tried.returncode:
        pytest.skip(f"no mounts may be made here: {tried.stderr.strip()}")


def under(mount: str, workspace: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    script = f'{mount}; cd "$1"; shift; exec "$@"'
    return unshared(script, str(workspace.root), *command_line(), *words)


def is_untouched(workspace: Workspace, before: Image, done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "error in tokmigrate itself" not in done.stdout + done.stderr
    assert image(workspace.model) == before
    assert workspace.left_over() == []


@pytest.mark.parametrize("place", ["models/demo", "models", "."])
def test_a_read_only_directory(tmp_path: Path, mounts: None, place: str) -> None:
    workspace = make_workspace(tmp_path / "workspace")
    before = image(workspace.model)
    readonly = f'mount --bind "$1/{place}" "$1/{place}"; mount -o remount,bind,ro "$1/{place}"'
    done = under(readonly, workspace, "upgrade", "--json")
    is_untouched(workspace, before, done, "")
    assert not workspace.area.exists()
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "StorageError"
    assert "work on a copy" in error["hint"]


@pytest.mark.parametrize(("full", "left"), [("models", "64k"), ("models", "2m"), (".tokmigrate", "64k")])
def test_no_space(tmp_path: Path, mounts: None, full: str, left: str) -> None:
    workspace = make_workspace(tmp_path / "workspace")
    (workspace.root / ".tokmigrate").mkdir()
    before = image(workspace.model)
    # A filesystem of its own with what was there, and only a little room more.
    script = f"""
        cp -a "$1/{full}" "$1/kept"
        mount -t tmpfs -o size=16m tokmigrate "$1/{full}"
        cp -a "$1/kept/." "$1/{full}/"
        dd if=/dev/zero of="$1/{full}/.fill" bs=4k 2>/dev/null || true
        truncate -s -{left} "$1/{full}/.fill"
        cd "$1"
        shift
        code=0
        "$@" || code=$?
        diff -r models/demo {"kept/demo" if full == "models" else "models/demo"} >&2
        ls -A models/.demo.tokmigrate >&2
        exit $code
    """
    done = unshared(script, str(workspace.root), *command_line(), "upgrade")
    is_untouched(workspace, before, done, "what to do: ")
    assert {"stage", "journal"}.isdisjoint(done.stderr.split())


def test_a_directory_that_may_not_be_written_is_refused_for_other_users_too(bench: Bench) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; see test_a_read_only_directory")
    bench.model.chmod(0o555)
    try:
        assert "may not be written" in bench.refused(1, *UPGRADE).text
    finally:
        bench.model.chmod(0o755)


def test_a_database_that_does_not_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKMIGRATE_STATE", "postgresql+psycopg://u:secret@127.0.0.1:1/db")
    told = bench.refused(1, *UPGRADE)
    assert "Connection refused" in told.text
    assert "secret" not in told.text
    assert told.document["hint"] == "check that the server runs, and `state:` in tokmigrate.yaml or $TOKMIGRATE_STATE"


def test_a_database_whose_driver_is_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKMIGRATE_STATE", "postgresql+pg8000://u@host/db")
    assert 'what to do: pip install "tokmigrate[postgres]"' in bench.refused(2, *UPGRADE).text
