"""The workspace: `tokmigrate.yaml`, which says what models there are, and where migrations and state live."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tokmigrate.errors import FileProblems, Problem, UnknownNameError, UsageError, nearest
from tokmigrate.strict_yaml import Tree, check, read

FILE_NAME = "tokmigrate.yaml"
STATE_VARIABLE = "TOKMIGRATE_STATE"
"""The environment variable that, where it is set and not empty, takes the place of `state:`."""

DEFAULT_STATE = "sqlite:///.tokmigrate/state.db"

NEW_WORKSPACE = """\
# The workspace of tokmigrate: which models there are, and where the migrations and the state live.
# Paths are relative to this file.
format: 1

migrations: migrations

# Any SQLAlchemy URL; PostgreSQL for a team. The environment variable TOKMIGRATE_STATE takes its place.
state: sqlite:///.tokmigrate/state.db

# Every model by the name that commands and migrations give it.
models: {}
#  demo: {path: models/demo}
#  support-7b:
#    path: /data/support-7b
#    adapters: [/data/loras/support]      # changed together with the model
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
"""
"""The text of a new `tokmigrate.yaml`."""

FieldShape = Literal["ids", "list", "map", "positions", "bias"]
"""How a field of a configuration holds ids of tokens.

`ids`: one id, or a list of which every member matters. `list`: ids, perhaps in lists, of which one may go.
`map`: an object whose values are ids. `positions`: pairs of a position and an id. `bias`: sequences of ids,
each with a number, as an object or as pairs.
"""

_SQLITE_FILE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class VocabTensorSetting:
    """What the workspace says of a tensor that no rule claims.

    Args:
        axis: Its vocabulary axis.
        side: Whether its rows start like input or like output embeddings.
    """

    axis: int
    side: Literal["input", "output"]


@dataclass(frozen=True)
class ModelEntry:
    """A model of the workspace.

    Args:
        name: The name that commands and migrations give it.
        path: The absolute path of its directory.
        adapters: The absolute paths of the adapters that change with it.
        tags: Names of groups that it belongs to.
        vocab_tensors: By tensor name, what settles an open question, or `ignore` for a coincidence.
        id_fields: By the name or dotted path of a field, how it holds ids of tokens, or `ignore` where it holds none.
    """

    name: str
    path: Path
    adapters: tuple[Path, ...] = ()
    tags: tuple[str, ...] = ()
    vocab_tensors: Mapping[str, VocabTensorSetting | Literal["ignore"]] = field(default_factory=dict)
    id_fields: Mapping[str, FieldShape | Literal["ignore"]] = field(default_factory=dict)


@dataclass(frozen=True)
class LintSetting:
    """Which rules `tokmigrate lint` asks.

    Args:
        select: Codes or beginnings of codes; none for all rules.
        ignore: Those that are left out.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workspace:
    """What `tokmigrate.yaml` says, with every path absolute.

    Args:
        root: The directory that holds `tokmigrate.yaml`.
        migrations: The directory of the migration files.
        state: The SQLAlchemy URL of the state.
        objects: The directory of the undo data.
        models: The models by name, in the order of the file.
        verify: `full` loads a result with transformers, `fast` with tokenizers only.
        seed: Part of the seed of every random row.
        lint: Which rules `tokmigrate lint` asks.
    """

    root: Path
    migrations: Path
    state: str
    objects: Path
    models: Mapping[str, ModelEntry]
    verify: Literal["full", "fast"] = "full"
    seed: str = ""
    lint: LintSetting = LintSetting()

    def select(self, names: Sequence[str]) -> tuple[ModelEntry, ...]:
        """Return the models that `names` mean, each once, in the order given.

        Args:
            names: Names of models or paths of model directories, also of ones that the workspace does
                not list; none at all means every model of the workspace.

        Raises:
            UnknownNameError: A name that is neither.
        """
        if not names:
            return tuple(self.models.values())
        chosen = {entry.path: entry for entry in map(self._named, names)}
        return tuple(chosen.values())

    def _named(self, name: str) -> ModelEntry:
        if name in self.models:
            return self.models[name]
        path = _absolute(Path.cwd(), name)
        if not path.is_dir():
            known = ", ".join(self.models) or "none"
            hint = nearest(name, self.models) or f"models of this workspace: {known}; or name a model directory"
            raise UnknownNameError(f"no model is called '{name}'", where=str(self.root / FILE_NAME), hint=hint)
        for entry in self.models.values():
            if entry.path.exists() and entry.path.samefile(path):
                return entry
        # A listed model may bear the directory's name; then the path tells the two apart.
        return ModelEntry(str(path) if path.name in self.models else path.name, path)


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _VocabTensor(_Closed):
    axis: Annotated[int, Field(ge=0)] = 0
    side: Literal["input", "output"]


_Name = Annotated[str, Field(min_length=1)]


