"""Two people, one history: with real Git, two clones and the remote between them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from shared_models import shared_model
from workspaces import DEMO, REPOSITORY, Workspace, contents, edit, environment

from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.revision.lock_file import parse_lock
from tokmigrate.settings import read_workspace

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")

_SETTINGS = """\
format: 1
models:
  demo: {path: models/demo}
verify: fast
"""
_MINE = "# why: the planner speaks first\nformat: 1\nrevision: '111111111111'   # drawn\ndown_revision: 'DOWN' # keep\n"
_THEIRS = "format: 1\nrevision: 222222222222\ndown_revision: DOWN\n"


@dataclass(frozen=True)
class Clone(Workspace):
    """One person's copy of the repository, with a model of their own beside it."""

    def git(self, *arguments: str, code: int = 0) -> str:
        """Run git here, as nobody in particular."""
        person = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_EDITOR": "true"}
        names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        done = subprocess.run(
            ["git", *names, *arguments],
            cwd=self.root,
            env={**environment(), **person},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def commit(self, message: str) -> None:
        """Commit all there is."""
        self.git("add", "-A")
        self.git("commit", "-qm", message)

    @property
    def lock(self) -> Path:
        """The lock."""
        return self.root / "migrations" / "tokmigrate.lock"

    def ids(self) -> dict[str, int]:
        """Return the ids of the model."""
        entry = read_workspace(self.settings, {}).models["demo"]
        return take_snapshot(entry).state.tokenizer.ids

    def write(self, name: str, text: str) -> None:
        """Write a migration that follows the demo's head."""
        (self.root / "migrations" / name).write_text(text.replace("DOWN", "c07d18e2b9f4"), "utf-8")


@pytest.fixture
def clones(tmp_path: Path) -> tuple[Clone, Clone]:
    """A repository with the demo's migrations, locked, and two clones of it."""
    remote = tmp_path / "remote.git"
    first = Clone(tmp_path / "first")
    (first.root / "migrations").mkdir(parents=True)
    first.git("init", "-q", "-b", "main")
    for path in (REPOSITORY / "migrations").glob("*.yaml"):
        shutil.copy(path, first.root / "migrations")
    first.settings.write_text(_SETTINGS, "utf-8")
    (first.root / ".gitignore").write_text(".tokmigrate/\n.*.tokmigrate/\nmodels/\n", "utf-8")
    shutil.copytree(DEMO, first.model)
    assert first.run("lock").returncode == 0
    first.commit("The demo")
    first.git("init", "-q", "--bare", "-b", "main", str(remote))
    first.git("remote", "add", "origin", str(remote))
    first.git("push", "-q", "-u", "origin", "main")
    second = Clone(tmp_path / "second")
    first.git("clone", "-q", str(remote), str(second.root))
    shutil.copytree(DEMO, second.model)
    return first, second


def both_add(first: Clone, second: Clone) -> None:
    """Let both add a migration; the first one pushes."""
    first.write("0004_tools.yaml", _THEIRS + 'operations: [{add_tokens: ["<|tool|>"]}]\n')
    second.write("0004_planner.yaml", _MINE + 'operations:\n  - add_tokens: ["<|planner|>", "<|critic|>"]\n')
    for clone in (first, second):
        assert clone.run("lock").returncode == 0
        clone.commit("One more")
        assert clone.run("validate").returncode == 0
    first.git("push", "-q")


@pytest.mark.parametrize("wrong", ["both sides kept", "cut short"])
def test_a_lock_that_was_settled_by_hand_and_wrongly_is_taken_from_git(clones: tuple[Clone, Clone], wrong: str) -> None:
    first, second = clones
    both_add(first, second)
    second.git("fetch", "-q")
    second.git("merge", "origin/main", code=1)
    lines = second.lock.read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line[0] not in "<=>"] if wrong == "both sides kept" else lines[:4]
    second.lock.write_text("".join(kept), "utf-8")
    told = second.run("validate")
    assert told.returncode == 2
    assert "`tokmigrate rebase`" in told.stderr
    said = second.run("rebase")
    assert said.returncode == 0, said.stderr
    assert "could not be read, so it is restored from both sides of the merge" in said.stdout
    assert second.run("validate").returncode == 0
    second.git("add", "-A")
    second.git("commit", "-qm", "Merge")
    (track,) = parse_lock(second.lock.read_text("utf-8"), "").tracks
    assert track.revisions[-2:] == ("222222222222", "111111111111")


