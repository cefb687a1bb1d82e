"""Tiny models with real tokenizers, and one migration at a time on them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from real_tokenizers import real
from safetensors.numpy import load_file, save_file

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.plan import plan
from tokmigrate.commands.stamp import stamp_model
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.model.documents.stamp import Stamp, read_stamp
from tokmigrate.plan.plan import Plan
from tokmigrate.settings import ModelEntry, Workspace, read_workspace
from tokmigrate.state.database import open_state
from tokmigrate.state.rows import TokenEvent

Rows = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class SharedModel:
    """A workspace with one model `m`."""

    root: Path

    @property
    def directory(self) -> Path:
        return self.root / "m"

    @property
    def workspace(self) -> Workspace:
        return read_workspace(self.root / "tokmigrate.yaml")

    @property
    def entry(self) -> ModelEntry:
        return self.workspace.select(["m"])[0]

    def bytes(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.directory.iterdir())}

    def json(self, name: str) -> Any:
        return json.loads((self.directory / name).read_text("utf-8"))

    def library(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_file(str(self.directory / "tokenizer.json"))

    def rows(self) -> Rows:
        return load_file(self.directory / "model.safetensors")

    def write(self, operations: str) -> Path:
        """Write one more migration with these operations."""
        folder = self.root / "migrations"
        number = len(list(folder.glob("*.yaml"))) + 1
        down = f"aaaa{number - 1:04d}" if number > 1 else "null"
        indented = "\n".join("  " + line for line in operations.strip("\n").split("\n"))
        text = f"format: 1\nrevision: aaaa{number:04d}\ndown_revision: {down}\nmessage: m\noperations:\n{indented}\n"
        path = folder / f"{number:04d}_m.yaml"
        path.write_text(text, "utf-8")
        return path

    def migrate(self, operations: str) -> None:
        """Write one more migration and upgrade to it; it is gone again where that fails."""
        path = self.write(operations)
        try:
            upgrade(self.workspace, self.entry)
        except BaseException:
            path.unlink()
            raise

    def planned(self, operations: str) -> Plan:
        """Return the plan for one more migration, which is gone again afterwards."""
        path = self.write(operations)
        try:
            return plan(self.workspace, self.entry)
        finally:
            path.unlink()

    def down(self) -> None:
        downgrade(self.workspace, self.entry, "base")

    def forget(self) -> None:
        """Remove the stamp and the state, so that nothing but the files tells what was done."""
        (self.directory / "tokmigrate.json").unlink()
        shutil.rmtree(self.root / ".tokmigrate")

    def stamp_again(self) -> tuple[Stamp, Stamp]:
        """Return the stamp of the model at the head, and the one that is written once that one is forgotten."""
        before = read_stamp(self.directory)
        self.forget()
        stamp_model(self.workspace, self.entry, "head")
        after = read_stamp(self.directory)
        assert before is not None
        assert after is not None
        return before, after

    def events(self) -> list[TokenEvent]:
        state = open_state(self.workspace.state, self.root)
        (model,) = state.list_models()
        return [row.event for row in state.token_events(model)]


def shared_model(
    root: Path, name: str, files: dict[str, Any] | None = None, source: Path | None = None, width: int = 4
) -> SharedModel:
    """Make a workspace with a model of random rows and the tokenizer `name`, or that of another folder."""
    source = source or real(name)
    directory = root / "m"
    directory.mkdir(parents=True)
    (root / "migrations").mkdir()
    for path in source.glob("tokenizer*.json"):
        shutil.copy(path, directory)
    ids = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json")).get_vocab(with_added_tokens=True)
    rows = max(ids.values()) + 4
    random = np.random.default_rng(7)
    tensors = {
        key: random.standard_normal((rows, width)).astype(np.float32)
        for key in ("model.embed_tokens.weight", "lm_head.weight")
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "llama", "vocab_size": rows, "hidden_size": width, "tie_word_embeddings": False}
    for file, value in {"config.json": config, **(files or {})}.items():
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        (directory / file).write_text(text, "utf-8")
    (root / "tokmigrate.yaml").write_text("format: 1\nverify: fast\nmodels:\n  m: {path: m}\n", "utf-8")
    return SharedModel(root)
