"""What a tokenizer of transformers makes of text, beside what its tokenizer.json says.

A class of transformers can build parts of the pipeline itself; the file then says what nobody reads. So the parts are
compared as the library writes them, and what becomes of texts of many kinds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
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
"""Texts in which tokenizers differ: white space, case, digits, composed characters, scripts, signs, special tokens."""


@dataclass(frozen=True)
class Declared:
    """What a tokenizer.json says of the samples; made before transformers loads its own, so that one is held at a time.

    Args:
        ids: The ids of each sample, None where it cannot be tokenized.
        surrounded: The same with special tokens around.
        decoded: What the ids decode to.
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
        ids = [_made(library.tokenize, text) for text in SAMPLES]
        return cls(
            ids,
            [_made(library.surround, text) for text in SAMPLES],
            [_made(library.decode, each or []) for each in ids],
            {section: library.part(section) for section in SECTIONS},
        )


def compare(tokenizer: Any, declared: Declared) -> dict[str, Any]:
    """Return how a tokenizer of transformers differs from its tokenizer.json.

    Args:
        tokenizer: It; the padding, truncation and dropout of its file are turned off.
        declared: What the tokenizer.json says.

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
            "tokenizes": ids == _made(actual.tokenize, text),
            "surrounds": declared.surrounded[place] == _made(actual.surround, text),
            "decodes": declared.decoded[place] == _made(actual.decode, ids or []),
        }
        # Of a text that is tokenized differently nothing else need be told.
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


def _made(make: Callable[[S], T], of: S) -> T | None:
    """Return what is made of a sample, None where that fails: not every vocabulary has tokens for every text."""
    try:
        return make(of)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    # A panic of the library is no Exception.
    except BaseException:
        return None
