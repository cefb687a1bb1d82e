"""What pydantic finds, said in plain English."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tokmigrate.errors import nearest
from tokmigrate.formatting import format_count
from tokmigrate.strict_yaml.tree import is_null

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "model_attributes": "a mapping",
    "dataclass": "a mapping",
    "bytes": "text",
    "none_required": "nothing",
}


def messages(error: ValidationError) -> list[str]:
    """Return a line for each fault, naming the field, for values that have no place in a file."""
    lines = []
    for detail in error.errors(include_url=False):
        field = ".".join(str(step) for step in detail["loc"])
        message, hint = wording(detail)
        spot = field if field and detail["type"] not in ("missing", "extra_forbidden") else ""
        lines.append((f"{spot}: " if spot else "") + message + (f" ({hint})" if hint else ""))
    return lines


def expected(detail: ErrorDetails) -> str | None:
    """Return what a value of another kind was expected in its place, such as `a list`, or None."""
    kind = detail["type"]
    if kind in ("literal_error", "enum"):
        return str(detail["ctx"]["expected"])
    for ending in ("_type", "_parsing", "_from_float", "_parsing_size"):
        if kind.endswith(ending):
            return _EXPECTED.get(kind.removesuffix(ending))
    return _EXPECTED.get(kind)


def unlike(liked: Iterable[str], found: object) -> tuple[str, str | None]:
    """Return message and hint for a value that is none of the things that were expected."""
    choices = " or ".join(dict.fromkeys(liked))
    return f"expected {choices}, found {described(found)}", nearest(str(found), choices.split("'")[1::2])


def wording(detail: ErrorDetails) -> tuple[str, str | None]:
    """Return message and hint for one pydantic error."""
    kind = detail["type"]
    found: Any = detail.get("input")
    context: Mapping[str, Any] = detail.get("ctx", {})
    last = str(detail["loc"][-1]) if detail["loc"] else ""
    liked = expected(detail)
    if liked:
        return unlike([liked], found)
    if kind == "missing":
        return f"field '{last}' is missing", None
    if kind == "extra_forbidden":
        return f"unknown field '{last}'", None
    if kind == "union_tag_invalid":
        choices = str(context["expected_tags"])
        name = str(context["discriminator"]).strip("'")
        hint = nearest(str(context["tag"]), choices.split("'")[1::2])
        return f"unknown {name} '{context['tag']}'", hint or f"known are {choices}"
    if kind == "union_tag_not_found":
        return f"field {context['discriminator']} is missing", None
    if kind == "string_pattern_mismatch":
        return f"{described(found)} has not the form {context['pattern']}", None
    if kind in ("too_short", "string_too_short"):
        least = context.get("min_length", 1)
        noun = "item" if kind == "too_short" else "character"
        return f"expected at least {format_count(least, noun)}, found {described(found)}", None
    cause = context.get("error")
    if isinstance(cause, Exception):
        return str(cause), getattr(cause, "hint", None)
    message = detail["msg"].replace("Input should ", "has to ").replace("Value should ", "has to ")
    return message[:1].lower() + message[1:], None


def described(value: object) -> str:
    """Return a short description of a value for an error message."""
    if value is None or is_null(value):
        return "nothing"
    if isinstance(value, (str, list, tuple)) and not value:
        return "an empty text" if isinstance(value, str) else "an empty list"
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}…'"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "a list"
    return f"{value!r:.60}"
