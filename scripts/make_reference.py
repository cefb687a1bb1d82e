"""Write docs/reference.md from the code: operations, init strategies, commands."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import click
import typer
from pydantic import BaseModel

from tokmigrate.cli.app import app
from tokmigrate.initialise.registry import strategy_types
from tokmigrate.operations.registry import operation_types

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference.md"


def reference() -> str:
    """Return the reference as Markdown."""
    lines = ["# Reference", "", "Generated from the code by `python scripts/make_reference.py`.", ""]
    lines += ["## Operations", ""]
    for name, operation in operation_types().items():
        lines += _fields(name, operation, "operation")
    lines += [
        "## Init strategies",
        "",
        "Each is given as `init: {strategy: NAME, …}`, or apart as",
        "`init: {input: …, output: …}`.",
        "",
    ]
    for name, strategy in strategy_types().items():
        lines += _fields(name, strategy, "strategy")
    lines += ["## Commands", ""]
    group = typer.main.get_command(app)
    if not isinstance(group, click.Group):
        raise TypeError("the application is a group of commands")
    for name, command in group.commands.items():
        lines += _command(name, command)
    return "\n".join(lines).rstrip() + "\n"


def _fields(name: str, kind: type[BaseModel], what: str) -> list[str]:
    lines = [f"### `{name}`", "", inspect.getdoc(kind) or f"A {what}.", ""]
    rows = [
        f"| `{field}` | {_one_line(info.description or '')} | {_default(info.is_required(), info.default)} |"
        for field, info in kind.model_fields.items()
        if field != "strategy"
    ]
    if rows:
        lines += ["| field | meaning | default |", "|---|---|---|", *rows, ""]
    return lines


def _command(name: str, command: click.Command) -> list[str]:
    lines = [f"### `tokmigrate {name}`", "", inspect.cleandoc(command.help or ""), ""]
    rows = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            shown = ", ".join(f"`{word}`" for word in (*parameter.opts, *parameter.secondary_opts))
            rows.append(f"| {shown} | {_one_line(parameter.help or '')} |")
        else:
            rows.append(f"| `{(parameter.name or '').upper()}` | {_one_line(getattr(parameter, 'help', '') or '')} |")
    return [*lines, "| argument | meaning |", "|---|---|", *rows, ""]


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(required: bool, default: object) -> str:
    return "required" if required else f"`{default}`"


if __name__ == "__main__":
    text = reference()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if TARGET.read_text("utf-8") == text else "docs/reference.md is out of date")
    TARGET.write_text(text, "utf-8")