def test_a_lock_that_is_broken_in_git_too_is_written_again(clones: tuple[Clone, Clone]) -> None:
    first, _ = clones
    first.lock.write_text("nonsense\n", "utf-8")
    first.commit("Broken")
    said = first.run("rebase")
    assert said.returncode == 2
    assert "Git has no complete one either: delete it" in said.stderr
    first.lock.unlink()
    assert first.run("rebase").returncode == 0
    assert first.run("validate").returncode == 0


def test_what_others_have_is_not_moved_behind_what_only_a_model_here_has(clones: tuple[Clone, Clone]) -> None:
    first, second = clones
    both_add(first, second)
    assert second.run("upgrade").returncode == 0
    second.git("fetch", "-q")
    second.git("merge", "origin/main", code=1)
    said = second.run("rebase")
    assert said.returncode == 2
    assert "222222222222 is published, and a model has 111111111111: neither is yours to move" in said.stderr
    assert "`tokmigrate downgrade c07d18e2b9f4` first" in said.stderr


def test_squash_deletes_no_file_that_git_does_not_have(clones: tuple[Clone, Clone]) -> None:
    first, _ = clones
    first.write("0004_tools.yaml", _THEIRS + 'operations: [{add_tokens: ["<|tool|>"]}]\n')
    assert first.run("lock").returncode == 0
    held = contents(first.root / "migrations")
    said = first.run("squash", "0003:0004")
    assert said.returncode == 2
    assert "Git does not have migrations/0004_tools.yaml as it is" in said.stderr
    assert contents(first.root / "migrations") == held
    first.commit("One more")
    assert first.run("squash", "0003:0004").returncode == 0


@pytest.mark.parametrize("way", ["merge", "rebase"])
def test_two_clones_come_together_again(clones: tuple[Clone, Clone], way: str) -> None:
    first, second = clones
    both_add(first, second)
    second.git("fetch", "-q")
    told = second.git(way, "origin/main", code=1)
    assert "CONFLICT" in told
    assert second.git("diff", "--name-only", "--diff-filter=U").split() == ["migrations/tokmigrate.lock"]
    for command in ("validate", "lock"):
        said = second.run(command)
        assert said.returncode == 2
        assert "`tokmigrate rebase`" in said.stderr, command

    said = second.run("rebase")
    assert said.returncode == 0, said.stderr
    assert "moved 111111111111 behind 222222222222 (migrations/0004_planner.yaml, now 0005_planner.yaml)" in said.stdout
    moved = (second.root / "migrations" / "0005_planner.yaml").read_text("utf-8")
    assert moved.startswith(_MINE.replace("DOWN", "222222222222"))
    assert second.run("validate").returncode == 0
    second.git("add", "-A")
    second.git(*(["commit", "-qm", "Merge"] if way == "merge" else ["rebase", "--continue"]))
    second.git("push", "-q", "origin", "HEAD:main")
    first.git("pull", "-q", "--ff-only")
    assert first.lock.read_bytes() == second.lock.read_bytes()

    # One goes step by step, the other in one run.
    assert first.run("upgrade").returncode == 0
    for steps in ("+3", "+1", "+1"):
        assert second.run("upgrade", steps).returncode == 0
    assert first.ids() == second.ids()
    assert contents(first.model) == contents(second.model)
    (track,) = parse_lock(first.lock.read_text("utf-8"), "").tracks
    pinned = {token: number for pinned in track.pins for number, token in pinned.new_ids}
    assert pinned.items() <= first.ids().items()
    assert pinned["<|planner|>"] == pinned["<|tool|>"] + 1


def fine_tune(base: Path, directory: Path, seed: int) -> None:
    """Make a model with the tokenizer of another one and weights of its own."""
    shutil.copytree(base, directory)
    random = np.random.default_rng(seed)
    tensors = load_file(base / "model.safetensors")
    trained = {name: rows + random.standard_normal(rows.shape).astype(rows.dtype) for name, rows in tensors.items()}
    save_file(trained, directory / "model.safetensors", metadata={"format": "pt"})


