"""Lists whose items are mappings with one key, which says what the item is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar, cast

from pydantic import BaseModel

from tokmigrate.errors import Problem, nearest
from tokmigrate.strict_yaml import Entry, Node, Tree, check, is_null


class Kind(Protocol):
    """A pydantic model that has a name in migration files, and may have a field that a single value fills."""

    name: str
    shorthand: str | None


T = TypeVar("T", bound=BaseModel)


def read_items(
    tree: Tree, field: str, kinds: Mapping[str, type[T]], noun: str
) -> tuple[list[tuple[T, str]], list[Problem]]:
    """Return the items of the list `field` with their places, and all their faults.

    Args:
        tree: A mapping, which may lack the field.
        field: The name of the list.
        kinds: What an item can be, by name.
        noun: What an item is called in messages.
    """
    content = tree.value.get(field)
    items: list[tuple[T, str]] = []
    problems: list[Problem] = []
    for number in range(len(content) if isinstance(content, list) else 0):
        item, faults = _item(tree.at((field, number)), kinds, noun)
        problems += faults
        if item is not None:
            items.append((item, tree.where((field, number))))
    return items, problems


def _item(tree: Tree, kinds: Mapping[str, type[T]], noun: str) -> tuple[T | None, list[Problem]]:
    content = tree.value
    if not isinstance(content, Mapping):
        hint = f"write '- {content}: {{…}}'" if isinstance(content, str) and content in kinds else None
        return None, [tree.problem((), f"an item has to be a mapping with the name of the {noun}", hint)]
    if len(content) != 1:
        found = ", ".join(f"'{name}'" for name in content) or "none"
        hint = "put '- ' before each, and indent its fields by two more"
        return None, [tree.problem((), f"expected one {noun}, found {found}", hint)]
    (name,) = content
    if name not in kinds:
        hint = nearest(name, kinds) or "known are " + ", ".join(kinds)
        return None, [tree.key_problem((name,), f"unknown {noun} '{name}'", hint)]
    fields = _with_fields(tree.at((name,)), cast(Kind, kinds[name]))
    return check(kinds[name], fields)


def _with_fields(tree: Tree, kind: Kind) -> Tree:
    """Return the fields of an item as a mapping, also where they are left out or stand for one alone."""
    if isinstance(tree.value, Mapping):
        return tree
    if is_null(tree.value) and (kind.shorthand is None or tree.value == ""):
        empty: dict[str, Entry] = {}
        return Tree(tree.path, Node(tree.root.line, tree.root.column, empty))
    return tree.under(kind.shorthand) if kind.shorthand else tree
