"""What an installation and a workspace can do, and what is missing: versions, extras, state, filesystems."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from tokmigrate.apply.abilities import Abilities, try_abilities
from tokmigrate.audit.run_status import find_lock_holder, refuse_interrupted
from tokmigrate.commands.resources import free_memory
from tokmigrate.errors import TokmigrateError, UsageError
from tokmigrate.files import check_writable
from tokmigrate.model.adapter import require_adapter
from tokmigrate.model.gguf_copy import check_is_file
from tokmigrate.parallel import count_cores
from tokmigrate.revision.history import refuse_unfinished
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import StateAccess, try_state

GIVES: Mapping[str, str] = {
    "corpus": "Parquet, Arrow and Zstandard files as a corpus",
    "focus": "`learn transplant --method focus`",
    "postgres": "a PostgreSQL database as the state",
    "train": "`train` and `distil`",
}
"""What each extra gives."""

_DISTRIBUTION = "tokmigrate"


@dataclass(frozen=True)
class Extra:
    """An extra, and what of it is not installed in a version that will do."""

    name: str
    gives: str
    missing: tuple[str, ...]

    @property
    def install(self) -> str:
        """Return the command that installs it."""
        return f'pip install "{_DISTRIBUTION}[{self.name}]"'


@dataclass(frozen=True)
class Installation:
    """What is installed; `versions` has None for what is not, and `problems` is what does not suit tokmigrate."""

    system: str
    versions: Mapping[str, str | None]
    extras: tuple[Extra, ...]
    cores: int
    free_memory: int | None
    problems: tuple[TokmigrateError, ...]


@dataclass(frozen=True)
class DirectoryHealth:
    """What can be done with a directory of a model, its own or an adapter's; None if that could not be tried."""

    path: Path
    abilities: Abilities | None


@dataclass(frozen=True)
class ModelHealth:
    """The directories of a model, the process that is changing it, and what an upgrade would stumble over."""

    name: str
    directories: tuple[DirectoryHealth, ...]
    locked_by: str | None
    problems: tuple[TokmigrateError, ...]


@dataclass(frozen=True)
class WorkspaceHealth:
    """The state of a workspace; None if it cannot be opened."""

    state: StateAccess | None
    problems: tuple[TokmigrateError, ...]


def examine_installation() -> Installation:
    """Return what is installed, by its metadata: no library is imported."""
    requirements = [Requirement(text) for text in _requirements()]
    needed = [each for each in requirements if _is_needed(each, "")]
    versions = {_DISTRIBUTION: _find_version(_DISTRIBUTION), "python": platform.python_version()}
    extras = tuple(Extra(name, gives, tuple(_find_missing(requirements, name))) for name, gives in GIVES.items())
    problems = tuple(
        UsageError(
            f"tokmigrate needs {each.name}{each.specifier}",
            where=found,
            hint=f'pip install "{each.name}{each.specifier}"',
        )
        for each, found in _find_unsuited(needed)
    )
    found = {each.name: _find_version(each.name) for each in needed}
    return Installation(platform.platform(), {**versions, **found}, extras, count_cores(), free_memory(), problems)


def examine_workspace(workspace: Workspace) -> WorkspaceHealth:
    """Return whether the state can be read and written, and whether migrations and undo data can."""
    problems: list[TokmigrateError] = []
    state: StateAccess | None = None
    with _keep_problem(problems):
        refuse_unfinished(workspace)
    with _keep_problem(problems):
        state = try_state(workspace.state, workspace.root)
        check_writable(workspace.objects)
    return WorkspaceHealth(state, tuple(problems))


def examine_model(entry: ModelEntry) -> ModelHealth:
    """Return what the filesystems of a model and its adapters can do, and what stands in the way of a change."""
    problems: list[TokmigrateError] = []
    locked_by = None
    with _keep_problem(problems):
        locked_by = find_lock_holder(entry)
        refuse_interrupted(entry)
    directories: list[DirectoryHealth] = []
    for path in (entry.path, *entry.adapters):
        abilities = None
        with _keep_problem(problems):
            entry.here() if path == entry.path else require_adapter(path)
            abilities = try_abilities(path)
        directories.append(DirectoryHealth(path, abilities))
    for path in (copy.path for copy in entry.copies if copy.follow):
        with _keep_problem(problems):
            check_is_file(path)
            check_writable(path.parent)
    return ModelHealth(entry.name, tuple(directories), locked_by, tuple(problems))


@contextmanager
def _keep_problem(problems: list[TokmigrateError]) -> Iterator[None]:
    """Add what is raised to `problems`, unless another step has raised the same."""
    try:
        yield
    except TokmigrateError as error:
        if str(error) not in map(str, problems):
            problems.append(error)


def _requirements() -> list[str]:
    try:
        return requires(_DISTRIBUTION) or []
    except PackageNotFoundError:
        return []


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _is_needed(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _find_missing(requirements: Iterable[Requirement], extra: str) -> Iterator[str]:
    own = (each for each in requirements if _is_needed(each, extra) and not _is_needed(each, ""))
    return (f"{each.name}{each.specifier}" for each, _ in _find_unsuited(own))


def _find_unsuited(requirements: Iterable[Requirement]) -> Iterator[tuple[Requirement, str]]:
    """Yield each requirement that is not met, with what there is."""
    for each in requirements:
        found = _find_version(each.name)
        if found is None:
            yield each, f"{each.name} is missing"
        elif not each.specifier.contains(found, prereleases=True):
            yield each, f"{each.name} {found}"
