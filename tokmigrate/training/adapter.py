"""A LoRA that was trained with rows of tokens: its settings, and its directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from tokmigrate.apply.durable import open_new_directory
from tokmigrate.errors import FileProblems, Problem, TokmigrateError, UsageError
from tokmigrate.files import has_file, read_file, storage_errors
from tokmigrate.init.file_strategy import PROVENANCE, parse_provenance
from tokmigrate.model.formats.safetensors_header import read_header
from tokmigrate.model.weights.weights import ADAPTER
from tokmigrate.training.loaded_model import silence_libraries

LORA_RATE = 2e-4
RATE = "learning_rate"
"""The key beside the fields of a LoraConfig that says how fast its adapter learns."""


def read_lora(path: Path) -> dict[str, Any]:
    """Return the fields of a LoraConfig that a JSON file holds; raises FileProblems, UsageError."""
    if not has_file(path):
        hint = 'write one with fields of peft\'s LoraConfig: {"r": 8, "target_modules": "all-linear"}'
        raise UsageError("there is no such file", where=str(path), hint=hint)
    try:
        fields = json.loads(read_file(path))
    except UnicodeDecodeError as error:
        raise FileProblems([Problem(str(path), 1, 1, "this is not UTF-8", "save the file as UTF-8")]) from error
    except json.JSONDecodeError as error:
        raise FileProblems([Problem(str(path), error.lineno, error.colno, f"this is not JSON: {error.msg}")]) from error
    if not isinstance(fields, dict):
        hint = 'for example {"r": 8, "target_modules": "all-linear"}'
        raise FileProblems([Problem(str(path), 1, 1, "a LoraConfig is an object", hint)])
    rate = fields.get(RATE, LORA_RATE)
    if not isinstance(rate, int | float) or not 0 < rate < inf:
        raise FileProblems([Problem(str(path), 1, 1, f"`{RATE}` is not a positive number", "for example 0.0002")])
    return fields


def save_adapter(model: Any, directory: Path, provenance: Mapping[str, Any]) -> None:
    """Save the adapter of a PeftModel as a new directory, complete or not at all, with how it was trained."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - it imports torch

    with storage_errors("save the adapter", directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        with open_new_directory(directory) as folder:
            with silence_libraries():
                # The base model has all rows already.
                model.save_pretrained(str(folder), save_embedding_layers=False)
            metadata = {"format": "pt", PROVENANCE: json.dumps(provenance, ensure_ascii=False)}
            save_file(load_file(folder / ADAPTER), folder / ADAPTER, metadata=metadata)


def read_adapter_provenance(directory: Path) -> dict[str, Any] | None:
    """Return how an adapter was trained, None where its file does not say, or it is not there."""
    try:
        return parse_provenance(read_header(directory / ADAPTER).metadata)
    except TokmigrateError:
        return None
