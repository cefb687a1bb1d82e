"""What `tokmigrate.yaml` says: the models, and where migrations and state live."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tokmigrate.errors import MissingModelError, UnknownNameError, UsageError, suggest
from tokmigrate.events import Thoroughness
from tokmigrate.files import exists, has_directory, read_if_present, storage_errors
from tokmigrate.strict_yaml.validation import Closed

FILE_NAME = "tokmigrate.yaml"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

FieldShape = Literal["ids", "list", "map", "positions", "bias"]
"""How a field of a configuration holds ids of tokens.

`ids`: one id, or a list of which every member matters. `list`: ids, perhaps in lists, of which one may go.
`map`: an object whose values are ids. `positions`: pairs of a position and an id. `bias`: sequences of ids,
each with a number, as an object or as pairs.
"""


Name = Annotated[str, Field(min_length=1)]


class VocabTensorSetting(Closed):
    """A tensor that has rows of the vocabulary, and that no rule matches."""

    axis: int = Field(default=0, ge=0, description="Its vocabulary axis, counted from 0.")
    side: Literal["input", "output"] = Field(description="Which embeddings its rows are initialised like.")


class WorkerLimits(Closed):
    """What a worker, the process that runs the libraries, may use; it is ended where it needs more."""

    memory_mib: int = Field(
        default=4096,
        ge=1,
        description="Memory (address space) beyond what the libraries themselves take, in MiB; for `plan --corpus` "
        "that much for each processor.",
    )
    cpu_seconds: int = Field(
        default=120,
        ge=1,
        description="CPU time to load and check a model; for `plan --corpus` between two steps of its progress.",
    )
    output_mib: int = Field(default=256, ge=1, description="The size of what it answers, in MiB.")


class LintSetting(Closed):
    """Which rules `tokmigrate lint` checks."""

    select: tuple[Name, ...] = Field(
        default=(), description="Codes of [rules](rules.md) or their beginnings; by default all rules are checked."
    )
    ignore: tuple[Name, ...] = Field(default=(), description="Those that are left out.")


class WeightsSetting(Closed):
    """How weights are stored."""

    isolate_vocab: bool = Field(
        default=False,
        description="Whether the first migration that changes rows moves the vocabulary tensors into a shard of "
        "their own, so that later ones write only that. `downgrade` restores the shards as they were.",
    )


@dataclass(frozen=True)
class ModelCopy:
    """A file or directory that was made from a model, such as a GGUF, an ONNX export or a draft model.

    Args:
        follow: Whether it is changed with the model, which only a GGUF can be.
    """

    path: Path
    follow: bool = False


@dataclass(frozen=True)
class ModelEntry:
    """A model of the workspace.

    Args:
        adapters: The directories of the adapters that change with it; all paths are absolute.
        copies: What was made from it, and is stale after a migration.
        vocab_tensors: By tensor name, what resolves an open question, or `ignore` for a coincidence.
        id_fields: By the name or dotted path of a field, how it holds ids of tokens, or `ignore` where it holds none.
    """

    name: str
    path: Path
    adapters: tuple[Path, ...] = ()
    copies: tuple[ModelCopy, ...] = ()
    tags: tuple[str, ...] = ()
    vocab_tensors: Mapping[str, VocabTensorSetting | Literal["ignore"]] = field(default_factory=dict)
    id_fields: Mapping[str, FieldShape | Literal["ignore"]] = field(default_factory=dict)
    worker: WorkerLimits = field(default_factory=WorkerLimits)
    weights: WeightsSetting = field(default_factory=WeightsSetting)

    def here(self) -> Path:
        """Return its directory; raises MissingModelError where there is none."""
        if not has_directory(self.path):
            raise MissingModelError(
                "the model is missing: no such directory",
                where=str(self.path),
                hint=_directory_hint(self.path) or "put it back, or correct its path in tokmigrate.yaml",
            )
        return self.path


@dataclass(frozen=True)
class Workspace:
    """What `tokmigrate.yaml` says, with every path absolute.

    Args:
        objects: The directory of the undo data.
        models: The models by name, in the order of the file.
        migrations_at: Line and column of what the file says about the migrations; None where it leaves that out.
    """

    root: Path
    migrations: Path
    state: str
    objects: Path
    models: Mapping[str, ModelEntry]
    verify: Thoroughness = "full"
    drift: Literal["refuse", "accept"] = "refuse"
    seed: str = ""
    lint: LintSetting = field(default_factory=LintSetting)
    worker: WorkerLimits = field(default_factory=WorkerLimits)
    weights: WeightsSetting = field(default_factory=WeightsSetting)
    migrations_at: tuple[int, int] | None = field(default=None, compare=False)

    def select(self, names: Sequence[str]) -> tuple[ModelEntry, ...]:
        """Return the models that `names` mean, each once, in the order given; without names all of the workspace.

        A name may be the path of a model directory, also of one that is not listed. Raises UnknownNameError.
        """
        if not names:
            return tuple(self.models.values())
        chosen = {entry.path: entry for entry in map(self._find_entry, names)}
        return tuple(chosen.values())

    def _find_entry(self, name: str) -> ModelEntry:
        if name in self.models:
            return self.models[name]
        path = absolute(Path.cwd(), name)
        if not has_directory(path):
            known = ", ".join(self.models) or "none"
            hint = (
                suggest(name, self.models)
                or _directory_hint(path)
                or f"models of this workspace: {known}; or name a model directory"
            )
            raise UnknownNameError(f"no model is called '{name}'", where=str(self.root / FILE_NAME), hint=hint)
        for entry in self.models.values():
            if exists(entry.path) and entry.path.samefile(path):
                return entry
        # A listed model may bear the directory's name; then the path tells the two apart.
        own = str(path) if path.name in self.models else path.name
        return ModelEntry(own, path, worker=self.worker, weights=self.weights)


def _directory_hint(path: Path) -> str | None:
    """Return what to do where a path is a file, or what the Hub calls a model; None where it is neither."""
    if path.is_file():
        return f"that is a file: name the directory that holds it, {shlex.quote(str(path.parent))}"
    above = path.parent.parent
    is_named_from_here = above == Path.cwd() or (above / FILE_NAME).is_file()
    name = f"{path.parent.name}/{path.name}"
    if is_named_from_here and not path.parent.exists() and _HUB_ID.fullmatch(name):
        return (
            f"correct the path; or, if '{name}' is a model of the Hugging Face Hub, download it there:"
            f" hf download {name} --local-dir {shlex.quote(str(path))}"
        )
    return None


def absolute(base: Path, path: str) -> Path:
    """Return a path of the workspace as an absolute one."""
    # Symbolic links stay as they are named: a model is what its path says.
    return Path(os.path.abspath(base / Path(path).expanduser()))  # noqa: PTH100


_IGNORED = (".tokmigrate/", ".*.tokmigrate/")

NEW_WORKSPACE = """\
# The workspace of tokmigrate: which models there are, and where the migrations and the state live.
# Paths are relative to this file.
format: 1

