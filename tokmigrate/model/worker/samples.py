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

    def tokenize(text: str) -> list[int]:
        with text_alone(tokenizer):
            return list(tokenizer.encode(text, add_special_tokens=False).ids)

    return _describe(
        tokenize,
        lambda text: list(tokenizer.encode(text).ids),
        lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False)),
        lambda section: _digest_part(getattr(tokenizer, section)),
    )


def describe_transformers(tokenizer: Any) -> dict[str, Any]:
    """Return the same of a tokenizer of transformers, without padding and truncation."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        drop_saved_state(backend)
        return describe_library(backend)
    # It is Python code: it has no parts, and reads no tokenizer.json.
    return _describe(
        lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"]),
        lambda text: list(tokenizer(text)["input_ids"]),
        lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)),
        lambda _: "Python code",
    )


def _describe(
    tokenize: Callable[[str], list[int]],
    surround: Callable[[str], list[int]],
    decode: Callable[[list[int]], str],
    describe_part: Callable[[str], str],
) -> dict[str, Any]:
    ids = [_try(tokenize, text) for text in SAMPLES]
    return {
        "tokenizes": ids,
        "surrounds": [_try(surround, text) for text in SAMPLES],
        "decodes": [_try(decode, each or []) for each in ids],
        "parts": {section: describe_part(section) for section in SECTIONS},
    }


_FIRST, _SECOND = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
_NOTHING = {"type": "TemplateProcessing", "single": [_FIRST], "pair": [_FIRST, _SECOND], "special_tokens": {}}
"""A post-processor that does what none does; transformers makes it where a file has none."""


def _digest_part(part: Any) -> str:
    """Return a digest of a part of the pipeline."""
    try:
        written = None if part is None else json.loads(part.__getstate__())
    # One that is Python code cannot be written.
    except Exception:
        written = type(part).__name__
    written = None if written == _NOTHING else written
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()


def _try(make: Callable[[S], T], of: S) -> T | None:
    """Return what is made of a sample, None where that fails: not every vocabulary has tokens for every text."""
    try:
        return make(of)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    # A panic of the library is not an Exception.
    except BaseException:
        return None
