"""Reading `tokmigrate.yaml`: all errors are reported at once, with their lines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tokmigrate.errors import FileProblems, Problem, UsageError
from tokmigrate.events import Thoroughness
from tokmigrate.files import exists
from tokmigrate.formats import SETTINGS
from tokmigrate.settings.workspace import (
    FILE_NAME,
    FieldShape,
    LintSetting,
    ModelCopy,
    ModelEntry,
    Name,
    VocabTensorSetting,
    WeightsSetting,
    WorkerLimits,
    Workspace,
    absolute,
)
from tokmigrate.strict_yaml.reading import read
from tokmigrate.strict_yaml.tree import Tree
from tokmigrate.strict_yaml.validation import Closed, FieldError, check, with_format_hint

DEFAULT_STATE = "sqlite:///.tokmigrate/state.db"
STATE_VARIABLE = "TOKMIGRATE_STATE"
"""The environment variable that, where it is set and not empty, takes the place of `state:`."""

SQLITE_FILE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]*)(.*)", re.DOTALL)


class CopyKeys(Closed):
    """A copy of a model."""

    path: Name = Field(description="The file or directory.")
    follow: bool = Field(
        default=False, description="Whether it changes in the same transaction as the model; only a `.gguf` file can."
    )


def _path_alone(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


def _check_follow(copy: CopyKeys) -> CopyKeys:
    if copy.follow and not copy.path.lower().endswith(".gguf"):
        hint = "leave `follow` out, and make the copy again after a migration: `tokmigrate status` says when"
        raise FieldError(f"'{copy.path}' cannot follow the model: only a .gguf file can", hint)
    return copy


class ModelKeys(Closed):
    """A model."""

    path: Name = Field(description="Its directory.")
    adapters: tuple[Name, ...] = Field(default=(), description="Directories of LoRA adapters that change with it.")
    copies: tuple[Annotated[CopyKeys, BeforeValidator(_path_alone), AfterValidator(_check_follow)], ...] = Field(
        default=(),
        description="What was made from it, each as its keys or its path alone: a GGUF, an ONNX export, a draft model. "
        "`tokmigrate status` says which of them are stale.",
    )
    tags: tuple[Name, ...] = Field(
        default=(), description="Groups that it belongs to; `models:` of a migration may name one instead of models."
    )
    vocab_tensors: dict[str, VocabTensorSetting | Literal["ignore"]] = Field(
        default={},
        description="By its name, what a tensor is that no rule matches; `ignore` for a vocabulary-sized axis by "
        "coincidence. Only needed if tokmigrate asks for it.",
    )
    id_fields: dict[Name, FieldShape | Literal["ignore"]] = Field(
        default={},
        description="By its name or dotted path, how a field of a configuration holds ids of tokens: `ids`, one or "
        "a list in which each matters; `list`, of which one may go; `map`, whose values are ids; `positions`, pairs "
        "of a position and an id; `bias`, sequences of ids, each with a number; `ignore`, none. Only where "
        "tokmigrate asks for it.",
    )


def _check_name(name: str) -> str:
    if "/" in name or name in ("", ".", "..", "*"):
        hint = "a name has no '/' and is neither '', '.', '..' nor '*'"
        raise FieldError(f"'{name}' cannot be the name of a model", hint)
    return name


def _check_state(url: str) -> str:
    hint = f"for example {DEFAULT_STATE}"
    if "://" not in url:
        raise FieldError(f"'{url}' is not a database URL", hint)
    match = SQLITE_FILE.fullmatch(url)
    if url.startswith("sqlite") and (match is None or match[2] in ("", ":memory:")):
        raise FieldError("a state in memory would be lost with the command", hint)
    return url


ModelName = Annotated[str, AfterValidator(_check_name)]


class FileKeys(Closed):
    """All of `tokmigrate.yaml`."""

    format: Literal["1"] = Field(description="The version of this format.")
    migrations: Name = Field(default="migrations", description="The folder of the migrations, which has to be there.")
    state: Annotated[Name, AfterValidator(_check_state)] = Field(
        default=DEFAULT_STATE,
        description="The SQLAlchemy URL of the ledger: SQLite in a file, or PostgreSQL for a team. The environment "
        "variable `TOKMIGRATE_STATE` takes its place.",
    )
    models: dict[ModelName, Annotated[ModelKeys, BeforeValidator(_path_alone)]] | None = Field(
        default=None,
        description="The models, each as its keys or its directory alone, by the names that commands and migrations "
        "give them. A name has no `/`, and is neither `.`, `..` nor `*`.",
    )
    verify: Thoroughness = Field(
        default="full",
        description="`full` loads a result with tokenizers and transformers before it is published, `fast` with"
        " tokenizers only. `paranoid` does what `full` does, and reads the written weights again from the disk.",
    )
    drift: Literal["refuse", "accept"] = Field(
        default="refuse",
        description="`refuse`: what plans or makes a change stops at a model that is not what its migrations left; "
        "`accept` goes on from it as it is, as `--accept-drift` does once.",
    )
    seed: str = Field(
        default="", description="Part of the seed of every random row; the same text gives the same rows."
    )
    lint: LintSetting = Field(default_factory=LintSetting, description="Which rules `tokmigrate lint` checks.")
    weights: WeightsSetting = Field(default_factory=WeightsSetting, description="How weights are stored.")
    worker: WorkerLimits = Field(
        default_factory=WorkerLimits,
        description="What the process that runs tokenizers and transformers may use. Where it needs more, as with some "
        "chat templates, the command fails and nothing is changed.",
    )


def find_workspace(start: Path) -> Path:
    """Return the `tokmigrate.yaml` of `start` or of the nearest directory above it; raises UsageError without one."""
    first = absolute(Path.cwd(), str(start))
    for directory in (first, *first.parents):
        if exists(directory / FILE_NAME):
            return directory / FILE_NAME
    raise UsageError(
        f"no {FILE_NAME} here or in a directory above",
        where=str(first),
        hint="run 'tokmigrate init' to make a workspace",
    )


def read_workspace(path: Path, environment: Mapping[str, str] = os.environ) -> Workspace:
    """Return the workspace that a `tokmigrate.yaml` describes; `TOKMIGRATE_STATE` may take the place of `state:`.

    Raises FileProblems with all that is wrong in it.
    """
    tree = read(path)
    content, problems = check(FileKeys, tree)
    if content is None:
        raise FileProblems([_with_hint(problem, tree) for problem in problems])
    root = absolute(Path.cwd(), str(path)).parent
    models = {name: _entry(name, model, root, content) for name, model in (content.models or {}).items()}
    _refuse_twice(tree, models)
    return Workspace(
        root=root,
        migrations=absolute(root, content.migrations),
        state=_resolve_state(environment.get(STATE_VARIABLE) or content.state, root),
        objects=root / ".tokmigrate" / "objects",
        models=MappingProxyType(models),
        verify=content.verify,
        drift=content.drift,
        seed=content.seed,
        lint=content.lint,
        worker=content.worker,
        weights=content.weights,
        migrations_at=tree.place(("migrations",)) if "migrations" in tree.value else None,
    )


def _entry(name: str, model: ModelKeys, root: Path, content: FileKeys) -> ModelEntry:
    return ModelEntry(
        name=name,
        path=absolute(root, model.path),
        adapters=tuple(absolute(root, adapter) for adapter in model.adapters),
        copies=tuple(ModelCopy(absolute(root, copy.path), copy.follow) for copy in model.copies),
        tags=model.tags,
        vocab_tensors=MappingProxyType(model.vocab_tensors),
        id_fields=MappingProxyType(model.id_fields),
        worker=content.worker,
        weights=content.weights,
    )


def _resolve_state(url: str, root: Path) -> str:
    match = SQLITE_FILE.fullmatch(url)
    if match is None or match[2].startswith("file:"):
        return url
    return f"{match[1]}{absolute(root, match[2])}{match[3]}"


def _refuse_twice(tree: Tree, models: Mapping[str, ModelEntry]) -> None:
    """Raise FileProblems where a command would change something twice: a directory, or a GGUF that follows a model."""
    first: dict[str, str] = {}
    problems: list[Problem] = []
    for name, entry in models.items():
        known = first.setdefault(os.path.realpath(entry.path), name)
        if known != name:
            message = f"'{name}' is the same directory as '{known}'"
            problems.append(tree.problem(("models", name, "path"), message, "one name is enough; tags group models"))
    swapped = [os.path.realpath(each) for entry in models.values() for each in (entry.path, *entry.adapters)]
    followed: dict[str, str] = {}
    for name, place, copy in _list_followers(models):
        path = os.path.realpath(copy.path)
        at = ("models", name, "copies", place)
        known = followed.setdefault(path, name)
        if known != name:
            problems.append(
                tree.problem(at, f"it follows '{known}' already", "let it follow the model that it was made from")
            )
        inside = next((each for each in swapped if Path(path).is_relative_to(each)), None)
        if inside is not None:
            message = f"it is inside {inside}, and the two cannot be published separately"
            problems.append(tree.problem(at, message, "move the GGUF beside the directory, and name its new place"))
    if problems:
        raise FileProblems(problems)


def _list_followers(models: Mapping[str, ModelEntry]) -> Iterator[tuple[str, int, ModelCopy]]:
    """Yield the GGUFs that follow models, each with the name of its model and its place in `copies:`."""
    for name, entry in models.items():
        for place, copy in enumerate(entry.copies):
            if copy.follow:
                yield name, place, copy


def _with_hint(problem: Problem, tree: Tree) -> Problem:
    at_models = (problem.line, problem.column) == tree.place(("models",))
    if at_models and "expected a mapping" in problem.message:
        return replace(problem, hint="write a name for each model, and its directory: `demo: models/demo`")
    return with_format_hint(problem, SETTINGS)