def low_rank(directory: Path, rows: int, width: int) -> None:
    """Make a LoRA adapter of the input embeddings."""
    directory.mkdir(parents=True)
    name = "base_model.model.model.embed_tokens.lora_embedding"
    random = np.random.default_rng(9)
    factors = {f"{name}_A": (2, rows), f"{name}_B": (width, 2)}
    tensors = {key: random.standard_normal(shape).astype(np.float32) for key, shape in factors.items()}
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["embed_tokens"]}
    (directory / "adapter_config.json").write_text(json.dumps(config), "utf-8")


_FINE_TUNES = ("legal", "medical", "support")
_FLEET = """\
format: 1
models:
  base: {path: models/base}
  legal: {path: models/legal, adapters: [loras/legal]}
  medical: {path: models/medical}
  support: {path: models/support}
verify: fast
"""


@pytest.mark.parametrize("learn", ["prune", "extend"])
def test_what_one_learns_on_the_base_another_applies_to_its_fine_tunes(tmp_path: Path, learn: str) -> None:
    base = shared_model(tmp_path / "base", "gpt2-chatml").directory
    author, server = Clone(tmp_path / "author"), Clone(tmp_path / "server")
    (author.root / "migrations").mkdir(parents=True)
    author.git("init", "-q", "-b", "main")
    author.settings.write_text(_FLEET, "utf-8")
    (author.root / ".gitignore").write_text(".*\nmodels/\nloras/\n*.txt\n", "utf-8")
    shutil.copytree(base, author.root / "models" / "base")
    # The corpus is on the author's machine alone.
    corpus = author.root / "corpus.txt"
    corpus.write_text("\n".join(path.read_text("utf-8") for path in sorted(Path(__file__).parent.glob("test_r*.py"))))
    count = {"prune": "3000", "extend": "100"}[learn]
    learned = author.asked("learn", learn, str(corpus), "--tokens", count, "-M", "base", "-m", "Learned")
    migration = Path(learned["file"])
    edit(migration, 'models: ["base"]', 'models: ["*"]')
    assert author.run("lock").returncode == 0
    author.commit("Learned")
    assert author.run("upgrade", "-M", "base").returncode == 0
    author.git("clone", "-q", str(author.root), str(server.root))
    models = [server.root / "models" / name for name in _FINE_TUNES]
    for number, directory in enumerate(models):
        fine_tune(base, directory, number)
    rows, width = load_file(base / "model.safetensors")["model.embed_tokens.weight"].shape
    lora = server.root / "loras" / "legal"
    low_rank(lora, rows, width)
    before = [contents(directory) for directory in (*models, lora)]
    tensors = [load_file(directory / "model.safetensors") for directory in models]
    factor = load_file(lora / "adapter_model.safetensors")
    assert server.run("validate").returncode == 0
    chosen = [word for name in _FINE_TUNES for word in ("-M", name)]
    done = server.run("upgrade", *chosen, "-j", "2")
    assert done.returncode == 0, done.stderr
    # The tokenizer is that of the author's base, to the byte.
    made = author.root / "models" / "base"
    for directory in models:
        for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
            assert (directory / name).read_bytes() == (made / name).read_bytes()
    old, new = (Tokenizer(json.loads((each / "tokenizer.json").read_bytes())).ids for each in (base, made))
    shared = sorted(old.keys() & new.keys(), key=new.__getitem__)
    assert len(shared) == (3000 if learn == "prune" else len(old))
    here, there = [old[token] for token in shared], [new[token] for token in shared]
    for directory, held in zip(models, tensors, strict=True):
        for name, moved in load_file(directory / "model.safetensors").items():
            assert (moved[there] == held[name][here]).all()
    # So does its adapter have a column for each row.
    followed = load_file(lora / "adapter_model.safetensors")
    for name, held in factor.items():
        if name.endswith("_A"):
            assert followed[name].shape[1] == len(load_file(models[0] / "model.safetensors")["lm_head.weight"])
            assert (followed[name][:, there] == held[:, here]).all()
        else:
            assert (followed[name] == held).all()
    assert server.run("downgrade", "base", *chosen).returncode == 0
    assert [contents(directory) for directory in (*models, lora)] == before
