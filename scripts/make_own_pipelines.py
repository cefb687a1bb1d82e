"""Writes model/class_defaults/own_pipelines.json: the tokenizer classes that build their own pipeline."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from transformers import TokenizersBackend
from transformers.models.auto import tokenization_auto
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

TARGET = Path(__file__).resolve().parents[1] / "tokmigrate" / "model" / "class_defaults" / "own_pipelines.json"
ALWAYS = ("normalizer", "pre_tokenizer", "decoder")


def registered() -> dict[str, str]:
    """Return the class of each model type whose tokenizer is the tokenizers library's."""
    found: dict[str, str] = {}
    for model_type, name in sorted(TOKENIZER_MAPPING_NAMES.items()):
        known = tokenizer_class_from_name(name) if name else None
        if known is not None and issubclass(known, TokenizersBackend):
            found[model_type] = known.__name__
    return found


def own_pipelines() -> dict[str, dict[str, Any]]:
    """Return what each class that builds its own pipeline takes where tokenizer_config.json gives nothing."""
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(set(registered().values())):
        known: Any = tokenizer_class_from_name(name)
        source = inspect.getsource(known)
        # A class without an `__init__` of its own takes tokenizer.json as it is.
        if known is TokenizersBackend or "__init__" not in known.__dict__ or "self._tokenizer = " not in source:
            continue
        parameters = inspect.signature(known.__init__).parameters
        tokens = {
            role: given.default
            for role, given in parameters.items()
            if role.endswith("_token") and isinstance(given.default, str)
        }
        # The post-processor is taken from the file, unless the class sets one itself.
        builds = [*ALWAYS, *(["post_processor"] if "self._tokenizer.post_processor = " in source else [])]
        found[name] = {
            "builds": builds,
            **tokens,
            "model_input_names": known.model_input_names,
            "padding_side": known.padding_side,
        }
    return found


def not_asked() -> list[str]:
    """Return the model types that load their class whatever tokenizer_config.json says."""
    names: set[str] = tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    return sorted(model_type for model_type in names if registered().get(model_type) in own_pipelines())


def generated() -> str:
    """Return the file's text, a line for each class and model type."""
    classes = [f"    {json.dumps(name)}: {json.dumps(given)}" for name, given in own_pipelines().items()]
    types = [f"    {json.dumps(model_type)}: {json.dumps(name)}" for model_type, name in registered().items()]
    return (
        '{\n  "classes": {\n' + ",\n".join(classes) + '\n  },\n  "registered": {\n' + ",\n".join(types) + "\n  },\n"
        f'  "not_asked": {json.dumps(not_asked())}\n}}\n'
    )


if __name__ == "__main__":
    TARGET.write_text(generated(), "utf-8")
