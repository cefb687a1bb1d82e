"""What `doctor` found, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.padding import Padding

from tokmigrate.errors import TokmigrateError
from tokmigrate.formatting import format_bytes, format_count
from tokmigrate.render.escape import escape
from tokmigrate.render.terminal import plain_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokmigrate.apply.abilities import Abilities
    from tokmigrate.commands.doctor import Installation, ModelHealth, WorkspaceHealth

_ABILITIES = {
    "swap": (
        "swap of directories",
        "three renames replace it; after a crash between them `tokmigrate recover` finishes it",
    ),
    "reflink": ("reflinks", "unchanged files are hard links; a shard that changes is written as a whole"),
    "hard_links": ("hard links", "unchanged files are copied, which takes their size in disk space"),
    "attributes": ("extended attributes", "a model that has some cannot be changed without --no-owner"),
}
"""What each ability is called, and what it means that it is missing."""


def installation_text(found: Installation) -> Iterator[RenderableType]:
    """Yield versions, the machine, and the extras."""
    versions = {"tokmigrate": found.versions["tokmigrate"], "Python": found.versions["python"]}
    memory = f", {format_bytes(found.free_memory)} of memory free" if found.free_memory is not None else ""
    yield f"{_format_versions(versions)} on {found.system}; {format_count(found.cores, 'core')}{memory}"
    yield _format_versions(
        {name: each for name, each in found.versions.items() if name not in ("tokmigrate", "python")}
    )
    table = plain_table("extra", "state", "gives", "install")
    for extra in found.extras:
        if extra.missing:
            table.add_row(extra.name, f"missing: {', '.join(extra.missing)}", extra.gives, extra.install)
        else:
            table.add_row(extra.name, "complete", extra.gives, "")
    yield table


def installation_content(found: Installation) -> dict[str, Any]:
    """Return the same as JSON."""
    return {**vars(found), "extras": [{**vars(each), "install": each.install} for each in found.extras]}


def workspace_text(found: WorkspaceHealth, models: Iterable[ModelHealth]) -> Iterator[RenderableType]:
    """Yield the state, and what can be done with the directories of each model."""
    if found.state:
        version = f"schema version {found.state.version}" if found.state.version else "the first upgrade creates it"
        yield f"state: {found.state.kind}, {escape(found.state.place)}, {version}, writable"
    models = [*models]
    if not models:
        yield "no model: list one under `models:` in tokmigrate.yaml"
    for model in models:
        if model.locked_by:
            yield f"{escape(model.name)}: locked by {escape(model.locked_by)}"
        for directory in model.directories:
            yield f"{escape(model.name)}: {escape(str(directory.path))}"
            if directory.abilities:
                yield Padding.indent(_abilities_table(directory.abilities), 2)


def workspace_content(found: WorkspaceHealth, models: Iterable[ModelHealth]) -> dict[str, Any]:
    """Return the same as JSON."""
    return {
        "state": found.state,
        "models": [
            {"model": each.name, "locked_by": each.locked_by, "directories": each.directories} for each in models
        ],
    }


def problem_lines(problems: Sequence[TokmigrateError]) -> Iterator[str]:
    """Yield each problem with what to do, or that there is none."""
    for problem in problems:
        yield f"problem: {problem}"
        if problem.hint:
            yield f"  what to do: {problem.hint}"
    yield f"{format_count(len(problems), 'problem') if problems else 'no problem'} found"


def _format_versions(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())


def _abilities_table(abilities: Abilities) -> RenderableType:
    table = plain_table("", "", "")
    table.show_header = False
    for name, (called, without) in _ABILITIES.items():
        has_it = getattr(abilities, name)
        table.add_row(called, "yes" if has_it else "no", "" if has_it else without)
    table.add_row("free space", format_bytes(abilities.free_bytes), "")
    return table
