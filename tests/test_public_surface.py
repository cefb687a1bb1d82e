"""What an installed tokmigrate consists of."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files

from workspaces import REPOSITORY

import tokmigrate
from tokmigrate.revision.new_file import json_schema


def test_the_version_is_that_of_the_distribution() -> None:
    assert tokmigrate.__version__ == version("tokmigrate")


def test_the_package_says_that_it_is_typed() -> None:
    assert files("tokmigrate").joinpath("py.typed").is_file()


def test_docstrings_name_the_parameters_that_there_are() -> None:
    for path in (REPOSITORY / "tokmigrate").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                _, found, section = (ast.get_docstring(node) or "").partition("Args:\n")
                named = set(re.findall(r"^    \**(\w+):", section.split("\n\n")[0], re.MULTILINE)) if found else set()
                assert named <= set(_parameters(node)), f"{path}:{node.lineno}"


def _parameters(node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef):
        yield from (each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg))
        return
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            yield each.target.id
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            yield from _parameters(each)


def test_the_schema_is_one_document_whose_references_resolve() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["required"]) <= set(schema["properties"])
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(schema)))
    assert references
    assert {reference.removeprefix("#/$defs/") for reference in references} <= set(schema["$defs"])
    kinds = {"array", "boolean", "integer", "null", "number", "object", "string"}
    assert _types(schema) <= kinds


def _types(schema: object) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_types, schema))
    if not isinstance(schema, dict):
        return set()
    found = schema.get("type", [])
    own = {found} if isinstance(found, str) else set(found) if isinstance(found, list) else set()
    return own.union(*map(_types, schema.values()))
