"""The letters that a byte-level tokenizer writes for bytes, and the text that its tokens stand for.

Source: `bytes_to_unicode` of GPT-2's encoder.py, repeated in tokenizers' ByteLevel.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokmigrate.model.formats.json_text import Json

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = (byte for byte in range(0x100) if byte not in _PRINTABLE)
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(0x100 + place): byte for place, byte in enumerate(_OTHERS)}
_LETTERS = {byte: letter for letter, byte in _BYTES.items()}


def is_byte_level(document: Json) -> bool:
    """Return whether a tokenizer.json turns text into letters for its bytes before the model tokenizes it."""
    return any(
        part.get("type") == "ByteLevel"
        for section, inner in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers"))
        for part in _parts(document.get(section), inner)
    )


def _parts(part: Json, inner: str) -> Iterator[Json]:
    if isinstance(part, dict):
        yield part
        for each in part.get(inner) or []:
            yield from _parts(each, inner)


def text_of_letters(token: str) -> str:
    """Return the text of a token that is written in letters for bytes; another token is its own text.

    A byte that makes no whole character stands as `\\xNN`.
    """
    octets = bytes_of_letters(token)
    return token if octets is None else octets.decode("utf-8", "backslashreplace")


def bytes_of_letters(token: str) -> bytes | None:
    """Return the bytes that a token stands for, None for one that is not written in letters for bytes."""
    return bytes(_BYTES[letter] for letter in token) if all(letter in _BYTES for letter in token) else None


def letters_of_bytes(octets: bytes) -> str:
    """Return the letters that a byte-level tokenizer writes for bytes."""
    return "".join(_LETTERS[octet] for octet in octets)
