"""The ids that transformers takes where config.json gives none: they move too, and must then be written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from tokmigrate.model.formats.json_text import Json


def default_ids(model_type: str) -> Mapping[str, Json]:
    """Return the ids by field that the config of a model type has by default; a test holds them against transformers.

    Args:
        model_type: As config.json, or a part of it, names it.
    """
    return _table().get(model_type, {})


@cache
def _table() -> Mapping[str, Mapping[str, Json]]:
    found: Mapping[str, Mapping[str, Json]] = json.loads(
        files(__package__).joinpath("default_ids.json").read_text("utf-8")
    )
    return found
