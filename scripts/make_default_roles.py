"""Writes model/class_defaults/default_roles.json: special tokens of tokenizer classes where no file says them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import transformers
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from tokmigrate.model.documents.roles import ROLES

TARGET = Path(__file__).resolve().parents[1] / "tokmigrate" / "model" / "class_defaults" / "default_roles.json"


def default_roles() -> dict[str, dict[str, str]]:
    """Return the text of each role by class, for classes that have any."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted({name for name in TOKENIZER_MAPPING_NAMES.values() if name}):
        given = inspect.signature(getattr(transformers, name).__init__).parameters
        texts = {role: given[f"{role}_token"].default for role in ROLES if f"{role}_token" in given}
        roles = {role: text for role, text in texts.items() if isinstance(text, str)}
        if roles:
            found[name] = roles
    return found


def generated() -> str:
    """Return the file's text, a line for each class and each model type."""
    types = {model_type: name for model_type, name in sorted(TOKENIZER_MAPPING_NAMES.items()) if name}
    tables = {"classes": default_roles(), "model_types": types}
    parts = []
    for title, table in tables.items():
        lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(held)}" for name, held in table.items())
        parts.append(f"  {json.dumps(title)}: {{\n{lines}\n  }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    TARGET.write_text(generated(), "utf-8")
