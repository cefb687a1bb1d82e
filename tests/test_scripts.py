"""Which script a text is written in."""

from __future__ import annotations

import pytest

from tokmigrate.vocabulary.scripts import COMMON, SCRIPTS, find_main_script, find_script


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Straße 12", "Latin"),
        ("e\u0301", "Latin"),
        ("Привет, world", "Cyrillic"),
        ("漢字かな", "Han"),
        ("ひらがな漢字", "Hiragana"),
        ("한국어", "Hangul"),
        ("ⲁⲃⲅ", "Coptic"),
        ("µ = 10 µ", COMMON),
        ("\n", COMMON),
        ("\ud800\U0010ffff", COMMON),
        ("", COMMON),
        ("aя", "Cyrillic"),
    ],
)
def test_the_main_script_of_a_text(text: str, script: str) -> None:
    assert find_main_script(text) == script


def test_each_script_has_a_character() -> None:
    assert {find_script(chr(number)) for number in range(0x20000)} == {COMMON, *SCRIPTS}
