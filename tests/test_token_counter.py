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
from tokmigrate.model.worker.count_tokens import _SPACES, _WORDS, TokenCounter

# What separates words at spaces, and what also before punctuation; in the others a text is one word.
SPACES = available("bert-base-uncased", "oromo-t5", "t5-small", "deepseek")
WORDS = available("phi-2", "gpt2-chatml")
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


@functools.cache
def first_counter(name: str) -> TokenCounter:
    counter = TokenCounter(library(name))
    counter.add(TEXTS[:100])
    return counter


@pytest.mark.parametrize("name", [*SPACES, *WORDS, *WHOLE])
def test_parts_are_tokenized_where_the_library_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_tokens, "_PARTS", 500)
    counter = TokenCounter(library(name))
    for start in range(0, len(TEXTS), 100):
        counter.add(TEXTS[start : start + 100])
    assert counter._cut == (_SPACES if name in SPACES else _WORDS if name in WORDS else None)
    assert counter.counts() == count(library(name), TEXTS)


LETTERS = st.sampled_from(
    [*"aB1.,'_-()\u00e9\u0131\u4e2d\u0e01\u0301\u200b\u00a0\t\n", " ", " ", " ", "  ", "'s ", "'ll", "<|endoftext|>"]
)


@given(texts=st.lists(st.lists(st.one_of(LETTERS, st.characters(codec="utf-8"))).map("".join), max_size=8))
@thorough(200)
def test_any_texts(texts: list[str]) -> None:
    for name in (*SPACES, *WORDS):
        counter = TokenCounter(library(name))
        # What the first test shows is not asked again.
        known = first_counter(name)
        counter._is_asked, counter._cut, counter._whole = True, known._cut, known._whole
        counter.add(texts)
        assert counter.counts() == count(library(name), texts), name


@pytest.mark.parametrize("token", ["<|im_end|>", "(1)"])
def test_an_added_token_that_takes_the_space_behind_it(token: str) -> None:
    document = json.loads((real("gpt2-chatml") / "tokenizer.json").read_text("utf-8"))
    document["added_tokens"][-1] |= {"rstrip": True, "content": token}
    tokenizer = open_tokenizer(document)
    counter = TokenCounter(tokenizer)
    texts = ["one two", f"one{token} two"]
    for text in texts:
        counter.add([text])
    # A text with the first is not taken apart; the second is found out next to letters.
    assert counter._cut == (_WORDS if token == "<|im_end|>" else None)
    assert counter.counts() == count(tokenizer, texts)


def test_a_token_of_two_words_that_the_first_texts_do_not_have() -> None:
    merges = [["c", "a"], ["ca", "t"], ["d", "o"], ["do", "g"], [" ", "dog"], ["cat", " dog"]]
    tokens = [*"catdog ", *("".join(pair) for pair in merges)]
    model = {"type": "BPE", "vocab": {token: number for number, token in enumerate(dict.fromkeys(tokens))}}
    tokenizer = open_tokenizer({"version": "1.0", "added_tokens": [], "model": {**model, "merges": merges}})
    counter = TokenCounter(tokenizer)
    for texts in (["a dog", "a cat"], ["cat dog"]):
        counter.add(texts)
    assert counter.counts() == count(tokenizer, ["a dog", "a cat", "cat dog"])


@pytest.mark.parametrize("token", ["a.b", "don't", "(x)"])
def test_an_added_token_over_punctuation(token: str) -> None:
    document = json.loads((real("gpt2-chatml") / "tokenizer.json").read_text("utf-8"))
    size = len(document["model"]["vocab"]) + len(document["added_tokens"])
    document["added_tokens"].append({**document["added_tokens"][0], "id": size, "content": token})
    tokenizer = open_tokenizer(document)
    counter = TokenCounter(tokenizer)
    texts = ["one, two.", f"a{token}b {token} {token}.", f"x{token}x, {token[:2]}", "three"]
    counter.add(texts)
    assert counter._cut is _WORDS
    assert counter.counts() == count(tokenizer, texts)
