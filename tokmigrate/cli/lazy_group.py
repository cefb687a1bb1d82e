"""Commands whose code is loaded when they run, so that help and completion start as fast as Python does."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from keyword import iskeyword
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

_PACKAGE = "tokmigrate."


@dataclass(frozen=True)
class Entry:
    """A command as the list of commands shows it.

    Args:
        panel: The group of commands that the help shows it in.
        module: The module of `tokmigrate.cli` with a function of the command's name.
        help: What it does, in one sentence.
        takes_negative: Whether an argument such as -1 is a revision and not an option.
    """

    panel: str
    module: str
    help: str
    takes_negative: bool = False


class LazyGroup(TyperGroup):
    """A group that lists commands from a table and imports the module of a command when it is used."""

    entries: ClassVar[Mapping[str, Entry]] = {}

    def __init__(self, **attributes: Any) -> None:
        """Make a group that knows names, panels and help of its commands."""
        super().__init__(**attributes)
        for name, entry in self.entries.items():
            self.add_command(TyperCommand(name, help=entry.help, rich_help_panel=entry.panel))

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options of the program itself."""
        return _hide_type_of_flags(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the words mean, with its code."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, self.load(name) if name else command, rest

    def load(self, name: str) -> TyperCommand:
        """Import a command with its options."""
        entry = self.entries[name]
        with _postpone_imports():
            module = import_module(f"{_PACKAGE}cli.{entry.module}")
            function = getattr(module, name.replace("-", "_") + ("_" if iskeyword(name) else ""))
        settings = {"ignore_unknown_options": True} if entry.takes_negative else None
        single = typer.Typer(add_completion=False, rich_markup_mode="rich")
        single.command(name, cls=_Command, help=entry.help, context_settings=settings)(function)
        command = typer.main.get_command(single)
        if not isinstance(command, TyperCommand):
            raise TypeError(f"'{name}' is not a single command")
        return command


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _hide_type_of_flags(super().get_params(ctx))


def _hide_type_of_flags(parameters: list[Any]) -> list[Any]:
    """Return parameters whose help shows no type where they take no value."""
    for each in parameters:
        if getattr(each, "is_flag", False) and each.metavar is None:
            each.metavar = ""
    return parameters


class _LazyFinder:
    """Finds modules of this package whose code runs when one of their names is first used."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Return how a module of this package is loaded, None for any other."""
        spec = PathFinder.find_spec(name, path, target) if name.startswith(_PACKAGE) else None
        if spec and spec.loader:
            spec.loader = LazyLoader(spec.loader)
        return spec


@contextmanager
def _postpone_imports() -> Iterator[None]:
    """Let `from tokmigrate.x import y` cost nothing for a module `y` until `y.name` is used."""
    sys.meta_path.insert(0, _LazyFinder)
    try:
        yield
    finally:
        sys.meta_path.remove(_LazyFinder)
