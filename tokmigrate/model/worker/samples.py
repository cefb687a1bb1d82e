"""What a tokenizer makes of texts on which tokenizers differ, and of what parts it is built.

A class of transformers can build parts of the pipeline itself; that part of the file is then unused. So the parts are
compared as the library writes them, and how many kinds of text are tokenized.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from tokmigrate.model.tokenizer.library import drop_saved_state, text_alone
from tokmigrate.model.tokenizer.tokenizer_json import SECTIONS

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


def describe_library(tokenizer: Any) -> dict[str, Any]:
    """Return what a tokenizer of the library does, opened for computing.

    Returns:
        For each of `SAMPLES`, or null where it fails: `tokenizes`, its ids; `surrounds`, those with special tokens
        around; `decodes`, the text of its ids. And `parts`, a digest of each part of the pipeline.
    """
    return _describe(_Library(tokenizer))


def describe_transformers(tokenizer: Any) -> dict[str, Any]:
    """Return the same of a tokenizer of transformers, without padding and truncation."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _describe(_PythonCode(tokenizer))
    drop_saved_state(backend)
    return _describe(_Library(backend))


def _describe(tokenizer: _Library | _PythonCode) -> dict[str, Any]:
    ids = [_try(tokenizer.tokenize, text) for text in SAMPLES]
    return {
        "tokenizes": ids,
        "surrounds": [_try(tokenizer.surround, text) for text in SAMPLES],
        "decodes": [_try(tokenizer.decode, each or []) for each in ids],
        "parts": {section: tokenizer.part(section) for section in SECTIONS},
    }


_FIRST, _SECOND = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
_NOTHING = {"type": "TemplateProcessing", "single": [_FIRST], "pair": [_FIRST, _SECOND], "special_tokens": {}}
"""A post-processor that does what none does; transformers makes it where a file has none."""


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
        written = None if written == _NOTHING else written
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
