"""What the libraries make of a model directory: its tokenizer, its config, and the shapes that transformers expects.

Request: `directory`; `expected`, the id of every token by its text (optional); `shapes`, the shape of every
tensor on disk (optional); `encode`, texts; `model`, false where only the tokenizer is asked about.

Answer: `library`, what the tokenizers library makes of tokenizer.json, as the question `tokenizer` answers it, or
`error`; and of transformers `tokenizer` and `model`, each with `unknown` and the reason where transformers has no code
for them, or with `error` and the cause where it cannot load them. The tokenizer's: `class`; `size`; `differences` from
`expected`; `encodings`, ids for each text without special tokens added; `pipeline`, how it differs from tokenizer.json
as `compare` gives it, if the library takes that; `chat_error`, why the chat template cannot be rendered. The model's:
`class`; `mismatched`, `{name: [on disk, expected]}`, up to 20 of them. Nothing is expected of names that the model does
not have.

A class of transformers can build parts of the pipeline itself; that part of the file is then unused. So the parts are
compared as the library writes them, and how many kinds of text are tokenized.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tokmigrate.model.tokenizer.library import drop_saved_state, open_tokenizer, text_alone
from tokmigrate.model.tokenizer.tokenizer_json import FILE, SECTIONS
from tokmigrate.model.worker.chat_template import MESSAGES
from tokmigrate.model.worker.tokenizer import of_library
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

S = TypeVar("S")
T = TypeVar("T")

SAMPLES = (
    "The quick brown fox jumps over 13 lazy dogs.",
    " leading, trailing ",
    "two  spaces\tand\n\nlines\r\n   deep",
    "Don't, we'll, it's; they'VE: I'm!",
    "CamelCase snake_case kebab-case ALLCAPS",
    "for (int i = 0; i < 10; ++i) { a[i] += 0x1F; }  // code",
    "https://example.com/a?b=c&d=%20#e user@example.com",
    "1234567890 3.14159 1,000,000 -42 ½ ①② Ⅷ",
    "Ünïcödé café naïve Ångström",
    "cafe\u0301 A\u030angstro\u0308m",
    "\ufb01ne \ufb02ow \uff46\uff55\uff4c\uff4c ™ ㎏ İstanbul ß",
    "“quotes” \u2018single\u2019 — dash … ¿qué? ¡sí!",
    "Быстрая коричневая лиса",
    "\u0397 γρήγορη αλεπού",
    "敏捷的棕色狐狸跳过懒狗。",
    "素早い茶色の狐。カタカナ ｶﾀｶﾅ",
    "빠른 갈색 여우",
    "الثعلب البني السريع",
    "השועל החום המהיר",
    "तेज भूरी लोमड़ी",
    "สุนัขจิ้งจอก",
    "🦊 👨‍👩‍👧 🇩🇪 ❤️",
    "a\u200bb\u00a0c\u3000d\u00ad",
    "\u0000\u0007\ufeff\ufffd",
    "▁metaspace Ġbyte ##piece @@ </w>",
    "<s> </s> [CLS] [SEP] <pad> <unk> <mask>",
    "$\\alpha_1 + \\frac{a}{b}$ ~ ^ `x` | \\",
    "",
)
"""Texts on which tokenizers differ: spaces, case, digits, composed characters, scripts, symbols, special tokens."""


@dataclass(frozen=True)
class Declared:
    """What a tokenizer.json says about the samples; built before transformers loads its own: one is held at a time.

    Args:
        ids: The ids of each sample, None where it cannot be tokenized.
        surrounded: The same with special tokens around.
        parts: A digest of each part of the pipeline.
    """

    ids: list[list[int] | None]
    surrounded: list[list[int] | None]
    decoded: list[str | None]
    parts: dict[str, str]

    @classmethod
    def of(cls, tokenizer: Any) -> Declared:
        """Return what a tokenizer of the library, opened for computing, does."""
        library = _Library(tokenizer)
        ids = [_try(library.tokenize, text) for text in SAMPLES]
        return cls(
            ids,
            [_try(library.surround, text) for text in SAMPLES],
            [_try(library.decode, each or []) for each in ids],
            {section: library.part(section) for section in SECTIONS},
        )


def compare(tokenizer: Any, declared: Declared) -> dict[str, Any]:
    """Return how a tokenizer of transformers differs from its tokenizer.json, without padding and truncation.

    Returns:
        `parts`, for each part of the pipeline a digest of it in transformers and in the file; `different`, by what is
        done (`tokenizes`, `surrounds` with special tokens, `decodes`), the sample texts that the two do it differently
        with, where there are any.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        drop_saved_state(backend)
    actual = _Library(backend) if backend is not None else _PythonCode(tokenizer)
    different: dict[str, list[str]] = {}
    for place, text in enumerate(SAMPLES):
        ids = declared.ids[place]
        same = {
            "tokenizes": ids == _try(actual.tokenize, text),
            "surrounds": declared.surrounded[place] == _try(actual.surround, text),
            "decodes": declared.decoded[place] == _try(actual.decode, ids or []),
        }
        # A text that is tokenized differently needs no other report.
        for doing in [doing for doing, is_same in same.items() if not is_same][: None if same["tokenizes"] else 1]:
            different.setdefault(doing, []).append(text)
    parts = {section: [actual.part(section), declared.parts[section]] for section in SECTIONS}
    return {"parts": parts, "different": different}


class _Library:
    """A tokenizer of the tokenizers library."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def tokenize(self, text: str) -> list[int]:
        with text_alone(self._tokenizer):
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def surround(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def part(self, section: str) -> str:
        """Return a digest of a part of the pipeline."""
        part = getattr(self._tokenizer, section)
        try:
            written = None if part is None else json.loads(part.__getstate__())
        # One that is Python code cannot be written.
        except Exception:
            written = type(part).__name__
        return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()


class _PythonCode:
    """A tokenizer of transformers that is Python code: it has no parts, and reads no tokenizer.json."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def tokenize(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def surround(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def part(self, _: str) -> str:
        return "Python code"


def _try(make: Callable[[S], T], of: S) -> T | None:
    """Return what is made of a sample, None where that fails: not every vocabulary has tokens for every text."""
    try:
        return make(of)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    # A panic of the library is not an Exception.
    except BaseException:
        return None


_LONGEST = 300
"""How many characters of an error are reported."""


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load both and answer."""
    model = _build_answer(lambda: _of_model(request)) if request.get("model", True) else {}
    declared: list[Declared] = []
    library = _build_answer(lambda: _of_library(request, declared))
    tokenizer = _build_answer(lambda: _of_tokenizer(request, declared))
    return {"library": library, "tokenizer": tokenizer, "model": model}


def _build_answer(load: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return load()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    # A panic of tokenizers is not an Exception.
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
        "encodings": _encodings(tokenizer, request.get("encode", [])),
    }
    if declared:
        found["pipeline"] = compare(tokenizer, *declared)
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
