"""Write what is made from the code: docs/reference.md, a page for each operation and strategy, and the JSON Schema."""

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
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    return {REFERENCE: reference(), SCHEMA: schema, **pages()}


def pages() -> dict[Path, str]:
    """Return the page of each operation and strategy, with the example that stands beside it."""
    found: dict[Path, str] = {}
    for folder, kinds in (("operations", operation_types()), ("strategies", strategy_types())):
        for name, kind in kinds.items():
            page = REFERENCE.parent / folder / f"{name}.md"
            example = page.with_suffix(".yaml").read_text("utf-8")
            lines = [f"# `{name}`", "", *_fields(name, kind, folder)[2:], "## Example", ""]
            lines += ["Under `operations:` of a migration:", "", f"```yaml\n{example}```", ""]
            found[page] = "\n".join([*lines, "[All operations and strategies](../reference.md)"]) + "\n"
    return found


def reference() -> str:
    """Return the reference as Markdown."""
    lines = ["# Reference", "", "Generated from the code by `python scripts/make_reference.py`.", ""]
    lines += ["## Operations", ""]
    lines += ["A page of its own, with an example, is behind each name.", ""]
    for name, operation in operation_types().items():
        lines += _linked("operations", _fields(name, operation, "operation"))
    lines += [
        "## Init strategies",
        "",
        "Each is given as `init: {strategy: NAME, …}`, or apart as",
        "`init: {input: …, output: …}`.",
        "",
    ]
    for name, strategy in strategy_types().items():
        lines += _linked("strategies", _fields(name, strategy, "strategy"))
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


def _linked(folder: str, lines: list[str]) -> list[str]:
    name = lines[0].strip("# `")
    return [f"### [`{name}`]({folder}/{name}.md)", *lines[1:]]


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
