"""Commands as sections of Markdown: what each argument and option takes is read off the application."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperOption

from tokmigrate.cli.app import COMMANDS, app
from tokmigrate.cli.lazy_group import LazyGroup

_HEAD = ["| argument | takes | meaning | default |", "|---|---|---|---|"]


def commands() -> dict[str, TyperCommand]:
    """Return the commands by their names, those of a group with its name before."""
    found: dict[str, TyperCommand] = {}
    for name in COMMANDS:
        loaded = _group().load(name)
        if isinstance(loaded, TyperCommand):
            found[name] = loaded
        else:
            found |= {f"{name} {each}": command for each, command in loaded.commands.items()}
    return found


def common_options() -> list[str]:
    """Return the table of the options of the program itself, as Markdown."""
    group = _group()
    return _table(group.callback, [each for each in group.params if "completion" not in str(each.name)])


def panels() -> dict[str, list[str]]:
    """Return the names of the commands in each panel of the help."""
    found: dict[str, list[str]] = {}
    for name in commands():
        found.setdefault(COMMANDS[name.split()[0]].panel, []).append(name)
    return found


def section(name: str, command: TyperCommand) -> list[str]:
    """Return the lines that describe a command and its options, as Markdown."""
    paragraphs = (inspect.getdoc(inspect.unwrap(command.callback or section)) or "").split("\n\n")
    text = "\n\n".join(textwrap.fill(each, 120, break_long_words=False, break_on_hyphens=False) for each in paragraphs)
    return [f"## `tokmigrate {name}`", "", text, "", *_table(command.callback, command.params)]


@cache
def _group() -> LazyGroup:
    group = typer.main.get_command(app)
    if not isinstance(group, LazyGroup):
        raise TypeError("the application is a group of commands")
    return group


def _table(callback: Callable[..., Any] | None, parameters: list[Any]) -> list[str]:
    hints = get_type_hints(inspect.unwrap(callback)) if callback else {}
    return [*_HEAD, *(_row(parameter, hints) for parameter in parameters), ""]


def _row(parameter: Any, hints: Mapping[str, Any]) -> str:
    if isinstance(parameter, TyperOption):
        shown = ", ".join(f"`{word}`" for word in (*parameter.opts, *parameter.secondary_opts))
    else:
        shown = f"`{parameter.metavar or str(parameter.name).upper()}`"
    cells = (shown, _takes(parameter, hints[str(parameter.name)]), parameter.help or "", _default(parameter))
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def _takes(parameter: Any, hint: Any) -> str:
    if not isinstance(parameter, TyperOption):
        return ""
    if parameter.is_flag:
        return "flag"
    word = parameter.metavar or ("NUMBER" if int in (hint, *get_args(hint)) else "TEXT")
    taken = ", ".join(f"`{choice}`" for choice in _choices(hint)) or f"`{word}`"
    return f"{taken}; repeatable" if parameter.multiple else taken


def _choices(hint: Any) -> Iterator[str]:
    if get_origin(hint) is Literal:
        yield from map(str, get_args(hint))
    elif get_origin(hint) in (Union, UnionType):
        for member in get_args(hint):
            yield from _choices(member)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if default is None or default is False or str(default) in ("", "()"):
        return ""
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
