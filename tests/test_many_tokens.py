"""Tokens that are added together get the ids that they get one by one."""

from __future__ import annotations

from functools import reduce
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tokmigrate.errors import TokmigrateError
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.vocabulary.ids import AddedToken

TEXTS = tuple(f"t{number}" for number in range(12))


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Return a tokenizer whose vocabulary may have holes, with added tokens of it and of none."""
    inside = draw(st.lists(st.sampled_from(TEXTS), unique=True, max_size=8))
    ids = draw(st.lists(st.integers(0, 11), unique=True, min_size=len(inside), max_size=len(inside)))
    vocabulary = {"a": 12, **dict(zip(inside, ids, strict=True))} if draw(st.booleans()) else {"a": 0}
    tokenizer = Tokenizer({"model": {"type": "BPE", "vocab": vocabulary, "merges": []}, "added_tokens": []})
    for text in draw(st.lists(st.sampled_from(TEXTS), unique=True, max_size=3)):
        tokenizer = tokenizer.with_token(AddedToken(text))
    return dict(tokenizer.document)


def outcome(document: dict[str, Any], texts: list[str], one_by_one: bool) -> Any:
    tokens = [AddedToken(text, special=number % 2 == 0) for number, text in enumerate(texts)]
    tokenizer = Tokenizer(document)
    try:
        if one_by_one:
            return reduce(Tokenizer.with_token, tokens, tokenizer).document
        return tokenizer.with_tokens(tokens).document
    except TokmigrateError as error:
        return str(error)


@given(documents(), st.lists(st.sampled_from(TEXTS), unique=True, max_size=9))
def test_together_as_one_by_one(document: dict[str, Any], texts: list[str]) -> None:
    new = [text for text in texts if text not in Tokenizer(document).added]
    assert outcome(document, new, one_by_one=False) == outcome(document, new, one_by_one=True)


@given(st.permutations(range(12)), st.integers(0, 11), st.data())
def test_each_is_listed_before_the_first_with_a_higher_id(order: list[int], size: int, data: st.DataObject) -> None:
    entries = [{"id": number, "content": TEXTS[number], "special": False} for number in order[:size]]
    vocabulary = {text: number for number, text in enumerate(TEXTS)}
    document = {"model": {"type": "BPE", "vocab": vocabulary, "merges": []}, "added_tokens": entries}
    new = data.draw(st.lists(st.sampled_from(order[size:]), unique=True))
    made = Tokenizer(document).with_tokens([AddedToken(TEXTS[number]) for number in new]).document
    wanted = list(order[:size])
    for number in new:
        wanted.insert(next((place for place, other in enumerate(wanted) if other > number), len(wanted)), number)
    assert [entry["id"] for entry in made["added_tokens"]] == wanted
