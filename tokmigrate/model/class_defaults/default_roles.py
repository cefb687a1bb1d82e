"""The special tokens that transformers takes where no file says them: those of the tokenizer's class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from tokmigrate.model.formats.json_text import Json

_ANY = "TokenizersBackend"
"""The class that takes a tokenizer.json as it is."""


def default_roles(tokenizer_class: Json, model_type: Json) -> Mapping[str, str]:
    """Return the text of each role; a test holds the table against transformers.

    Args:
        tokenizer_class: As tokenizer_config.json names it, None where it does not.
        model_type: As config.json names it, None without one.
    """
    table = _table()
    by_type = table["model_types"].get(str(model_type))
    if tokenizer_class is None:
        name = by_type
    else:
        # For these model types transformers does not believe what the file says.
        name = _ANY if by_type == _ANY else str(tokenizer_class).removesuffix("Fast")
    found: Mapping[str, str] = table["classes"].get(name, {})
    return found


@cache
def _table() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(files(__package__).joinpath("default_roles.json").read_text("utf-8"))
    return found
