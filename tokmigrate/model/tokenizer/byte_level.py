"""The letters that a byte-level tokenizer writes for bytes."""

from __future__ import annotations

from tokmigrate.model.formats.json_text import Json, walk

# The letters that a byte-level tokenizer writes for bytes: `bytes_to_unicode` of GPT-2's encoder.py, as in tokenizers.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = (byte for byte in range(0x100) if byte not in _PRINTABLE)
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(0x100 + place): byte for place, byte in enumerate(_OTHERS)}
_LETTERS = {byte: letter for letter, byte in _BYTES.items()}


def is_byte_level(document: Json) -> bool:
    """Return whether a tokenizer.json turns text into letters for its bytes before the model tokenizes it."""
    parts = [document.get(section) for section in ("normalizer", "pre_tokenizer")]
    return any(path[-1:] == ("type",) and held == "ByteLevel" for path, held in walk(parts))


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
