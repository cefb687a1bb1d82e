"""What tokens mean: the text that each stands for, however the vocabulary spells it.

A byte-level vocabulary writes letters for bytes, SentencePiece writes `▁` for a space and `<0xNN>` for a byte, and
WordPiece writes `##` before what continues a word. The meaning of a token is the bytes of its text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.byte_level import bytes_of_letters, is_byte_level, letters_of_bytes
from tokmigrate.model.tokenizer.tokenizer_json import BYTE, Tokenizer, continuing_prefix, model_kind

SPACE = "\u2581"
"""What SentencePiece writes for a space."""
_CONTINUES = "##"

_OF_TEXT = ("eos", "bos", "cls", "sep", "mask")
"""Roles by which special tokens are matched before their texts; a token with several is matched by the first."""


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
        return bare.replace(SPACE, " ") if self._marks_spaces else bare

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
        return continuing_prefix(self._model)

    @cached_property
    def suffix(self) -> str:
        return self._model.get("end_of_word_suffix") or ""

    @cached_property
    def _marks_spaces(self) -> bool:
        parts = [self.document.get(part) for part in ("normalizer", "pre_tokenizer")]
        return SPACE in json.dumps(parts, ensure_ascii=False)

    @property
    def _model(self) -> Mapping[str, Json]:
        model: Mapping[str, Json] = self.document["model"]
        return model


@dataclass(frozen=True)
class Spelling:
    """How the vocabulary of a tokenizer spells text."""

    tokenizer: Tokenizer

    @cached_property
    def _has_letters(self) -> bool:
        return is_byte_level(self.tokenizer.document)

    @cached_property
    def _kind(self) -> str:
        return model_kind(self.tokenizer.document)

    def find_meaning(self, token: str) -> bytes | None:
        """Return the bytes of the text that a token stands for, None for a special token."""
        added = self.tokenizer.token(token)
        if added is not None:
            return None if added.special else _encode(token)
        if self._has_letters:
            return bytes_of_letters(token) or _encode(token)
        if self._kind == "WordPiece":
            # The text of a word begins behind a space, that of a punctuation mark does not.
            is_word = not token.startswith(_CONTINUES) and token[:1].isalnum()
            return _encode(f" {token}" if is_word else token.removeprefix(_CONTINUES))
        if self._kind in ("BPE", "Unigram"):
            return bytes.fromhex(token[3:5]) if self.is_byte(token) else _encode(token.replace(SPACE, " "))
        return _encode(token)

    def is_byte(self, token: str) -> bool:
        """Return whether a token stands for a byte of what has no token of its own."""
        return bool(self.tokenizer.document["model"].get("byte_fallback")) and BYTE.fullmatch(token) is not None

    def find_pieces(self, meaning: bytes) -> tuple[int, ...]:
        """Return the ids of the tokens that a text is made of, whatever its bytes; the unknown one if nothing else."""
        text = meaning.decode("utf-8", "replace")
        if self._has_letters:
            pieces = self.tokenizer.split_spelling(letters_of_bytes(meaning))
        elif "\ufffd" in text:
            bytes_of = (self.tokenizer.ids.get(f"<0x{octet:02X}>") for octet in meaning)
            pieces = tuple(number for number in bytes_of if number is not None)
        elif self._kind == "WordPiece":
            whole = self.tokenizer.ids.get(f"{_CONTINUES}{text}")
            pieces = self.tokenizer.pieces(text) if whole is None or text.startswith(" ") else (whole,)
        else:
            pieces = self.tokenizer.split_spelling(text.replace(" ", SPACE))
        unknown = self.tokenizer.ids.get(self.tokenizer.unknown or "")
        return pieces or self.tokenizer.pieces(text) or (() if unknown is None else (unknown,))


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


Roles = Mapping[str, str]
"""The text of the token of each role."""


def match_tokens(old: Tokenizer, new: Tokenizer, old_roles: Roles, new_roles: Roles) -> dict[int, int]:
    """Return the id in `old` of each token of `new` that means the same there, by its id in `new`.

    Special tokens are matched by role, then by text; all others by what they mean. Two tokens of `new` may have one
    match: the first of them, in the order of the result, is spelled most like it.
    """
    found = {new.ids[after]: old.ids[before] for after, before in _match_special(old, new, old_roles, new_roles)}
    by_meaning = _index(Spelling(old), old.ids)
    rest = (token for token, number in new.ids.items() if number not in found)
    for meaning, tokens in _index(Spelling(new), rest).items():
        for is_byte, number in tokens if meaning in by_meaning else ():
            text = new.texts[number]
            alike = min(by_meaning[meaning], key=lambda each: (old.texts[each[1]] != text, each[0] != is_byte, each[1]))
            found[number] = alike[1]
    return found


def _match_special(old: Tokenizer, new: Tokenizer, old_roles: Roles, new_roles: Roles) -> Iterator[tuple[str, str]]:
    """Yield pairs of a token of `new` and one of `old`, each of `new` once."""
    special = [token for token, (added, _) in new.added.items() if added.special]
    others = [role for role in new_roles if role not in (*_OF_TEXT, "pad", "unk")]
    seen: set[str] = set()

    def by_role(roles: Sequence[str]) -> Iterator[tuple[str, str]]:
        return (
            (new_roles[role], old_roles[role])
            for role in roles
            if new_roles.get(role, "") in new.ids and old_roles.get(role, "") in old.ids
        )

    def by_text() -> Iterator[tuple[str, str]]:
        return ((token, token) for token in special if token in old.ids)

    # What fills a batch, or stands for what is unknown, is often a token with another part too.
    for pairs in (by_role((*_OF_TEXT, *others)), by_text(), by_role(("pad", "unk"))):
        for after, before in pairs:
            if after not in seen:
                seen.add(after)
                yield after, before


def _index(spelling: Spelling, tokens: Iterable[str]) -> dict[bytes, list[tuple[bool, int]]]:
    """Return the tokens of each meaning, as whether they stand for a byte and their ids: letters first, then by id."""
    found: dict[bytes, list[tuple[bool, int]]] = {}
    for token in tokens:
        meaning = spelling.find_meaning(token)
        if meaning is not None:
            found.setdefault(meaning, []).append((spelling.is_byte(token), spelling.tokenizer.ids[token]))
    for alike in found.values():
        alike.sort()
    return found
