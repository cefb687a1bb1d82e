"""Where tokens end in a text, for each kind of tokenizer: letters of several bytes may be divided between tokens."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_tokenizers import available, real

from tokmigrate.model.tokenizer.library import open_tokenizer
from tokmigrate.model.tokenizer.token_meaning import Spelling
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer, view
from tokmigrate.training.text_ends import find_text_ends, tokenize_texts

TEXTS = st.text(alphabet=st.sampled_from("ab 1.\n\té日本🦄ï\u0301zq"), min_size=1, max_size=30)
# Byte-level, and SentencePiece with bytes for what it has no piece for.
EXACT = available("phi-2", "mistral-chat", "phi-3-mini", "minimind", "roberta-base")


def document(name: str) -> Tokenizer:
    return view(json.loads((real(name) / "tokenizer.json").read_text("utf-8")))


@pytest.mark.parametrize("name", EXACT)
def test_the_tokens_before_an_end_are_exactly_its_text(name: str) -> None:
    tokenizer = document(name)
    library, spelling = open_tokenizer(tokenizer.document), Spelling(tokenizer)

    @settings(max_examples=60, deadline=None)
    @given(text=TEXTS)
    def check(text: str) -> None:
        (found,) = tokenize_texts(library, [text])
        read = [b""]
        for number in found.ids:
            read.append(read[-1] + (spelling.find_meaning(tokenizer.texts[number]) or b""))
        # SentencePiece puts a space in front.
        front = len(read[-1]) - len(text.encode())
        ends = {len(text[:end].encode()) for end in range(1, len(text) + 1)}
        assert front in (0, 1)
        assert {len(text[:end].encode()) for end in found.ends} == ends & {len(each) - front for each in read}
        for end, place in found.ends.items():
            assert read[place + 1][front:] == text[:end].encode()

    check()


@pytest.mark.parametrize("name", available("bert-base-uncased"))
def test_ends_of_wordpiece(name: str) -> None:
    library = open_tokenizer(document(name).document)
    text = "Unbelievable naïve 日本 café!"
    (found,) = tokenize_texts(library, [text])
    tokens = [library.id_to_token(number) for number in found.ids]
    assert [text[:end] for end in sorted(found.ends)][-1] == text
    for end, place in found.ends.items():
        joined = "".join(token.removeprefix("##") for token in tokens[1 : place + 1])
        bare = text[:end].lower().replace(" ", "").replace("ï", "i").replace("é", "e")
        assert joined == bare


def test_a_token_that_ends_inside_a_letter_has_no_end() -> None:
    # Three bytes of a letter, the last of them together with the next letter.
    assert find_text_ends([(0, 1), (1, 2), (1, 2), (1, 3)]) == {1: 0, 3: 3}
    # A piece for the space alone, with the place of the letter behind it.
    assert find_text_ends([(0, 1), (0, 2)]) == {2: 1}
    assert find_text_ends([]) == {}
