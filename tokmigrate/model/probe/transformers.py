"""What the libraries make of a model directory: its tokenizer, its config, and the shapes that transformers expects.

Request: `directory`; `expected`, the id of every token by its text (optional); `shapes`, the shape of every
tensor on disk (optional); `encode`, texts; `model`, false where only the tokenizer is asked about.

Answer: `library`, what the tokenizers library makes of tokenizer.json, as the question `tokenizer` answers it, or
`error`; and of transformers `tokenizer` and `model`, each with `unknown` and the reason where transformers has no code
for them, or with `error` and the cause where it cannot load them. The tokenizer's: `class`; `size`; `differences` from
`expected`; `special`, `{pad: [text, id], …}`; `padding_side`; `encodings`, ids for each text without special tokens
added; `pipeline`, how it differs from tokenizer.json as `pipeline.compare` gives it, if the library takes that; `chat`,
a user's message by the chat template, null without one, or `chat_error`. The model's: `class`; `vocab_size`; `ids`,
what the config gives to roles; `vocabulary`, shapes with an axis of that size; `mismatched`, `{name: [on disk,
expected]}`, up to 20 of them. Nothing is expected of names that the model does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from tokmigrate.model.probe.answering import SHOWN, Request, answering, id_differences
from tokmigrate.model.probe.chat_template import MESSAGES
from tokmigrate.model.probe.meta_model import (
    UnknownModelError,
    build,
    load_config,
    matching,
    missing_package,
    tensors_on_disk,
    vocabulary_size,
)
from tokmigrate.model.probe.pipeline import Declared, compare
from tokmigrate.model.probe.tokenizer import of_library
from tokmigrate.model.tokenizer.library import drop_saved_state, open_tokenizer, text_alone
from tokmigrate.model.tokenizer.tokenizer_json import FILE

_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_LONGEST = 300
"""The characters of an error that are told."""


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load both and answer."""
    model = _answered(lambda: _of_model(request)) if request.get("model", True) else {}
    declared: list[Declared] = []
    library = _answered(lambda: _of_library(request, declared))
    tokenizer = _answered(lambda: _of_tokenizer(request, declared))
    return {"library": library, "tokenizer": tokenizer, "model": model}


def _answered(load: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return load()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    # A panic of tokenizers is no Exception.
    except BaseException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {"error": f"{type(error).__name__}: {' '.join(lines)[:_LONGEST]}"}


def _of_library(request: Request, declared: list[Declared]) -> dict[str, Any]:
    """Return what the tokenizers library makes of tokenizer.json, and put what it does with samples into `declared`."""
    tokenizer = open_tokenizer(Path(request["directory"], FILE))
    declared.append(Declared.of(tokenizer))
    return of_library(tokenizer, request)


def _of_tokenizer(request: Request, declared: list[Declared]) -> dict[str, Any]:
    from transformers import AutoTokenizer  # noqa: PLC0415

    try:
        tokenizer = AutoTokenizer.from_pretrained(request["directory"], local_files_only=True, trust_remote_code=False)
    except ValueError as error:
        if "trust_remote_code" in str(error):
            return {"unknown": "its tokenizer is foreign code, which is never run"}
        raise
    except ImportError as error:
        return {"unknown": missing_package(error)}
    found: dict[str, Any] = {
        "class": type(tokenizer).__name__,
        "size": len(tokenizer),
        "special": {role: _special(tokenizer, role) for role in _ROLES},
        "padding_side": tokenizer.padding_side,
        "encodings": _encodings(tokenizer, request.get("encode", [])),
        "chat": None,
    }
    if declared:
        found["pipeline"] = compare(tokenizer, *declared)
    if "expected" in request:
        found["differences"] = id_differences(request["expected"], tokenizer.get_vocab())
    if tokenizer.chat_template:
        try:
            found["chat"] = tokenizer.apply_chat_template(list(MESSAGES), tokenize=False, add_generation_prompt=True)
        except MemoryError:
            raise
        except Exception as error:
            found["chat_error"] = f"{type(error).__name__}: {error}"
    return found


def _encodings(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        drop_saved_state(backend)
    with nullcontext() if backend is None else text_alone(backend):
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def _special(tokenizer: Any, role: str) -> list[Any]:
    return [getattr(tokenizer, f"{role}_token"), getattr(tokenizer, f"{role}_token_id")]


def _of_model(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        config = load_config(request["directory"])
        model = build(config)
    except UnknownModelError as error:
        return {"unknown": str(error)}
    size = vocabulary_size(config)
    expected = tensors_on_disk(model)
    on_disk: Mapping[str, list[int]] = request.get("shapes", {})
    vocabulary = {name: list(tensor.shape) for name, tensor in expected.items() if size in tensor.shape}
    packed = getattr(config, "quantization_config", None) is not None
    mismatched = {}
    for name, shape in on_disk.items():
        known = (
            matching(name, expected, model.base_model_prefix) if _worth_a_search(name, expected, shape, size) else None
        )
        # Quantized layers are stored in other shapes than they have.
        if known is not None and tuple(shape) != expected[known].shape and (known in vocabulary or not packed):
            mismatched[name] = [shape, list(expected[known].shape)]
    return {
        "class": type(model).__name__,
        "vocab_size": size,
        "ids": {f"{role}_token_id": getattr(config, f"{role}_token_id", None) for role in _ROLES},
        "vocabulary": vocabulary,
        "mismatched": dict(islice(sorted(mismatched.items()), SHOWN)),
    }


def _worth_a_search(name: str, expected: Mapping[str, Any], shape: list[int], size: int | None) -> bool:
    # A search by endings among 50,000 experts, for each of them, would take minutes.
    return name in expected or size in shape or len(expected) < 2000


if __name__ == "__main__":
    answering(answer)
