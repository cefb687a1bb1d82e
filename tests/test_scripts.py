"""Which script a text is written in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokmigrate.errors import UsageError
from tokmigrate.vocabulary.scripts import COMMON, SCRIPTS, ScriptFilter, find_main_script, find_script, resolve_script


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
        *((chr(number), find_script(chr(number))) for number in range(0x80)),
        ("1 + x", "Latin"),
    ],
)
def test_the_main_script_of_a_text(text: str, script: str) -> None:
    assert find_main_script(text) == script


def test_each_script_has_a_character() -> None:
    assert {find_script(chr(number)) for number in range(0x20000)} == {COMMON, *SCRIPTS}


@pytest.mark.parametrize("name", ["nko", "N KO", "Nko"])
def test_a_script_by_any_spelling_of_its_name(name: str) -> None:
    assert resolve_script(name) == "Nko"


def test_a_name_that_means_no_script() -> None:
    with pytest.raises(UsageError, match="is not a script") as raised:
        resolve_script("Cyrilic")
    assert raised.value.hint == "did you mean 'Cyrillic'?"


CYRILLIC_AND_HAN = ScriptFilter(["Cyrillic", "Han"])


@given(st.text(st.sampled_from("яЖ漢𠀀 1é\u0301aя"), max_size=4), st.integers(0, 20), st.integers(0, 20))
def test_a_piece_of_some_scripts(text: str, start: int, stop: int) -> None:
    octets = text.encode()
    if CYRILLIC_AND_HAN.matches(octets):
        scripts = {find_script(letter) for letter in text}
        assert scripts <= {COMMON, "Cyrillic", "Han"}
        assert scripts & {"Cyrillic", "Han"}
        # Each part of it is, unless it has nothing of these scripts.
        part = octets[start:stop]
        assert CYRILLIC_AND_HAN.matches(part) or part.decode("utf-8", "ignore").encode() == part
    elif set(text) & set("яЖ漢𠀀"):
        assert set(text) & set("éa")
