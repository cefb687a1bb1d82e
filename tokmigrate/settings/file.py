"""What may stand in `tokmigrate.yaml`: its keys, their values and defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tokmigrate.settings.workspace import FieldShape, WorkerLimits

DEFAULT_LIMITS = WorkerLimits()
DEFAULT_STATE = "sqlite:///.tokmigrate/state.db"

Name = Annotated[str, Field(min_length=1)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorKeys(_Closed):
    """A tensor that has rows of the vocabulary."""

    axis: Annotated[int, Field(ge=0)] = Field(default=0, description="Its vocabulary axis, counted from 0.")
    side: Literal["input", "output"] = Field(description="Which embeddings its rows start like.")


class ModelKeys(_Closed):
    """A model."""

    path: Name = Field(description="Its directory.")
    adapters: tuple[Name, ...] = Field(default=(), description="Directories of LoRA adapters that change with it.")
    tags: tuple[Name, ...] = Field(
        default=(), description="Groups that it belongs to; `models:` of a migration may name one instead of models."
    )
    vocab_tensors: dict[str, TensorKeys | Literal["ignore"]] = Field(
        default={},
        description="By its name, what a tensor is that no rule claims; `ignore` for a vocabulary-sized axis by "
        "coincidence. Only where tokmigrate asks for it.",
    )
    id_fields: dict[Name, FieldShape | Literal["ignore"]] = Field(
        default={},
        description="By its name or dotted path, how a field of a configuration holds ids of tokens: `ids`, one or "
        "a list in which each matters; `list`, of which one may go; `map`, whose values are ids; `positions`, pairs "
        "of a position and an id; `bias`, sequences of ids, each with a number; `ignore`, none. Only where "
        "tokmigrate asks for it.",
    )


class LintKeys(_Closed):
    """Which rules `tokmigrate lint` asks."""

    select: tuple[Name, ...] = Field(
        default=(), description="Codes of [rules](rules.md) or their beginnings; without any, all rules are asked."
    )
    ignore: tuple[Name, ...] = Field(default=(), description="Those that are left out.")


class WorkerKeys(_Closed):
    """What the process that runs tokenizers and transformers may use."""

    memory_mib: Annotated[int, Field(ge=1)] = Field(
        default=DEFAULT_LIMITS.memory_mib,
        description="Memory (address space) beyond what the libraries themselves take, in MiB; for `plan --corpus` "
        "that much for each processor.",
    )
    cpu_seconds: Annotated[int, Field(ge=1)] = Field(
        default=DEFAULT_LIMITS.cpu_seconds,
        description="CPU time to load and check a model; for `plan --corpus` between two steps of its progress.",
    )
    output_mib: Annotated[int, Field(ge=1)] = Field(
        default=DEFAULT_LIMITS.output_mib, description="The size of what it answers, in MiB."
    )


def _path_alone(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


def _models(value: object) -> object:
    return {} if value is None else value


class FileKeys(_Closed):
    """All of `tokmigrate.yaml`."""

    format: Literal["1"] = Field(description="The version of this format.")
    migrations: Name = Field(default="migrations", description="The folder of the migrations, which has to be there.")
    state: Name = Field(
        default=DEFAULT_STATE,
        description="The SQLAlchemy URL of the ledger: SQLite in a file, or PostgreSQL for a team. The environment "
        "variable `TOKMIGRATE_STATE` takes its place.",
    )
    models: Annotated[
        dict[str, Annotated[ModelKeys, BeforeValidator(_path_alone)]] | None, BeforeValidator(_models)
    ] = Field(
        default=None,
        description="The models, each as its keys or its directory alone, by the names that commands and migrations "
        "give them. A name has no `/`, and is neither `.`, `..` nor `*`.",
    )
    verify: Literal["full", "fast"] = Field(
        default="full",
        description="`full` loads a result with tokenizers and transformers before it is published, `fast` with"
        " tokenizers only.",
    )
    drift: Literal["refuse", "accept"] = Field(
        default="refuse",
        description="`refuse`: what plans or makes a change stops at a model that is not what its migrations left; "
        "`accept` goes on from it as it is, as `--accept-drift` does once.",
    )
    seed: str = Field(
        default="", description="Part of the seed of every random row; the same text gives the same rows."
    )
    lint: LintKeys = Field(default_factory=LintKeys, description="Which rules `tokmigrate lint` asks.")
    worker: WorkerKeys = Field(
        default_factory=WorkerKeys,
        description="What the process that runs tokenizers and transformers may use. Where it needs more, as with some "
        "chat templates, the command fails and nothing is changed.",
    )
