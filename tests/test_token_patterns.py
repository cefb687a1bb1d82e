"""Patterns select tokens by the text that they stand for, however a vocabulary spells it."""

from __future__ import annotations

import json

import pytest
from real_tokenizers import available, real

from tokmigrate.model.documents.declared import state_without_weights
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.token_patterns import PRESETS, find_matches

THE = {
    "phi-2": ["the", "Ġthe"],
    "mistral-chat": ["the", "▁the"],
    "phi-3-mini": ["the", "▁the"],
    "t5-small": ["the", "▁the"],
    "all-minilm-l6-v2": ["##the", "the"],
}


def state_of(name: str) -> ModelState:
    document = json.loads((real(name) / "tokenizer.json").read_text("utf-8"))
    return state_without_weights({"tokenizer.json": document}, 0)


@pytest.mark.parametrize("name", available(*THE))
def test_a_word_in_each_spelling(name: str) -> None:
    assert sorted(find_matches(state_of(name), "re:^ ?the$")) == THE[name]


def test_presets_and_scripts_of_a_byte_level_bpe() -> None:
    state = state_of("phi-2")
    found = {word: {*find_matches(state, word)} for word in [*(f"preset:{name}" for name in PRESETS), "script:GREEK"]}
    assert {"7", "Ġ7000"} <= found["preset:digits"] <= found["preset:alphanumeric"] <= found["preset:ascii_printable"]
    assert {"Ġthe", "A"} <= found["preset:ascii_letters"] <= found["preset:alphanumeric"]
    assert {"Ġ(/", "=="} <= found["preset:punctuation"]
    assert {"Ġ", "Ċ", "ĊĊ"} <= found["preset:whitespace"]
    # A letter of two bytes, and a part of one, which is no text.
    assert {"Î±", "a", "Ġa"} <= found["preset:single_characters"]
    assert "Î" not in found["preset:single_characters"]
    assert {"Î±", "ĠÎ¼"} <= found["script:GREEK"]


@pytest.mark.parametrize("name", available("mistral-chat", "all-minilm-l6-v2"))
def test_several_scripts_hold_mixed_tokens(name: str) -> None:
    state = state_of(name)
    each = [{*find_matches(state, f"script:{script}")} for script in ("Han", "Hiragana", "Katakana")]
    both = {*find_matches(state, "script:Han,Hiragana,Katakana")}
    assert set.union(*each) <= both
    assert set.intersection(*each) == set()
