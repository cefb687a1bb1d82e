"""Writes model/documents/pipeline_overrides.json: what tokenizer classes of transformers take of tokenizer.json.

Nothing is read off source code: each class loads a tokenizer.json whose parts no class builds, and the table says which
parts it does not take. So a class that the installed transformers has newly, or builds otherwise, shows.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import transformers
from generated_files import main
from transformers import TokenizersBackend
from transformers.models.auto import tokenization_auto
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

TARGET = "tokmigrate/model/documents/pipeline_overrides.json"
GENERIC = ("TokenizersBackend", "PythonBackend", "PreTrainedTokenizerBase")

_ODD = {"pattern": {"String": "\u2603"}}
_ENDS = {"c": {"id": "c", "ids": [2], "tokens": ["c"]}}
_TEXT = {"Sequence": {"id": "A", "type_id": 0}}
_LAST = {"SpecialToken": {"id": "c", "type_id": 0}}
_PARTS = {
    "normalizer": {"type": "Replace", **_ODD, "content": "x"},
    "pre_tokenizer": {"type": "Split", **_ODD, "behavior": "Isolated", "invert": False},
    "decoder": {"type": "Replace", **_ODD, "content": "x"},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [_TEXT, _LAST],
        "pair": [_TEXT, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": _ENDS,
    },
}
_KINDS = ("Unigram", "BPE", "WordPiece", "WordLevel")
_COMMON = ("<unk>", "<s>", "<pad>", "</s>", "<mask>", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "a", "b", "c")


def named_classes() -> dict[str, type[Any]]:
    """Return the classes that `AutoTokenizer` finds, by the names that a file may give them."""
    names = {name for name in dir(transformers) if "Tokenizer" in name} | set(filter(None, registered().values()))
    found = {name: tokenizer_class_from_name(name) for name in sorted(names)}
    return {
        name: known
        for name, known in found.items()
        if isinstance(known, type) and issubclass(known, PreTrainedTokenizerBase)
    }


def registered() -> dict[str, str]:
    """Return the name of the class of each model type."""
    return {
        model_type: name.removesuffix("Fast") for model_type, name in sorted(TOKENIZER_MAPPING_NAMES.items()) if name
    }


def aliases() -> dict[str, str]:
    """Return the class of each name that is not its own; a name with `Fast` stands for the one without."""
    return {
        name: known.__name__
        for name, known in named_classes().items()
        if name.removesuffix("Fast") != known.__name__ and name != known.__name__ and known.__name__ not in GENERIC
    }


def pipeline_overrides() -> dict[str, dict[str, Any]]:
    """Return what each class of the tokenizers library builds, and what it takes where no file says it."""
    return {
        known.__name__: {
            "builds": built(known),
            **_default_tokens(known),
            "model_input_names": known.model_input_names,
            "padding_side": known.padding_side,
        }
        for known in _classes()
        if issubclass(known, TokenizersBackend)
    }


def python_classes() -> dict[str, dict[str, Any]]:
    """Return the files that each class of Python code cannot do without; it takes nothing of tokenizer.json."""
    found: dict[str, dict[str, Any]] = {}
    for known in _classes():
        if not issubclass(known, TokenizersBackend):
            parameters = inspect.signature(known.__init__).parameters
            needs = [
                file
                for name, file in known.vocab_files_names.items()
                if name in parameters and parameters[name].default is inspect.Parameter.empty
            ]
            found[known.__name__] = {"needs": needs, **_default_tokens(known)}
    return found


def built(known: Any) -> list[str]:
    """Return the parts that a class does not take from tokenizer.json; all of them where it cannot be tried."""
    tokens = [*_COMMON, *sorted({*_default_tokens(known).values()} - {*_COMMON})]
    for kind in [known.model.__name__] if known.model is not None else _KINDS:
        # A class that does not take this kind of model fails in a way of its own.
        with tempfile.TemporaryDirectory() as folder, suppress(Exception):
            document = {"version": "1.0", "added_tokens": [], **_PARTS, "model": _model(kind, tokens)}
            Path(folder, "tokenizer.json").write_text(json.dumps(document), "utf-8")
            Path(folder, "tokenizer_config.json").write_text(json.dumps({"tags_dict": {}}), "utf-8")
            own, plain = (_loaded(each, folder) for each in (known, TokenizersBackend))
            return [part for part in _PARTS if own[part] != plain[part]]
    return list(_PARTS)


def not_asked() -> list[str]:
    """Return the model types that load their class whatever tokenizer_config.json says."""
    names: set[str] = tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    return sorted(model_type for model_type in names if registered().get(model_type) not in (None, *GENERIC))


def generated() -> str:
    """Return the file's text, a line for each entry."""
    tables = {
        "classes": pipeline_overrides(),
        "python": python_classes(),
        "aliases": aliases(),
        "registered": registered(),
    }
    parts = [f"  {json.dumps(title)}: {{\n{_lines(table)}\n  }},\n" for title, table in tables.items()]
    return f'{{\n{"".join(parts)}  "not_asked": {json.dumps(not_asked())}\n}}\n'


def _classes() -> list[type[Any]]:
    found = {known.__name__: known for known in named_classes().values() if known.__name__ not in GENERIC}
    return [found[name] for name in sorted(found)]


def _default_tokens(known: Any) -> dict[str, str]:
    """Return the special tokens that a class has by default, by their roles; one without says what its base says."""
    found: dict[str, str] = {}
    for each in known.__mro__[: known.__mro__.index(PreTrainedTokenizerBase)]:
        for role, given in inspect.signature(each.__init__).parameters.items():
            if role.endswith("_token") and isinstance(given.default, str):
                found.setdefault(role, given.default)
    return found


def _model(kind: str, tokens: list[str]) -> dict[str, Any]:
    if kind == "Unigram":
        return {"type": kind, "vocab": [[token, 0.0] for token in tokens], "unk_id": tokens.index("<unk>")}
    vocabulary = {token: number for number, token in enumerate(tokens)}
    more: dict[str, Any] = {"unk_token": "[UNK]"}
    if kind == "BPE":
        more = {"merges": []}
    if kind == "WordPiece":
        more |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    return {"type": kind, "vocab": vocabulary, **more}


def _loaded(known: Any, folder: str) -> dict[str, Any]:
    loaded = known.from_pretrained(folder, local_files_only=True)
    found: dict[str, Any] = json.loads(loaded.backend_tokenizer.to_str())
    return found


def _lines(table: dict[str, Any]) -> str:
    return ",\n".join(f"    {json.dumps(name)}: {json.dumps(held)}" for name, held in table.items())


if __name__ == "__main__":
    main({TARGET: generated()})
