"""Whole words added to a WordPiece or Unigram: which text is tokenized differently, and which is not."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from real_tokenizers import available, real
from shared_models import SharedModel, shared_model

from tokmigrate.commands.stamp import stamp_model
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import OperationError
from tokmigrate.model.documents.declared import state_without_weights
from tokmigrate.operations.add_words import AddWords
from tokmigrate.operations.operation import Context

WORD_PIECE = available("bert-base-uncased")
UNIGRAM = available("oromo-t5", "t5-small")
HERE = Path(__file__).parent
DOMAIN = "\n".join(path.read_text("utf-8") for path in sorted(HERE.glob("test_re*.py")))
LINES = [*DOMAIN.splitlines(), *(HERE.parent / "README.md").read_text("utf-8").splitlines()]


def several_tokens(library: tokenizers.Tokenizer, most: int) -> list[str]:
    """Return the most frequent words that are several tokens, as the vocabulary spells them."""
    found: list[str] = []
    for word, _ in Counter(re.findall(r"[A-Za-z]{3,}", DOMAIN)).most_common():
        tokens = library.encode(word, add_special_tokens=False).tokens
        spelled = "".join(token.removeprefix("##") for token in tokens)
        if len(tokens) > 1 and spelled not in found and not any("unk" in token.lower() for token in tokens):
            found.append(spelled)
    return found[:most]


def mixed(words: list[str], library: tokenizers.Tokenizer, count: int) -> list[str]:
    """Return texts of words and of other tokens, glued together."""
    source = random.Random(3)  # noqa: S311 - the same texts each time
    some = [*words, *source.sample(sorted(library.get_vocab(with_added_tokens=False)), 400)]
    return ["".join(source.choices(some, k=source.randint(1, 6))).replace("▁", " ") for _ in range(count)]


def add(model: SharedModel, words: list[str], init: str = "{strategy: mean}") -> None:
    (model.root / "migrations" / "words.txt").write_text("".join(f"{word}\n" for word in words), "utf-8")
    model.migrate(f"- add_words: {{words_file: words.txt, init: {init}}}")


def offsets(encoding: tokenizers.Encoding) -> set[tuple[int, int]]:
    return {(start, end) for start, end in encoding.offsets if end > start}


def joins(old: tokenizers.Encoding, new: tokenizers.Encoding) -> bool:
    """Whether each token of `new` is one or several of `old`."""
    return {end for _, end in offsets(new)} <= {end for _, end in offsets(old)}


def is_joined_or_equal(
    old: tokenizers.Tokenizer, new: tokenizers.Tokenizer, text: str, scores: dict[int, float]
) -> bool:
    """Whether tokens are old ones joined, or have the same sum of old scores: of equal sums either may win."""
    was, now = (each.encode(text, add_special_tokens=False).ids for each in (old, new))
    apart: list[int] = []
    for number in now:
        word = new.id_to_token(number).removeprefix("▁")
        apart += [number] if number in scores else old.encode(word, add_special_tokens=False).ids
    return apart == was or abs(sum(scores[each] for each in apart) - sum(scores[each] for each in was)) < 1e-7


def scores_of(document: dict[str, Any]) -> dict[int, float]:
    return {number: score for number, (_, score) in enumerate(document["model"]["vocab"])}


@pytest.mark.parametrize("name", WORD_PIECE)
def test_words_that_begin_with_no_new_one_stay_as_they_are(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path, name)
    before, old = model.bytes(), model.library()
    words = several_tokens(old, 150)
    add(model, words)
    new = model.library()
    assert {token: new.token_to_id(token) for token in old.get_vocab()} == old.get_vocab()
    changed = Counter()
    for line in [*LINES, *mixed(words, old, 1_000)]:
        for word, _ in old.pre_tokenizer.pre_tokenize_str(old.normalizer.normalize_str(line)):
            was, now = (each.encode(word, add_special_tokens=False) for each in (old, new))
            if not word.startswith(tuple(words)):
                assert was.tokens == now.tokens
            elif word in words:
                assert now.tokens == [word]
            changed[joins(was, now)] += was.tokens != now.tokens
    assert changed[True] > 1_000
    assert changed[False] < changed[True] / 5
    model.down()
    assert model.bytes() == before


@pytest.mark.parametrize("name", UNIGRAM)
def test_every_boundary_of_a_unigram_is_an_old_one(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path, name)
    before, old = model.bytes(), model.library()
    words, scores = several_tokens(old, 150), scores_of(model.json("tokenizer.json"))
    add(model, words)
    new = model.library()
    assert {token: new.token_to_id(token) for token in old.get_vocab()} == old.get_vocab()
    changed = 0
    for line in [*LINES, *mixed(words, old, 1_000)]:
        assert is_joined_or_equal(old, new, line, scores), line
        changed += old.encode(line).tokens != new.encode(line).tokens
    assert changed > 1_000
    assert all(new.encode(word.removeprefix("▁"), add_special_tokens=False).tokens == [word] for word in words)
    model.down()
    assert model.bytes() == before


@pytest.mark.parametrize("name", [*WORD_PIECE, *UNIGRAM])
def test_a_row_is_made_of_the_old_tokens_of_the_word(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path, name)
    model.migrate('- add_tokens: ["<|one|>", {content: "<|two|>", special: true}]')
    old, rows = model.library(), model.rows()
    words = several_tokens(old, 3)
    add(model, words, "{strategy: subtokens}")
    new = model.library()
    ids = old.get_vocab(with_added_tokens=True)
    assert {token: new.token_to_id(token) for token in ids} == ids
    text = f"a <|one|> b <|two|> {words[0].removeprefix('▁')}"
    assert {"<|one|>", "<|two|>", words[0]} <= set(new.encode(text).tokens)
    for word in words:
        parts = old.encode(word.removeprefix("▁"), add_special_tokens=False).ids
        for key, held in model.rows().items():
            wanted = rows[key][parts].astype(np.float64).mean(axis=0)
            np.testing.assert_allclose(held[new.token_to_id(word)], wanted, rtol=1e-6, atol=1e-6)


def test_lines_of_vocab_txt_follow(tmp_path: Path) -> None:
    vocabulary = json.loads((real("bert-base-uncased") / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    lines = "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__))
    model = shared_model(tmp_path, "bert-base-uncased", {"vocab.txt": lines})
    model.migrate('- add_tokens: ["<|one|>"]')
    model.migrate("- add_words: [kubernetes, warfarin]")
    assert (model.directory / "vocab.txt").read_text("utf-8") == f"{lines}<|one|>\nkubernetes\nwarfarin\n"


FAULTS = {
    "a token already": ("bert-base-uncased", ["house"], "is a token already"),
    "twice": ("bert-base-uncased", ["warfarin", "warfarin"], "listed twice"),
    "not in lower case": ("bert-base-uncased", ["Warfarin"], "spells 'Warfarin' as 'warfarin'"),
    "two words": ("bert-base-uncased", ["war-farin"], "is not one word"),
    "the end of a word": ("bert-base-uncased", ["##farin"], "is not one word"),
    "an unknown letter": ("bert-base-uncased", ["warfa\u2603"], "not in the vocabulary"),
    "without the mark": ("oromo-t5", ["xylophone"], "spells 'xylophone' as '▁xylophone'"),
    "two words with marks": ("oromo-t5", ["▁xylophone▁quartz"], "is not one word"),
    "several": (
        "bert-base-uncased",
        ["warfarin", "house", "kubernetes", "Warfarin", *"abcdef"],
        r"8 words cannot be added: 'house' is a token already.*; this tokenizer spells 'Warfarin' as 'warfarin'; 'a' is"
        r".* and 3 more leave it out; write 'warfarin'",
    ),
    "a BPE": ("phi-2", ["xylophone"], "append merges with extend_vocab"),
}


@pytest.mark.parametrize(("name", "words", "message"), FAULTS.values(), ids=FAULTS)
def test_a_word_that_cannot_be_is_refused(tmp_path: Path, name: str, words: list[str], message: str) -> None:
    model = shared_model(tmp_path, name)
    before = model.bytes()
    with pytest.raises(OperationError) as refused:
        model.migrate(f"- add_words: {json.dumps(words, ensure_ascii=False)}")
    assert re.search(message, f"{refused.value} {refused.value.hint}")
    assert model.bytes() == before


def test_it_is_stamped_and_detected(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "bert-base-uncased")
    model.write("- add_words: [kubernetes, warfarin]")
    with pytest.raises(OperationError, match="kubernetes"):
        stamp_model(model.workspace, model.entry, "head")
    upgrade(model.workspace, model.entry)
    (model.directory / "tokmigrate.json").unlink()
    stamp_model(model.workspace, model.entry, "head")


def test_two_branches_that_add_words_are_not_independent() -> None:
    one, other = (AddWords(words=(word,)).footprint() for word in ("warfa", "warfarin"))
    assert one.conflicts(other)


def test_a_word_with_an_added_token_is_refused() -> None:
    vocabulary = [["?", 0.0], ["\u2581wor", -1.0], ["l", -2.0], ["d", -2.0], ["\u2581", -2.0]]
    document: dict[str, Any] = {"model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary}, "version": "1.0"}
    document["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"}
    flags = dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False)
    document["added_tokens"] = [{"id": 5, "content": "ld", **flags}]
    state = state_without_weights({"tokenizer.json": document}, 0)
    with pytest.raises(OperationError, match="tokenized as '\u2581wor', 'ld'"):
        AddWords(words=("\u2581world",)).apply(state, Context("0000"))


ALPHABET = st.text("abc", min_size=1, max_size=7)


def applied(model: dict[str, Any], words: list[str]) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer, str]:
    """Return a tokenizer before and after words are added, and what is said of the risk."""
    document: dict[str, Any] = {"version": "1.0", "added_tokens": [], "model": model}
    document["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    state = state_without_weights({"tokenizer.json": document}, 0)
    library = tokenizers.Tokenizer.from_str(json.dumps(document))
    fit = [
        word
        for word in words
        if library.token_to_id(word) is None
        and len(found := library.encode(word).tokens) > 1
        and not {"[UNK]", "?"} & set(found)
    ]
    if not fit:
        reject()
    operation = AddWords.model_validate({"words": fit})
    after = operation.apply(state, Context("0000"))
    new = tokenizers.Tokenizer.from_str(json.dumps(after.documents["tokenizer.json"]))
    return library, new, operation.risk(state, after).reason


# Each asks a worker which tokens text produces.
@settings(max_examples=30, deadline=None)
@given(st.sets(ALPHABET), st.sets(ALPHABET), st.lists(ALPHABET, unique=True, min_size=1), st.lists(st.text("abcd")))
def test_random_word_pieces(begin: set[str], go_on: set[str], words: list[str], some: list[str]) -> None:
    tokens = ["[UNK]", *sorted(begin | set("ab")), *(f"##{token}" for token in sorted(go_on | set("abc")))]
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    model |= {"max_input_chars_per_word": 100, "vocab": {token: number for number, token in enumerate(tokens)}}
    old, new, risk = applied(model, words)
    added = new.get_vocab().keys() - old.get_vocab().keys()
    open_ended = set(re.findall("'([abc]+)'", risk.partition("; after")[2]))
    for text in [*some, *(f"{word}{rest}" for word in added for rest in some)]:
        was, now = old.encode(text), new.encode(text)
        if not any(text.startswith(word) for word in added):
            assert was.tokens == now.tokens
        if len(added) <= 3 and not any(text.startswith(word) for word in open_ended):
            assert joins(was, now)


SCORES = st.floats(-20, -1).map(np.float32).map(float)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(ALPHABET, SCORES), st.lists(ALPHABET, unique=True, min_size=1), st.lists(ALPHABET))
def test_random_unigrams(pieces: dict[str, float], words: list[str], some: list[str]) -> None:
    scores = {"[UNK]": 0.0, "a": -3.0, "b": -3.5, "c": -4.25, **pieces}
    model = {"type": "Unigram", "unk_id": 0, "vocab": [[token, score] for token, score in scores.items()]}
    old, new, _ = applied(model, words)
    for text in ["".join(some), *some, *words]:
        assert is_joined_or_equal(old, new, text, scores_of({"model": model}))


def test_what_may_be_tokenized_differently_is_named() -> None:
    tokens = ["[UNK]", "[SEP]", "war", "##fa", "##ge", "##fage", "##rin"]
    model: dict[str, Any] = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    model |= {"max_input_chars_per_word": 100, "vocab": {token: number for number, token in enumerate(tokens)}}
    *_, risk = applied(model, ["warfa", "warfarin"])
    assert risk.endswith("; after 'warfa' the rest of a longer word may be tokenized differently")
    pieces = [["?", 0.0], ["a", -3.0], ["b", -3.5], ["xy", -4.0]]
    *_, risk = applied({"type": "Unigram", "unk_id": 0, "vocab": pieces}, ["ab"])
    assert "text with 'x', 'y' may be tokenized differently" in risk
