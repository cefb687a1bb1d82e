"""Commands whose code is loaded when they run, so that help and completion start as fast as Python does."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from keyword import iskeyword
from types import ModuleType
from typing import Any, ClassVar, cast

import typer
from typer.core import TyperCommand, TyperGroup

from tokmigrate.cli.output import Stream


@dataclass(frozen=True)
class Entry:
    """A command as the list of commands shows it.

    Args:
        module: That of `tokmigrate.cli` with a function of the command's name.
        takes_negative: Whether -1 is a revision and not an option.
        pages: Whether long output goes to a pager.
    """

    panel: str
    module: str
    help: str
    takes_negative: bool = False
    pages: bool = False


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

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        _set_help_styles()
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the words mean, with its code."""
        name, command, rest = super().resolve_command(ctx, args)
        if name and self.entries[name].pages and isinstance(sys.stdout, Stream):
            sys.stdout.hold()
        return name, self.load(name) if name else command, rest

    def load(self, name: str) -> TyperCommand | TyperGroup:
        """Import a command with its options, or a group of commands."""
        entry = self.entries[name]
        with postpone_imports("tokmigrate.*"):
            module = import_module(f"tokmigrate.cli.{entry.module}")
            function = getattr(module, name.replace("-", "_") + ("_" if iskeyword(name) else ""))
        if isinstance(function, typer.Typer):
            group = typer.main.get_group(function)
            group.help = entry.help
            return group
        settings = {"ignore_unknown_options": True} if entry.takes_negative else None
        single = typer.Typer(add_completion=False, rich_markup_mode="rich")
        single.command(name, cls=Command, help=entry.help, context_settings=settings)(function)
        command = typer.main.get_command(single)
        if not isinstance(command, TyperCommand):
            raise TypeError(f"'{name}' is not a single command")
        return command


class Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _hide_type_of_flags(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _set_help_styles()
        super().format_help(ctx, formatter)


def _set_help_styles() -> None:
    """Let help have no yellow or cyan, which cannot be read on a light ground."""
    styles = import_module("typer.rich_utils")
    for name in ("STYLE_USAGE", "STYLE_OPTION", "STYLE_SWITCH", "STYLE_TYPES", "STYLE_COMMANDS_TABLE_FIRST_COLUMN"):
        setattr(styles, name, "bold")


def _hide_type_of_flags(parameters: list[Any]) -> list[Any]:
    """Return parameters whose help shows no type where they take no value."""
    for each in parameters:
        if getattr(each, "is_flag", False) and each.metavar is None:
            each.metavar = ""
    return parameters


_LOADING = threading.RLock()
_POSTPONED = "postponed"


class _LazyModule(ModuleType):
    """A module whose code runs when one of its names is first used; another thread waits for it."""

    def __getattribute__(self, name: str) -> Any:
        # An import of a module that is there already looks at its `__spec__` alone.
        if name != "__spec__":
            with _LOADING:
                spec = object.__getattribute__(self, "__spec__")
                if spec.loader_state == _POSTPONED:
                    spec.loader_state = None
                    try:
                        spec.loader.exec_module(self)
                    except BaseException:
                        spec.loader_state = _POSTPONED
                        raise
                    object.__setattr__(self, "__class__", ModuleType)
        return ModuleType.__getattribute__(self, name)


class _LazyLoader(Loader):
    """`importlib.util.LazyLoader`, which before Python 3.12 breaks where two threads use a module first."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = cast(ModuleSpec, module.__spec__)
        module.__loader__ = spec.loader = self._loader
        spec.loader_state = _POSTPONED
        module.__class__ = _LazyModule


@dataclass(frozen=True)
class _LazyFinder:
    pattern: str

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Return how a module is loaded, None for any other."""
        spec = PathFinder.find_spec(name, path, target) if fnmatchcase(name, self.pattern) else None
        if spec and spec.loader:
            spec.loader = _LazyLoader(spec.loader)
        return spec


@contextmanager
def postpone_imports(pattern: str) -> Iterator[None]:
    """Let `import x` and `from package import x` cost nothing until a name of the module x is used.

    It holds for full names that fit a pattern with `*` and `?`; `from package.x import y` uses y.
    """
    finder = _LazyFinder(pattern)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
