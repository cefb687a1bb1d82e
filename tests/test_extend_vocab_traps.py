"""Where appending merges goes wrong for scripts that do it by hand, and what `extend_vocab` makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from real_tokenizers import available, real
from shared_models import shared_model
from test_extend_vocab import DOMAIN, OLD, boundaries, learn, texts
from tokenizers import models, pre_tokenizers, trainers
from workspaces import Workspace

from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import OperationError
from tokmigrate.model.documents.declared import state_without_weights
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.tokenizer.tokenizer_json import merges_of
from tokmigrate.operations.extend_vocab import ExtendVocab, reachable_merges
from tokmigrate.operations.operation import Context

Merges = list[tuple[str, str]]
SMALL = "gpt2-chatml"
LINES = [*DOMAIN.splitlines(), *OLD.splitlines(), *texts(300)]


def document_of(name: str, **model: Any) -> dict[str, Any]:
    """Return a tokenizer.json, its model with these settings."""
    held: dict[str, Any] = json.loads((real(name) / "tokenizer.json").read_text("utf-8"))
    return {**held, "model": {**held["model"], **model}}


def state_of(document: dict[str, Any], **files: Any) -> ModelState:
    return state_without_weights({"tokenizer.json": document, **files}, 0)


def extended(document: dict[str, Any], merges: Merges) -> dict[str, Any]:
    """Return tokenizer.json after `extend_vocab`."""
    after = ExtendVocab.model_validate({"merges": merges}).apply(state_of(document), Context("0000"))
    found: dict[str, Any] = after.documents["tokenizer.json"]
    return found


def library(document: dict[str, Any]) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(document))


def count_new_boundaries(old: tokenizers.Tokenizer, new: tokenizers.Tokenizer) -> int:
    """Return how many lines have a boundary that they did not have."""
    return sum(not set(boundaries(new, line)) <= set(boundaries(old, line)) for line in LINES)


@pytest.mark.parametrize("name", [SMALL, *available("mistral-chat", "phi-3-mini")])
def test_merges_before_the_old_ones_make_new_boundaries(name: str) -> None:
    document = document_of(name)
    old = library(document)
    merges = learn(old, DOMAIN, 100)
    behind = extended(document, merges)
    assert count_new_boundaries(old, library(behind)) == 0
    new = [[left, right] for left, right in merges]
    before = {**behind, "model": {**behind["model"], "merges": [*new, *map(list, merges_of(document["model"]))]}}
    assert count_new_boundaries(old, library(before)) > 20


def fresh_merges(document: dict[str, Any], most: int) -> Merges:
    """Return merges of a BPE that is trained on the domain alone, for tokens that the old one lacks."""
    fresh = tokenizers.Tokenizer(models.BPE())
    fresh.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4_000, initial_alphabet=alphabet, show_progress=False)
    fresh.train_from_iterator(DOMAIN.splitlines(), trainer)
    vocabulary, found = {*document["model"]["vocab"]}, []
    for left, right in merges_of(json.loads(fresh.to_str())["model"]):
        if left + right not in vocabulary and {left, right} <= vocabulary and len(found) < most:
            vocabulary.add(left + right)
            found.append((left, right))
    return found


def test_merges_of_a_fresh_bpe_are_in_part_unreachable() -> None:
    document = document_of(SMALL)
    merges = fresh_merges(document, 200)
    assert len(merges) == 200
    with pytest.raises(OperationError, match=r"no text produces \d+ new tokens"):
        extended(document, merges)
    kept = list(reachable_merges(state_of(document), merges))
    assert 20 < len(kept) < 195
    extended(document, kept)


def unreachable_merge(document: dict[str, Any]) -> tuple[str, str]:
    """Return two tokens whose text is a word that is no token, and is tokenized at another place."""
    old, vocabulary = library(document), document["model"]["vocab"]
    for word in sorted({*DOMAIN.split()}):
        ends = set(boundaries(old, word))
        if not word.isascii() or not word.isalpha() or word in vocabulary:
            continue
        for cut in range(1, len(word)):
            if cut not in ends and word[:cut] in vocabulary and word[cut:] in vocabulary:
                return word[:cut], word[cut:]
    raise AssertionError


def test_a_token_that_only_ignoring_merges_reaches_is_refused() -> None:
    document = document_of(SMALL, ignore_merges=True)
    left, right = unreachable_merge(document)
    with pytest.raises(OperationError, match=f"no text produces 1 new token: '{left}{right}'"):
        extended(document, [(left, right)])
    old = library(document)
    merges = learn(old, DOMAIN, 100)
    after = library(extended(document, merges))
    assert count_new_boundaries(old, after) == 0
    assert all(after.model.tokenize(left + right)[0].value == left + right for left, right in merges)


def test_several_merges_of_one_token() -> None:
    document = document_of(SMALL)
    old = library(document)
    vocabulary = document["model"]["vocab"]
    made = learn(old, DOMAIN, 100)
    new = {left + right: (left, right) for left, right in made}
    known = {*vocabulary, *new}
    more = [
        (token[:cut], token[cut:])
        for token, merge in new.items()
        for cut in range(1, len(token))
        if {token[:cut], token[cut:]} <= known and (token[:cut], token[cut:]) != merge
    ]
    assert len(more) > 20
    after = extended(document, [*made, *more])
    assert len(after["model"]["vocab"]) == len(vocabulary) + len(new)
    assert count_new_boundaries(old, library(after)) == 0


@pytest.mark.parametrize("is_text", [True, False])
def test_merges_keep_their_notation(is_text: bool) -> None:
    held = merges_of(document_of(SMALL)["model"])
    document = document_of(SMALL, merges=[" ".join(merge) if is_text else list(merge) for merge in held])
    old = library(document)
    made = learn(old, DOMAIN, 20)
    after = extended(document, made)
    assert after["model"]["merges"][: len(held)] == document["model"]["merges"]
    assert after["model"]["merges"][len(held)] == (" ".join(made[0]) if is_text else list(made[0]))
    assert count_new_boundaries(old, library(after)) == 0


@pytest.mark.parametrize("notation", [str, list])
def test_a_piece_with_a_space(notation: type) -> None:
    vocabulary = {letter: number for number, letter in enumerate("ab ")} | {"ab": 3}
    merge: Any = "a b" if notation is str else ["a", "b"]
    document = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocabulary, "merges": [merge]}}
    after = extended(document, [("ab", " "), ("ab ", "ab")])
    assert after["model"]["merges"] == [["a", "b"], ["ab", " "], ["ab ", "ab"]]
    assert library(after).encode("ab abb ab").tokens == ["ab ab", "b", " ", "ab"]
    state = state_of(document, **{"merges.txt": "#version: 0.2\na b\n"})
    with pytest.raises(OperationError, match="it cannot hold ' ', which has a space"):
        ExtendVocab.model_validate({"merges": [("ab", " "), ("ab ", "ab")]}).apply(state, Context("0000"))


def test_only_what_the_normalizer_leaves_can_be_a_token() -> None:
    document = {**document_of(SMALL), "normalizer": {"type": "Lowercase"}}
    with pytest.raises(OperationError, match="no text produces 1 new token: 'GetX'"):
        extended(document, [("Get", "X")])
    extended(document, [("get", "x")])


def test_what_is_learned_follows_the_normalizer_and_no_dropout(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(DOMAIN.replace("tokenizer", "Tokenizer"), "utf-8")
    found = []
    for dropout in (None, 0.5):
        folder = tmp_path / str(dropout)
        shutil.copytree(real(SMALL), folder)
        document = {**document_of(SMALL, dropout=dropout), "normalizer": {"type": "Lowercase"}}
        (folder / "tokenizer.json").write_text(json.dumps(document), "utf-8")
        model = shared_model(folder / "w", SMALL, source=folder)
        told = Workspace(model.root).run("learn", "extend", str(corpus), "--tokens", "60", "-m", "Learned")
        assert told.returncode == 0, told.stderr
        upgrade(model.workspace, model.entry)
        made = model.library().get_vocab().keys() - library(document).get_vocab().keys()
        assert len(made) == 60
        assert not [token for token in made if any("A" <= letter <= "Z" for letter in token)]
        found.append((model.root / "migrations" / "0001_learned.merges").read_text("utf-8"))
    assert found[0] == found[1]


def test_transformers_and_tokenizers_agree_before_and_after(tmp_path: Path) -> None:
    import transformers

    # transformers' own class for Llama puts no `▁` before a text that begins with a space.
    lines = [line.strip(" ▁") for line in LINES[::20]]
    for name in [SMALL, *available("phi-2", "phi-3-mini", "minimind")]:
        model = shared_model(tmp_path / name, name)
        old = model.library()
        merges = learn(old, DOMAIN[:40_000], 30)
        alone = tmp_path / f"{name}-alone"
        alone.mkdir()
        differ = []
        for operations in (None, f"- extend_vocab: {{merges: {json.dumps(merges, ensure_ascii=False)}}}"):
            if operations:
                model.migrate(operations)
            for file in model.directory.glob("tokenizer*.json"):
                shutil.copy(file, alone)
            loaded, here = transformers.AutoTokenizer.from_pretrained(alone, local_files_only=True), model.library()
            differ.append({line for line in lines if loaded(line)["input_ids"] != here.encode(line).ids})
        assert len(differ[0]) < 5
        assert differ[1] <= differ[0]
        new = here.get_vocab().keys() - old.get_vocab().keys()
        assert new == {left + right for left, right in merges} - old.get_vocab().keys()
