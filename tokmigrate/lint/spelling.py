"""How the text of a token looks to people."""

from __future__ import annotations

import unicodedata

_JOINER = "\u200d"
# Cyrillic and Greek letters whose shape a Latin letter has too (Unicode Technical Standard 39, confusables).
_LIKE_LATIN = frozenset(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0406\u0408\u0405"
    "\u03bf\u03bd\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
)
_SPACES = (" ", "\t", "\n", "\r")


def invisible(text: str) -> list[str]:
    """Return the characters of a text that cannot be seen, each once; plain spaces and emoji's joiners are none."""
    found: dict[str, None] = {}
    for place, letter in enumerate(text):
        category = unicodedata.category(letter)
        if letter in _SPACES or category not in {"Cc", "Cf", "Co", "Cn", "Zs", "Zl", "Zp"}:
            continue
        around = text[max(0, place - 2) : place] + text[place + 1 : place + 2]
        if letter == _JOINER and any(unicodedata.category(other) == "So" for other in around):
            continue
        found[letter] = None
    return list(found)


def escape_text(text: str) -> str:
    """Return a text as YAML has it between double quotes, in letters that everybody can tell apart."""
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    if " " <= letter <= "~":
        return letter
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"


def likeness(text: str) -> str:
    """Return what texts that look alike have in common."""
    return unicodedata.normalize("NFKC", text).casefold().strip()


def foreign_letters(text: str) -> list[str]:
    """Return the letters of a text that look like Latin ones and stand among Latin ones, each once."""
    if not any(unicodedata.name(letter, "").startswith("LATIN") for letter in text):
        return []
    return list(dict.fromkeys(letter for letter in text if letter in _LIKE_LATIN))
