"""Write what is made from the code: docs/reference.md, and the JSON Schema beside the migrations."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import typer
from pydantic import BaseModel
from typer.core import TyperCommand, TyperGroup, TyperOption

from tokmigrate.cli.app import app
from tokmigrate.initialise.registry import strategy_types
from tokmigrate.operations.registry import operation_types
from tokmigrate.revision.conditions import CHECKS, PRECONDITIONS
from tokmigrate.revision.schema import SCHEMA_FILE, json_schema

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference.md"
SCHEMA = ROOT / "migrations" / SCHEMA_FILE


def generated() -> dict[Path, str]:
    """Return each generated file with its text."""
    return {REFERENCE: reference(), SCHEMA: json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"}


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
    lines += ["## Preconditions", "", "Under `preconditions:`; what has to hold before.", ""]
    for name, condition in PRECONDITIONS.items():
        lines += _fields(name, condition, "precondition")
    lines += ["## Checks", "", "Under `verify:`; what has to hold after.", ""]
    for name, check in CHECKS.items():
        lines += _fields(name, check, "check")
    lines += ["## Commands", "", "An error comes with its traceback where `--debug` is given.", ""]
    group = typer.main.get_command(app)
    if not isinstance(group, TyperGroup):
        raise TypeError("the application is a group of commands")
    for name, command in group.commands.items():
        if isinstance(command, TyperCommand):
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


def _command(name: str, command: TyperCommand) -> list[str]:
    lines = [f"### `tokmigrate {name}`", "", inspect.cleandoc(command.help or ""), ""]
    rows = []
    for parameter in command.params:
        if isinstance(parameter, TyperOption):
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
    stale = [path for path, text in generated().items() if not path.is_file() or path.read_text("utf-8") != text]
    if "--check" in sys.argv[1:]:
        sys.exit(f"out of date: {', '.join(str(path.relative_to(ROOT)) for path in stale)}" if stale else 0)
    for path in stale:
        path.write_text(generated()[path], "utf-8")
