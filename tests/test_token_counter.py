"""Tokens are counted alike whether texts are tokenized whole or in parts."""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_tokenizers import available, real
from test_properties import thorough

from tokmigrate.model.tokenizer.library import open_tokenizer
from tokmigrate.model.worker import count_tokens
from tokmigrate.model.worker.count_tokens import TokenCounter

# What separates words at spaces; in the others a text is one word.
APART = available("phi-2", "gpt2-chatml", "bert-base-uncased", "oromo-t5", "t5-small", "deepseek")
WHOLE = available("mistral-chat", "phi-3-mini")
HERE = Path(__file__).parent
TEXTS = [line for name in ("making.py", "../docs/learn.md", "test_scripts.py") for line in (HERE / name).open()]


@functools.cache
def library(name: str) -> Any:
    tokenizer = open_tokenizer(real(name) / "tokenizer.json")
    tokenizer.post_processor = None
    return tokenizer


def count(tokenizer: Any, texts: list[str]) -> Counter[int]:
    return Counter(number for each in tokenizer.encode_batch(texts, add_special_tokens=False) for number in each.ids)


@pytest.mark.parametrize("name", [*APART, *WHOLE])
def test_parts_are_tokenized_where_the_library_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_tokens, "_PARTS", 500)
    counter = TokenCounter(library(name))
    for start in range(0, len(TEXTS), 100):
        counter.add(TEXTS[start : start + 100])
    assert counter._has_words == (name in APART)
    assert counter.counts() == count(library(name), TEXTS)


LETTERS = st.sampled_from([*"aB1.,'_-()\u00e9\u0131\u4e2d\u0e01\u0301\u200b\u00a0\t\n", " ", " ", " ", "  ", "'s "])


@given(texts=st.lists(st.lists(st.one_of(LETTERS, st.characters(codec="utf-8"))).map("".join), max_size=8))
@thorough(200)
def test_any_texts(texts: list[str]) -> None:
    for name in APART:
        counter = TokenCounter(library(name))
        # What the first test shows is not asked again.
        counter._has_words = True
        counter.add(texts)
        assert counter.counts() == count(library(name), texts), name


def test_an_added_token_that_takes_the_space_behind_it() -> None:
    document = json.loads((real("gpt2-chatml") / "tokenizer.json").read_text("utf-8"))
    document["added_tokens"][1]["rstrip"] = True
    counter = TokenCounter(open_tokenizer(document))
    counter.add(["one two"])
    assert counter._has_words is False


def test_a_token_of_two_words_that_the_first_texts_do_not_have() -> None:
    merges = [["c", "a"], ["ca", "t"], ["d", "o"], ["do", "g"], [" ", "dog"], ["cat", " dog"]]
    tokens = [*"catdog ", *("".join(pair) for pair in merges)]
    model = {"type": "BPE", "vocab": {token: number for number, token in enumerate(dict.fromkeys(tokens))}}
    tokenizer = open_tokenizer({"version": "1.0", "added_tokens": [], "model": {**model, "merges": merges}})
    counter = TokenCounter(tokenizer)
    for texts in (["a dog", "a cat"], ["cat dog"]):
        counter.add(texts)
    assert counter.counts() == count(tokenizer, ["a dog", "a cat", "cat dog"])
