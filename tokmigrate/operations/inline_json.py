"""Inline JSON of the tokenizers library in a migration file, and what it may be."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from tokmigrate.strict_yaml import is_null
from tokmigrate.strict_yaml.tree import Plain

_WORDS = {"true": True, "false": False, "null": None}
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def typed(value: Any) -> Any:
    """Return `value` with the texts that were written without quotes typed as JSON types them.

    JSON is YAML, so what stands in a tokenizer.json can be pasted as it is: a quoted text stays text, and
    `true`, `false`, `null` and JSON's numbers mean what they mean there. Any other unquoted text is text.
    """
    if isinstance(value, Mapping):
        return {str(name): typed(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [typed(inner) for inner in value]
    if isinstance(value, Plain):
        if is_null(value):
            return None
        if value in _WORDS:
            return _WORDS[value]
        return json.loads(value) if _NUMBER.fullmatch(value) else str(value)
    return value


def part(value: Any) -> dict[str, Any] | None:
    """Return a part of tokenizer.json as a migration gives it, typed; raises ValueError for anything else."""
    value = typed(value)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("expected a mapping as in tokenizer.json, or null to remove the part")  # noqa: TRY004 - pydantic reads ValueError
    if not isinstance(value.get("type"), str):
        raise ValueError('a part of tokenizer.json says its `type`, such as {type: "Sequence", …}')  # noqa: TRY004
    return value


Part = Annotated[
    dict[str, Any] | None,
    BeforeValidator(part, json_schema_input_type=dict[str, Any] | None),
]
"""A field that takes a part of tokenizer.json."""
