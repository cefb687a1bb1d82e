"""What transformers makes of a model directory: its tokenizer, its config, and the shapes that transformers expects.

Request: `directory`; `expected`, the id of every token by its text (optional); `shapes`, the shape of every
tensor on disk (optional); `encode`, texts; `model`, false where only the tokenizer is asked about.

Answer: `tokenizer` and `model`, each with `unknown` and the reason where transformers has no code for them, or with
`error` and the cause where it cannot load them. The tokenizer's: `class`; `size`; `differences` from `expected`;
`encodings`, ids for each text without special tokens added; `samples`, as `samples.py` describes it; `chat_error`, why
the chat template cannot be rendered. The model's: `class`; `mismatched`, `{name: [on disk, expected]}`, up to 20 of
them. Nothing is expected of names that the model does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

from tokmigrate.model.tokenizer.library import drop_saved_state, text_alone
from tokmigrate.model.worker.chat_template import MESSAGES
from tokmigrate.model.worker.samples import describe_transformers
from tokmigrate.model.worker.vocabulary_axes import (
    UnknownModelError,
    build,
    find_name,
    load_config,
    missing_package,
    tensors_on_disk,
    vocabulary_size,
)
from tokmigrate.model.worker.worker_main import SHOWN, Request, id_differences, run_worker

_LONGEST = 300
"""How many characters of an error are reported."""


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load both and answer."""
    model = _build_answer(lambda: _of_model(request)) if request.get("model", True) else {}
    return {"tokenizer": _build_answer(lambda: _of_tokenizer(request)), "model": model}


def _build_answer(load: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return load()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    # A panic of tokenizers is not an Exception.
    except BaseException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {"error": f"{type(error).__name__}: {' '.join(lines)[:_LONGEST]}"}


def _of_tokenizer(request: Request) -> dict[str, Any]:
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
        "encodings": _encodings(tokenizer, request.get("encode", [])),
        "samples": describe_transformers(tokenizer),
    }
    if "expected" in request:
        found["differences"] = id_differences(request["expected"], tokenizer.get_vocab())
    if tokenizer.chat_template:
        try:
            tokenizer.apply_chat_template(list(MESSAGES), tokenize=False, add_generation_prompt=True)
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


def _of_model(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        config = load_config(request["directory"])
        model = build(config)
    except UnknownModelError as error:
        return {"unknown": str(error)}
    size = vocabulary_size(config)
    expected = tensors_on_disk(model)
    on_disk: Mapping[str, list[int]] = request.get("shapes", {})
    # Quantized layers are stored in other shapes than they have.
    packed = getattr(config, "quantization_config", None) is not None
    mismatched = {}
    for name, shape in on_disk.items():
        known = (
            find_name(name, expected, model.base_model_prefix) if _worth_a_search(name, expected, shape, size) else None
        )
        wanted = expected[known].shape if known is not None else tuple(shape)
        if tuple(shape) != wanted and (size in wanted or not packed):
            mismatched[name] = [shape, list(wanted)]
    return {"class": type(model).__name__, "mismatched": dict(islice(sorted(mismatched.items()), SHOWN))}


def _worth_a_search(name: str, expected: Mapping[str, Any], shape: list[int], size: int | None) -> bool:
    # A search by suffixes among 50,000 experts, for each of them, would take minutes.
    return name in expected or size in shape or len(expected) < 2000


if __name__ == "__main__":
    run_worker(answer)
