"""How many tokens the texts of a corpus have with two tokenizers, by file and by script."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from real_tokenizers import available, real

from tokmigrate.errors import TokenizerError
from tokmigrate.model.documents.declared import state_without_weights
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.model.worker.corpora import open_corpus
from tokmigrate.plan.token_growth import CorpusGrowth, measure_growth

NAME = available("phi-2", "mistral-chat")[0]
TEXTS = {
    "code.jsonl": ["def find(word):\n    return word", "", "import this"] * 20,
    "mixed.txt": ["Привет, мир: hello", "日本語のテキスト, 日本", "1 + 1 = 2", "the reference of the documentation"]
    * 10,
}
SCRIPTS = {"Cyrillic": [0], "Han": [1], "Common": [2], "Latin": [3]}


def document(name: str = NAME) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((real(name) / "tokenizer.json").read_text("utf-8"))
    return found


def without(made: dict[str, Any], *tokens: str) -> dict[str, Any]:
    """Return a BPE without tokens and the merges that make or take them."""
    model = made["model"]
    vocab = {token: number for token, number in model["vocab"].items() if token not in tokens}
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    merges = [list(pair) for pair in pairs if not {*pair, "".join(pair)} & {*tokens}]
    return {**made, "model": {**model, "vocab": vocab, "merges": merges}}


def write(root: Path) -> list[str]:
    for name, texts in TEXTS.items():
        lines = [json.dumps({"text": text}) if name.endswith("jsonl") else text for text in texts]
        (root / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return [str(root / name) for name in TEXTS]


def grown(root: Path, before: dict[str, Any], after: dict[str, Any], *, held_out_alone: bool = False) -> CorpusGrowth:
    state = state_without_weights({FILE: before}, 0)
    with open_corpus(write(root)) as corpus:
        read: list[int] = []
        found = measure_growth(
            state, replace(state, documents={FILE: after}), corpus, read.append, held_out_alone=held_out_alone
        )
        assert sum(read) == corpus.size
        return found


@pytest.mark.parametrize("held_out_alone", [False, True])
def test_the_counts_are_those_of_the_library(tmp_path: Path, held_out_alone: bool) -> None:
    old = document()
    removed = [token for token in old["model"]["vocab"] if token.endswith(("documentation", "reference", "turn"))]
    new = without(old, *removed)
    found = grown(tmp_path, old, new, held_out_alone=held_out_alone)
    sides = [tokenizers.Tokenizer.from_str(json.dumps(each)) for each in (old, new)]
    for path, growth in found.files.items():
        held = [
            text
            for number, text in enumerate(TEXTS[Path(path).name], 1)
            if text and (not held_out_alone or number % 10 == 0)
        ]
        was, now = ([side.encode(text, add_special_tokens=False).tokens for text in held] for side in sides)
        assert growth.texts == len(held)
        assert growth.bytes == sum(len(text.encode()) for text in held)
        assert (growth.tokens_before, growth.tokens_after) == (sum(map(len, was)), sum(map(len, now)))
        assert growth.tokenized_differently == sum(one != other for one, other in zip(was, now, strict=True))
        assert growth.with_removed_tokens == sum(not {*removed}.isdisjoint(tokens) for tokens in was)
    assert found.whole.tokenized_differently == found.whole.with_removed_tokens > 0
    assert found.unexpected is None


def test_texts_are_counted_by_the_script_of_most_letters(tmp_path: Path) -> None:
    found = grown(tmp_path, document(), document())
    code = next(growth for path, growth in found.files.items() if path.endswith("jsonl"))
    for script, places in SCRIPTS.items():
        texts = [TEXTS["mixed.txt"][place] for place in places] * 10
        growth = found.scripts[script]
        more = code.texts if script == "Latin" else 0
        assert growth.texts == len(texts) + more
    assert list(found.scripts) == sorted(found.scripts, key=lambda script: -found.scripts[script].bytes)
    assert found.whole.tokenized_differently == 0
    assert found.whole.ratio == 1


def test_what_nobody_expects_is_named(tmp_path: Path) -> None:
    # A merge is missing, and no token.
    old = document()
    merges = [pair for pair in old["model"]["merges"] if "".join(pair).replace(" ", "") != "import"]
    found = grown(tmp_path, old, {**old, "model": {**old["model"], "merges": merges}})
    assert found.unexpected == (str(tmp_path / "code.jsonl"), 3)
    assert found.whole.with_removed_tokens == 0


def test_a_text_that_a_tokenizer_cannot_tokenize(tmp_path: Path) -> None:
    unigram = {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0]]}
    with pytest.raises(TokenizerError, match="unk_id"):
        grown(tmp_path, document(), {"version": "1.0", "added_tokens": [], "model": unigram})
