"""The scripts of Unicode, and which of them a text is written in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

import regex

from tokmigrate.errors import UsageError, suggest

COMMON = "Common"
"""What Unicode calls the characters that belong to many scripts or to none: digits, punctuation, symbols, accents."""

_NAMES = """
Latin Cyrillic Han Hangul Hiragana Katakana Arabic Devanagari Greek Hebrew Thai Bengali Tamil Telugu Armenian Georgian
Gujarati Gurmukhi Kannada Malayalam Sinhala Khmer Lao Myanmar Tibetan Ethiopic Oriya Mongolian Adlam Ahom
Anatolian_Hieroglyphs Avestan Balinese Bamum Bassa_Vah Batak Beria_Erfe Bhaiksuki Bopomofo Brahmi Braille Buginese
Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Chorasmian Coptic Cuneiform Cypriot
Cypro_Minoan Deseret Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs Elbasan Elymaic Garay Glagolitic Gothic Grantha
Gunjala_Gondi Gurung_Khema Hanifi_Rohingya Hanunoo Hatran Imperial_Aramaic Inscriptional_Pahlavi
Inscriptional_Parthian Javanese Kaithi Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khojki Khudawadi Kirat_Rai Lepcha
Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Makasar Mandaic Manichaean Marchen Masaram_Gondi Medefaidrin
Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mro Multani Nabataean Nag_Mundari
Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong Ogham Ol_Chiki Ol_Onal Old_Hungarian Old_Italic
Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian Old_Turkic Old_Uyghur Osage Osmanya
Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada
Shavian Siddham Sidetic SignWriting Sogdian Sora_Sompeng Soyombo Sundanese Sunuwar Syloti_Nagri Syriac Tagalog
Tagbanwa Tai_Le Tai_Tham Tai_Viet Tai_Yo Takri Tangsa Tangut Thaana Tifinagh Tirhuta Todhri Tolong_Siki Toto
Tulu_Tigalari Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square
"""

SCRIPTS = tuple(_NAMES.split())
"""As in Scripts.txt of Unicode 17. Those that most text is written in come first, since each is tried in turn."""


@cache
def find_script(letter: str) -> str:
    """Return the script of a character."""
    return str(_pattern().match(letter).lastgroup or COMMON)


def find_main_script(text: str) -> str:
    """Return the script of most characters of a text, of equal ones the first by name; `COMMON` without a letter."""
    if text.isascii():
        # Only its letters have a case, and all of them are Latin.
        return COMMON if text.lower() == text.upper() else "Latin"
    counts: Counter[str] = Counter()
    for letter, count in Counter(text).items():
        counts[find_script(letter)] += count
    del counts[COMMON]
    return min(counts, key=lambda script: (-counts[script], script), default=COMMON)


@cache
def _pattern() -> Any:
    """Return what matches a character in the group of its script."""
    named = "|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in SCRIPTS)
    return regex.compile(rf"[\p{{Script=Common}}\p{{Script=Inherited}}]|{named}|.", regex.DOTALL)


def resolve_script(name: str) -> str:
    """Return the script that a name means, whatever its case, spaces and hyphens; raises UsageError for none."""
    known = {_fold(script): script for script in SCRIPTS}
    found = known.get(_fold(name))
    if found is None:
        hint = suggest(name, SCRIPTS) or "Unicode lists the names in Scripts.txt: Latin, Cyrillic, Han, Arabic"
        raise UsageError(f"'{name}' is not a script", hint=hint)
    return found


def _fold(name: str) -> str:
    return name.translate(str.maketrans("", "", " _-")).lower()


class ScriptFilter:
    """Which pieces of text are of some scripts, also those that begin or end inside a character.

    Characters that belong to no script may be among them, and one character at least is of these scripts.
    """

    def __init__(self, scripts: Iterable[str]) -> None:
        own = "".join(rf"\p{{Script={script}}}" for script in scripts)
        self._any = regex.compile(f"[{own}]")
        self._all = regex.compile(rf"[{own}\p{{Script=Common}}\p{{Script=Inherited}}]*")
        letters = [
            letter.encode()
            for letter in self._any.findall("".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000)))))
        ]
        self._beginnings = {octets[:stop] for octets in letters for stop in range(1, len(octets))}
        self._ends = {octets[start:] for octets in letters for start in range(1, len(octets))}
        self._insides = {part[start:] for part in self._beginnings for start in range(len(part))}

    def matches(self, octets: bytes) -> bool:
        """Return whether the bytes of a piece are of these scripts."""
        if octets in self._insides or octets in self._ends:
            return True
        size = len(octets)
        for start in (0, 1, 2, 3):
            if start and octets[:start] not in self._ends:
                continue
            for left in (0, 1, 2, 3):
                stop = size - left
                if start <= stop and (not left or octets[stop:] in self._beginnings):
                    try:
                        text = octets[start:stop].decode()
                    except UnicodeDecodeError:
                        continue
                    return bool(self._all.fullmatch(text) and (start or left or self._any.search(text)))
        return False
