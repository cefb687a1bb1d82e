"""A field that lists tokens; a text alone is a list of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


TokenList = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]
"""Texts of tokens."""


def quoted(texts: Sequence[str], shown: int = 3) -> str:
    """Return the first few of `texts` in quotes, and how many more there are."""
    first = ", ".join(f"'{text}'" for text in texts[:shown])
    return first if len(texts) <= shown else f"{first} and {len(texts) - shown} more"
