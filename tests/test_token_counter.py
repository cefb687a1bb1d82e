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
from tokmigrate.model.worker import compare_tokens, count_tokens
from tokmigrate.model.worker.compare_tokens import Change, Comparison
from tokmigrate.model.worker.count_tokens import TokenCounter
from tokmigrate.model.worker.text_parts import SPACES as AT_SPACES
from tokmigrate.model.worker.text_parts import WORDS as AT_WORDS
from tokmigrate.model.worker.text_parts import Separator

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
def first_separator(name: str) -> Separator:
    separator = Separator(library(name))
    separator.find(TEXTS[:100])
    return separator


@pytest.mark.parametrize("name", [*SPACES, *WORDS, *WHOLE])
def test_parts_are_tokenized_where_the_library_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_tokens, "_PARTS", 500)
    separator = Separator(library(name))
    counter = TokenCounter(library(name), separator)
    for start in range(0, len(TEXTS), 100):
        counter.add(TEXTS[start : start + 100])
    cut = separator.found.cut if separator.found else None
    assert cut == (AT_SPACES if name in SPACES else AT_WORDS if name in WORDS else None)
    assert counter.counts() == count(library(name), TEXTS)


LETTERS = st.sampled_from(
    [*"aB1.,'_-()\u00e9\u0131\u4e2d\u0e01\u0301\u200b\u00a0\t\n", " ", " ", " ", "  ", "'s ", "'ll", "<|endoftext|>"]
)


@given(texts=st.lists(st.lists(st.one_of(LETTERS, st.characters(codec="utf-8"))).map("".join), max_size=8))
@thorough(200)
def test_any_texts(texts: list[str]) -> None:
    for name in (*SPACES, *WORDS):
        # What the first test shows is not asked again.
        counter = TokenCounter(library(name), first_separator(name))
        counter.add(texts)
        assert counter.counts() == count(library(name), texts), name


@functools.cache
def pruned(name: str) -> Any:
    """Return the tokenizer without many of the words that end in a vowel or in `t`."""
    document = json.loads((real(name) / "tokenizer.json").read_text("utf-8"))
    model, added = document["model"], {token["content"] for token in document["added_tokens"]}
    names = [token if isinstance(token, str) else token[0] for token in model["vocab"]]
    gone = {token for token in names if len(token) > 3 and token[-1] in "aeout"} - added
    if isinstance(model["vocab"], list):
        model["vocab"] = [entry for entry in model["vocab"] if entry[0] not in gone]
    else:
        model["vocab"] = {token: number for token, number in model["vocab"].items() if token not in gone}
    if "merges" in model:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & gone]
    tokenizer = open_tokenizer(document)
    tokenizer.post_processor = None
    return tokenizer


def changes(before: Any, after: Any, texts: list[str]) -> list[Change]:
    """Return what tokenizing whole texts says."""
    found = []
    sides = (side.encode_batch(texts, add_special_tokens=False) for side in (before, after))
    for was, now in zip(*sides, strict=True):
        expected = [after.token_to_id(token) for token in map(before.id_to_token, was.ids)]
        differs = expected != now.ids
        found.append(Change(len(was), len(now), differs, differs and None in expected))
    return found


@functools.cache
def first_comparison(name: str) -> Comparison:
    comparison = Comparison(library(name), pruned(name))
    comparison.compare(TEXTS[:100])
    return comparison


@pytest.mark.parametrize("name", [*SPACES, *WORDS, *WHOLE])
def test_two_tokenizers_are_compared_by_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_tokens, "_PARTS", 500)
    monkeypatch.setattr(compare_tokens, "_TOGETHER", 300)
    comparison = Comparison(library(name), pruned(name))
    found = [change for start in range(0, len(TEXTS), 100) for change in comparison.compare(TEXTS[start : start + 100])]
    assert (comparison._separator.found is None) == (name in WHOLE)
    assert found == changes(library(name), pruned(name), TEXTS)
    assert {change.has_removed for change in found} == {False, True}


@given(texts=st.lists(st.lists(st.one_of(LETTERS, st.sampled_from(["the", " said", "note"]))).map("".join), max_size=8))
@thorough(200)
def test_any_texts_are_compared(texts: list[str]) -> None:
    for name in (*SPACES, *WORDS):
        comparison = first_comparison(name)
        assert comparison._separator.found is not None
        comparison._known.clear()
        assert comparison.compare(texts) == changes(library(name), pruned(name), texts), name


@pytest.mark.parametrize("token", ["<|im_end|>", "(1)"])
def test_an_added_token_that_takes_the_space_behind_it(token: str) -> None:
    document = json.loads((real("gpt2-chatml") / "tokenizer.json").read_text("utf-8"))
    document["added_tokens"][-1] |= {"rstrip": True, "content": token}
    tokenizer = open_tokenizer(document)
    separator = Separator(tokenizer)
    counter = TokenCounter(tokenizer, separator)
    texts = ["one two", f"one{token} two"]
    for text in texts:
        counter.add([text])
    # A text with the first is not taken apart; the second is found out next to letters.
    cut = separator.found.cut if separator.found else None
    assert cut == (AT_WORDS if token == "<|im_end|>" else None)
    assert counter.counts() == count(tokenizer, texts)


def test_a_token_of_two_words_that_the_first_texts_do_not_have() -> None:
    merges = [["c", "a"], ["ca", "t"], ["d", "o"], ["do", "g"], [" ", "dog"], ["cat", " dog"]]
    tokens = [*"catdog ", *("".join(pair) for pair in merges)]
    model = {"type": "BPE", "vocab": {token: number for number, token in enumerate(dict.fromkeys(tokens))}}
    tokenizer = open_tokenizer({"version": "1.0", "added_tokens": [], "model": {**model, "merges": merges}})
    separator = Separator(tokenizer)
    counter = TokenCounter(tokenizer, separator)
    for texts in (["a dog", "a cat"], ["cat dog"]):
        counter.add(texts)
    assert counter.counts() == count(tokenizer, ["a dog", "a cat", "cat dog"])


@pytest.mark.parametrize("token", ["a.b", "don't", "(x)"])
def test_an_added_token_over_punctuation(token: str) -> None:
    document = json.loads((real("gpt2-chatml") / "tokenizer.json").read_text("utf-8"))
    size = len(document["model"]["vocab"]) + len(document["added_tokens"])
    document["added_tokens"].append({**document["added_tokens"][0], "id": size, "content": token})
    tokenizer = open_tokenizer(document)
    separator = Separator(tokenizer)
    counter = TokenCounter(tokenizer, separator)
    texts = ["one, two.", f"a{token}b {token} {token}.", f"x{token}x, {token[:2]}", "three"]
    counter.add(texts)
    assert separator.found is not None
    assert separator.found.cut is AT_WORDS
    assert counter.counts() == count(tokenizer, texts)