migrations: migrations

# Any SQLAlchemy URL; PostgreSQL for a team. The environment variable TOKMIGRATE_STATE takes its place.
state: sqlite:///.tokmigrate/state.db

# Every model by the name that commands and migrations give it.
models:
#  demo: {path: models/demo}
#  support-7b:
#    path: /data/support-7b
#    adapters: [/data/loras/support]      # changed together with the model
#    copies: [/data/gguf/support.gguf]    # made from the model: `status` says which are stale
#    tags: [chat]                         # a migration may name a tag instead of models
#    vocab_tensors:                       # only where tokmigrate asks for it
#      extra.head.weight: {axis: 0, side: output}
#      visual.projector.weight: ignore    # a vocabulary-sized axis by coincidence
#    id_fields:                           # likewise: fields of configurations, by name or dotted path
#      my_router_token_id: ids            # an id of a token; or list, map, positions, bias
#      talker.speaker_index: ignore       # no id of a token

# full: load the result with transformers before it is published; fast: with tokenizers only.
verify: full

# Part of the seed of every random row; the same text gives the same rows.
seed: ""

# What `tokmigrate lint` asks for, by codes or their beginnings: lint: {select: [TM1, TM3], ignore: [TM109]}

# A shard of its own for vocabulary tensors, so that later migrations write less: weights: {isolate_vocab: true}
"""
"""The text of a new `tokmigrate.yaml`."""


def create_workspace(directory: Path) -> list[Path]:
    """Create a workspace and its directory, and return what was written.

    Raises UsageError where there is one already, StorageError where a file cannot be written.
    """
    settings, migrations, ignore_file = directory / FILE_NAME, directory / "migrations", directory / ".gitignore"
    if exists(settings):
        raise UsageError(
            "a workspace exists already", where=str(settings), hint="list your models in it, or remove it first"
        )
    with storage_errors("create the workspace", directory):
        migrations.mkdir(parents=True, exist_ok=True)
        if not any(migrations.iterdir()):
            # Git keeps no empty folder: a clone would lack it.
            (migrations / ".gitkeep").touch()
        settings.write_text(NEW_WORKSPACE, "utf-8")
    lines = (read_if_present(ignore_file) or b"").decode("utf-8", "surrogateescape").splitlines()
    missing = [line for line in _IGNORED if line not in lines]
    if not missing:
        return [settings, migrations]
    with storage_errors("write the file", ignore_file):
        ignore_file.write_text("\n".join([*lines, *missing]) + "\n", "utf-8", "surrogateescape")
    return [settings, migrations, ignore_file]