class _Model(_Closed):
    path: _Name
    adapters: tuple[_Name, ...] = ()
    tags: tuple[_Name, ...] = ()
    vocab_tensors: dict[str, _VocabTensor | Literal["ignore"]] = {}
    id_fields: dict[_Name, FieldShape | Literal["ignore"]] = {}


class _Lint(_Closed):
    select: tuple[_Name, ...] = ()
    ignore: tuple[_Name, ...] = ()


def _models(value: object) -> object:
    return {} if value is None else value


class _File(_Closed):
    format: Literal["1"]
    migrations: _Name = "migrations"
    state: _Name = DEFAULT_STATE
    models: Annotated[dict[str, _Model] | None, BeforeValidator(_models)] = None
    verify: Literal["full", "fast"] = "full"
    seed: str = ""
    lint: _Lint = _Lint()


def find_workspace(start: Path) -> Path:
    """Return the `tokmigrate.yaml` of `start` or of the nearest directory above it.

    Raises:
        UsageError: There is none.
    """
    first = _absolute(Path.cwd(), str(start))
    for directory in (first, *first.parents):
        if (directory / FILE_NAME).is_file():
            return directory / FILE_NAME
    raise UsageError(
        f"no {FILE_NAME} here or in a directory above",
        where=str(first),
        hint="run 'tokmigrate init' to make a workspace",
    )


def read_workspace(path: Path, environment: Mapping[str, str] = os.environ) -> Workspace:
    """Return the workspace that a `tokmigrate.yaml` describes.

    Args:
        path: The file.
        environment: Where `TOKMIGRATE_STATE` may take the place of `state:`.

    Raises:
        FileProblems: All that is wrong in it, with places.
    """
    tree = read(path)
    content, problems = check(_File, tree)
    problems = [_with_format_hint(problem) for problem in problems] + _name_problems(tree)
    problems += _state_problems(tree)
    if content is None or problems:
        raise FileProblems(sorted(problems, key=lambda each: (each.line, each.column)))
    root = _absolute(Path.cwd(), str(path)).parent
    return Workspace(
        root=root,
        migrations=_absolute(root, content.migrations),
        state=_resolved_state(environment.get(STATE_VARIABLE) or content.state, root),
        objects=root / ".tokmigrate" / "objects",
        models=MappingProxyType({name: _entry(name, model, root) for name, model in (content.models or {}).items()}),
        verify=content.verify,
        seed=content.seed,
        lint=LintSetting(content.lint.select, content.lint.ignore),
    )


def _entry(name: str, model: _Model, root: Path) -> ModelEntry:
    return ModelEntry(
        name=name,
        path=_absolute(root, model.path),
        adapters=tuple(_absolute(root, adapter) for adapter in model.adapters),
        tags=model.tags,
        vocab_tensors=MappingProxyType(
            {
                tensor: "ignore" if setting == "ignore" else VocabTensorSetting(setting.axis, setting.side)
                for tensor, setting in model.vocab_tensors.items()
            }
        ),
        id_fields=MappingProxyType(model.id_fields),
    )


def _absolute(base: Path, path: str) -> Path:
    # Symbolic links stay as they are named: a model is what its path says.
    return Path(os.path.abspath(base / Path(path).expanduser()))  # noqa: PTH100


def _resolved_state(url: str, root: Path) -> str:
    """Return the URL with a relative SQLite path made absolute."""
    match = _SQLITE_FILE.fullmatch(url)
    if match is None or match[2].startswith("file:"):
        return url
    return f"{match[1]}{_absolute(root, match[2])}{match[3]}"


def _name_problems(tree: Tree) -> list[Problem]:
    models = tree.value.get("models") if isinstance(tree.value, Mapping) else None
    names: Iterable[str] = models if isinstance(models, Mapping) else ()
    hint = "a name has no '/' and is neither '', '.', '..' nor '*'"
    return [
        tree.key_problem(("models", name), f"'{name}' cannot be the name of a model", hint)
        for name in names
        if "/" in name or name in ("", ".", "..", "*")
    ]


def _state_problems(tree: Tree) -> list[Problem]:
    state = tree.value.get("state") if isinstance(tree.value, Mapping) else None
    if not isinstance(state, str):
        return []
    if "://" not in state:
        return [tree.problem(("state",), f"'{state}' is not a database URL", f"for example {DEFAULT_STATE}")]
    match = _SQLITE_FILE.fullmatch(state)
    if state.startswith("sqlite") and (match is None or match[2] in ("", ":memory:")):
        message = "a state in memory would be lost with the command"
        return [tree.problem(("state",), message, f"for example {DEFAULT_STATE}")]
    return []


def _with_format_hint(problem: Problem) -> Problem:
    if "'format'" in problem.message or "expected '1'" in problem.message:
        hint = "this version of tokmigrate reads 'format: 1'"
        return Problem(problem.path, problem.line, problem.column, problem.message, hint)
    return problem
