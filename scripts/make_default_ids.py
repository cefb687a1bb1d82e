"""Writes model/documents/default_ids.json: ids of tokens that transformers takes where config.json gives none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from generated_files import main
from transformers import CONFIG_MAPPING

from tokmigrate.model.documents.config_fields import NESTED, shape_of
from tokmigrate.model.weights.architectures import ARCHITECTURES

TARGET = "tokmigrate/model/documents/default_ids.json"


def configs() -> Iterator[Any]:
    """Yield the default config of every architecture, and of the language models inside."""
    for model_type in ARCHITECTURES:
        yield from _parts(CONFIG_MAPPING[model_type]())


def _parts(config: Any) -> Iterator[Any]:
    yield config
    for name in NESTED:
        # Not what this config gives the part, but what a config.json without a word on it means.
        inner = type(getattr(config, name)) if name in (getattr(type(config), "sub_configs", None) or {}) else None
        if inner is not None and hasattr(inner, "model_type"):
            yield from _parts(inner())


def default_ids() -> dict[str, dict[str, Any]]:
    """Return the ids by model type and field."""
    found: dict[str, dict[str, Any]] = {}
    for config in configs():
        held = {name: value for name, value in config.to_dict().items() if shape_of(name) in {"ids", "list"}}
        given = {name: value for name, value in sorted(held.items()) if _is_ids(value)}
        if given:
            found[config.model_type] = given
    return dict(sorted(found.items()))


def _is_ids(value: Any) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return bool(numbers) and all(type(number) is int and number >= 0 for number in numbers)


def generated() -> str:
    """Return the file's text, a line for each model type."""
    lines = [f"  {json.dumps(model_type)}: {json.dumps(ids)}" for model_type, ids in default_ids().items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main({TARGET: generated()})
