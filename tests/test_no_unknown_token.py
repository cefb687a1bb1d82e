"""Tokenizers that cannot tokenize every text, and vocabularies with gaps: what is possible on them is not refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_tokenizers import DATA, real
from safetensors.numpy import save_file
from shared_models import SharedModel
from tokenizers import Tokenizer

from tokmigrate.commands.lint import lint
from tokmigrate.errors import OperationError, TokenizerError, VerificationError
from tokmigrate.lint.linter import Selection

WILD = DATA / "cases" / "wild"
WORDS = ["ab", "cd", "+", "\u00e9t\u00e9"]


def flags(content: str, number: int) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **plain, "special": True}


def document(model: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    return {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, **parts, "model": model}


NUMBERED = {word: number for number, word in enumerate(WORDS)}
MODELS = {
    "words": {"type": "WordLevel", "vocab": NUMBERED, "unk_token": "[UNK]"},
    "pieces": {
        "type": "WordPiece",
        "vocab": NUMBERED,
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    },
    "unigram": {
        "type": "Unigram",
        "vocab": [*([word, -1.0] for word in WORDS), *([letter, -9.0] for letter in "abcdt\u00e9")],
        "unk_id": None,
    },
}
GAPS: dict[str, Any] = {
    "type": "BPE",
    "vocab": {"a": 0, "b": 1, "ab": 2, "w": 3, "i": 4, "l": 5, "d": 6, "x": 7, "y": 10},
    "merges": [["a", "b"]],
}


def model_of(root: Path, tokenizer: Mapping[str, Any]) -> SharedModel:
    directory = root / "m"
    directory.mkdir(parents=True)
    (root / "migrations").mkdir()
    vocabulary = tokenizer["model"]["vocab"]
    ids = range(len(vocabulary)) if isinstance(vocabulary, list) else vocabulary.values()
    rows = max([*ids, *(entry["id"] for entry in tokenizer["added_tokens"])]) + 1
    matrix = np.random.default_rng(7).standard_normal((rows, 4)).astype(np.float32)
    save_file({"model.embed_tokens.weight": matrix, "lm_head.weight": matrix + 1}, directory / "model.safetensors")
    config = {"model_type": "llama", "vocab_size": rows, "hidden_size": 4, "tie_word_embeddings": False}
    for name, held in (("config.json", config), ("tokenizer.json", tokenizer)):
        (directory / name).write_text(json.dumps(held), "utf-8")
    (root / "tokmigrate.yaml").write_text("format: 1\nverify: fast\nmodels:\n  m: {path: m}\n", "utf-8")
    return SharedModel(root)


PARTS = """
- set_normalizer: {type: NFC}
- set_pre_tokenizer: {type: Whitespace, acknowledge: breaking}
- set_post_processor: {type: ByteLevel, add_prefix_space: false, trim_offsets: true, use_regex: true}
- set_decoder: {type: Fuse}
"""


@pytest.mark.parametrize("name", MODELS)
def test_parts_are_set_where_no_unknown_token_is_reachable(tmp_path: Path, name: str) -> None:
    added = [flags("[UNK]", len(WORDS))] if name != "unigram" else []
    model = model_of(tmp_path, document(MODELS[name], added_tokens=added))
    before = model.bytes()
    model.migrate(PARTS)
    assert model.json("tokenizer.json")["normalizer"] == {"type": "NFC"}
    assert model.library().encode("ab cd+").tokens == ["ab", "cd", "+"]
    model.down()
    assert model.bytes() == before


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("set_pre_tokenizer: {type: FixedLength, length: 0}", "refuses the pre_tokenizer"),
        ("set_normalizer: {type: Replace, pattern: {Regex: '('}, content: x}", "refuses the normalizer"),
    ],
)
def test_a_part_that_fails_is_refused_there_too(tmp_path: Path, part: str, words: str) -> None:
    model = model_of(tmp_path, document(MODELS["words"], added_tokens=[flags("[UNK]", len(WORDS))]))
    with pytest.raises(OperationError, match=words):
        model.planned(f"- {part}")


def test_a_part_that_takes_the_unknown_token_away_from_text_is_refused(tmp_path: Path) -> None:
    every = {letter: number for number, letter in enumerate("Ab, \u00e9\u246012")}
    model = model_of(
        tmp_path, document({"type": "WordLevel", "vocab": every, "unk_token": "[UNK]"}, pre_tokenizer=SPLIT)
    )
    model.planned("- set_normalizer: {type: NFC}")
    with pytest.raises(OperationError, match="refuses the normalizer"):
        model.planned("- set_normalizer: {type: Prepend, prepend: x}")


SPLIT = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}


def test_what_cannot_be_tokenized_is_reported_for_inits_and_verify_cases(tmp_path: Path) -> None:
    model = model_of(tmp_path, document(MODELS["unigram"]))
    with pytest.raises(TokenizerError, match="cannot tokenize '<tool>'") as raised:
        model.planned("- add_tokens: {tokens: [{content: <tool>, init: {strategy: subtokens}}]}")
    assert "another init strategy" in str(raised.value.hint)
    path = model.write("- add_tokens: [<tool>]")
    path.write_text(path.read_text("utf-8") + 'verify:\n  - single_token: "xyz"\n', "utf-8")
    before = model.bytes()
    with pytest.raises(VerificationError, match="'xyz' cannot be tokenized"):
        model.migrate("- set_decoder: null")
    assert model.bytes() == before


def test_lint_says_only_what_it_can_know_of_them(tmp_path: Path) -> None:
    model = model_of(tmp_path, document(MODELS["unigram"], normalizer={"type": "Lowercase"}))
    model.write("- add_tokens: [{content: ABBA, normalized: false}, {content: cdcd, normalized: true}]")
    linted = lint(model.workspace, [model.entry], Selection(("TM0", "TM101")))
    assert linted.findings == ()


@pytest.mark.parametrize("name", ["words", "letters", "whole", "prefixed", "suffixed", "bytes"])
def test_a_token_for_whole_words_goes_into_a_vocabulary_with_gaps_where_the_model_cannot_make_it(
    tmp_path: Path, name: str
) -> None:
    change, token, is_possible = {
        "words": ({}, "wild", True),
        "letters": ({}, "z", False),
        "whole": ({"ignore_merges": True}, "wild", False),
        "prefixed": ({"continuing_subword_prefix": "##"}, "##z", False),
        "suffixed": ({"end_of_word_suffix": "</w>"}, "z</w>", False),
        "bytes": ({"byte_fallback": True}, "<0x41>", False),
    }[name]
    model = model_of(tmp_path, document({**GAPS, **change}, added_tokens=[flags("<end>", 9)]))
    operation = f"- add_tokens: {{tokens: [{{content: '{token}', single_word: true}}]}}"
    if not is_possible:
        with pytest.raises(OperationError, match="matches whole words only"):
            model.planned(operation)
        return
    texts = ["".join(letters) for letters in itertools.product(["wild", "x", "ab", " "], repeat=4)]
    before, old = model.bytes(), model.library()
    model.migrate(operation)
    new = model.library()
    for text in texts:
        if token not in text.split():
            assert new.encode(text).ids == old.encode(text).ids
        else:
            assert new.token_to_id(token) in new.encode(text).ids
    model.down()
    assert model.bytes() == before


REAL = [
    "oromo-unigram",
    *(name for name in ("wordlevel-no-unk", "gap-bpe-cropped-gpt35turbo") if (WILD / name).is_dir()),
]


@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers(tmp_path: Path, name: str) -> None:
    source = WILD / name if (WILD / name).is_dir() else real(name)
    model = model_of(tmp_path, json.loads((source / "tokenizer.json").read_text("utf-8")))
    before = model.bytes()
    model.migrate("- add_tokens: [{content: wildword, single_word: true}]" if name.startswith("gap") else PARTS)
    assert Tokenizer.from_file(str(model.directory / "tokenizer.json")).get_vocab_size()
    model.down()
    assert model.bytes() == before
