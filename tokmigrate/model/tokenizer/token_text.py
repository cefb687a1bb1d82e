"""What tokens mean: the text that each stands for, however the vocabulary spells it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.tokenizer_json import BYTE, bytes_of_letters, is_byte_level

WORD_START = "\u2581"


@dataclass(frozen=True)
class TokenTexts:
    """The spelling of a tokenizer.json: letters for bytes, `▁` for spaces, prefixes and suffixes of pieces."""

    document: Mapping[str, Any]

    def find_text(self, token: str) -> str | None:
        """Return the text that a token of the model stands for, None where that is not a whole text."""
        octets = bytes_of_letters(token) if self.is_byte_level else None
        if octets is not None:
            try:
                return octets.decode()
            except UnicodeDecodeError:
                return None
        if self._model.get("byte_fallback") and BYTE.fullmatch(token):
            return None
        bare = self.without_affixes(token)
        return bare.replace(WORD_START, " ") if self._marks_spaces else bare

    def find_bytes(self, token: str) -> bytes:
        """Return the bytes of text that a token of the model stands for, also of a part of a character."""
        octets = bytes_of_letters(token) if self.is_byte_level else None
        return self.without_affixes(token).encode() if octets is None else octets

    def without_affixes(self, token: str) -> str:
        """Return a token without what marks it as the continuation or the end of a word."""
        return token.removeprefix(self.prefix).removesuffix(self.suffix)

    @cached_property
    def is_byte_level(self) -> bool:
        return is_byte_level(self.document)

    @cached_property
    def prefix(self) -> str:
        return self._model.get("continuing_subword_prefix") or ""

    @cached_property
    def suffix(self) -> str:
        return self._model.get("end_of_word_suffix") or ""

    @cached_property
    def _marks_spaces(self) -> bool:
        parts = [self.document.get(part) for part in ("normalizer", "pre_tokenizer")]
        return WORD_START in json.dumps(parts, ensure_ascii=False)

    @property
    def _model(self) -> Mapping[str, Json]:
        model: Mapping[str, Json] = self.document["model"]
        return model
