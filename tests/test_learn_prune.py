"""Tokens that a corpus does not need are removed; text that is made of the others stays as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from learning import CODE, PROSE, held_out, learn, tokenize, write_code
from random_bpe import random_bpes
from real_tokenizers import CHATML_TEMPLATE, available, real
from shared_models import SharedModel, shared_model
from workspaces import Workspace

from tokmigrate.commands import token_selection
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.model.documents.declared import state_without_weights
from tokmigrate.model.tokenizer.tokenizer_json import merges_of
from tokmigrate.model.worker.corpora import stream_shares
from tokmigrate.model.worker.worker import Question
from tokmigrate.operations.token_choice import Wanted, choose_tokens
from tokmigrate.operations.token_closure import MergeTrees
from tokmigrate.state.rows import TokenEventType
from tokmigrate.vocabulary.ids import is_tombstone

BPE = ["phi-2-small", "mistral-chat-small"]
OTHER = ["oromo-t5", "all-minilm-l6-v2"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_code(tmp_path)


def unchanged_parts(model: SharedModel) -> dict[str, Any]:
    """Return what tokenizer.json says beside tokens, and of a Unigram the lowest score."""
    document = model.json("tokenizer.json")
    for part in ("vocab", "merges", "unk_id"):
        document["model"].pop(part, None)
    del document["added_tokens"], document["post_processor"]
    return {**document, "lowest": min(map(float, read_scores(model).values()), default=None)}


def read_scores(model: SharedModel) -> dict[str, str]:
    """Return the scores of a Unigram as the file writes them."""
    text = (model.directory / "tokenizer.json").read_text("utf-8")
    vocabulary = json.loads(text, parse_float=str, parse_int=str)["model"]["vocab"]
    return dict(vocabulary) if isinstance(vocabulary, list) else {}


def count_unknown(lines: list[list[str]], model: SharedModel) -> int:
    """Return how many unknown tokens there are."""
    document = model.json("tokenizer.json")["model"]
    unknown = document.get("unk_token") or (document["vocab"][document["unk_id"]][0] if "unk_id" in document else None)
    return sum(tokens.count(unknown) for tokens in lines)


def read_reasons(told: dict[str, Any]) -> dict[str, str]:
    """Return why each token stays that does."""
    lines = Path(told["reasons_file"]).read_text("utf-8").splitlines()[1:]
    return {json.loads(line.split("\t")[1]): line.split("\t")[3] for line in lines}


@pytest.mark.parametrize("name", [*BPE, *OTHER])
def test_text_of_kept_tokens_stays_as_it_is(tmp_path: Path, corpus: Path, name: str) -> None:
    model = shared_model(tmp_path / "w", name)
    before, old, rows = model.bytes(), model.library(), model.rows()
    parts, scores = unchanged_parts(model), read_scores(model)
    told = learn(model, "prune", corpus, "--tokens", "3000", "--multiple-of", "64")
    upgrade(model.workspace, model.entry)
    new = model.library()
    ids = new.get_vocab(with_added_tokens=True)
    assert len(ids) == sum(told["kept"].values()) == old.get_vocab_size() - told["removed"] == 3_000
    assert {len(rows) for rows in model.rows().values()} == {3_008}
    lines = [*CODE.splitlines(), *PROSE.splitlines()]
    was, now = tokenize(old, lines), tokenize(new, lines)
    same = [number for number, tokens in enumerate(was) if ids.keys() >= set(tokens)]
    assert len(same) > len(lines) / 5
    assert [was[number] for number in same] == [now[number] for number in same]
    assert told["held_out"]["tokens_before"] == held_out(old)
    assert told["held_out"]["tokens_after"] == held_out(new)
    assert told["held_out"]["tokenized_differently"] == told["held_out"]["with_removed_tokens"]
    assert told["saved"] == {
        "rows_before": len(rows["lm_head.weight"]),
        "rows_after": 3_008,
        "bytes": sum(each.nbytes for each in rows.values()) - 2 * 3_008 * 16,
        "parameters": sum(each.size for each in rows.values()) - 2 * 3_008 * 4,
    }
    assert unchanged_parts(model) == parts
    assert read_scores(model).items() <= scores.items()
    # No letter of the corpus becomes unknown.
    learned = [number for number in range(len(CODE.splitlines())) if (number + 1) % 10]
    assert len({count_unknown([side[number] for number in learned], model) for side in (was, now)}) == 1
    reasons = Path(told["reasons_file"]).read_text("utf-8").splitlines()[1:]
    assert [json.loads(line.split("\t")[1]) for line in reasons] == sorted(ids, key=ids.__getitem__)
    model.down()
    assert model.bytes() == before


def test_unused_tokens_and_those_to_keep(tmp_path: Path, corpus: Path) -> None:
    model = shared_model(tmp_path / "w", BPE[0])
    produced = {token for tokens in tokenize(model.library(), CODE.splitlines()) for token in tokens}
    vocabulary = model.json("tokenizer.json")["model"]["vocab"]
    rare = sorted(token for token in vocabulary if token not in produced and token.isalpha() and len(token) > 9)[:3]
    (tmp_path / "keep.txt").write_text("".join(f"{token}\n" for token in rare), "utf-8")
    told = learn(model, "prune", corpus, "--unused", "--keep", tmp_path / "keep.txt")
    assert told["kept"]["keep"] == 3
    upgrade(model.workspace, model.entry)
    ids = model.library().get_vocab()
    assert set(rare) <= ids.keys()
    counted = [line for number, line in enumerate(CODE.split("\n"), 1) if number % 10]
    assert {token for tokens in tokenize(model.library(), counted) for token in tokens} <= ids.keys()
    assert told["held_out"]["tokens_after"] >= told["held_out"]["tokens_before"]


@st.composite
def counted(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, int]]:
    """Return a BPE with random merges, and how often each of its tokens occurs."""
    document = draw(random_bpes())
    return document, {token: draw(st.integers(0, 9)) for token in document["model"]["vocab"]}


@given(counted(), st.integers(1, 20), st.sets(st.sampled_from("abc")))
def test_what_stays_has_its_parts(made: tuple[dict[str, Any], dict[str, int]], most: int, stay: set[str]) -> None:
    document, counts = made
    state = state_without_weights({"tokenizer.json": document}, 0)
    kept = choose_tokens(state, counts, Wanted(tokens=most), dict.fromkeys(stay, "keep"))
    vocabulary: dict[str, int] = document["model"]["vocab"]
    assert stay <= kept.keys() <= vocabulary.keys()
    assert len(kept) >= min(most, len(vocabulary))
    if len(kept) > most:
        letters = {letter for token, count in counts.items() if count for letter in token}
        assert kept.keys() == MergeTrees(state.tokenizer).find_parts(stay | letters)
    merges = [pair for pair in document["model"]["merges"] if {*pair, "".join(pair)} <= kept.keys()]
    ids = {token: number for number, token in enumerate(sorted(kept))}
    left = {**document, "model": {**document["model"], "vocab": ids, "merges": merges}}
    old, new = (tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", **each})) for each in (document, left))
    for token in kept:
        if old.encode(token).tokens == [token]:
            assert new.encode(token).tokens == [token]


def test_weights_change_what_stays(tmp_path: Path) -> None:
    (tmp_path / "code.jsonl").write_text(json.dumps({"body": CODE}) + "\n", "utf-8")
    (tmp_path / "prose.txt").write_text(PROSE.replace("\n", " "), "utf-8")
    corpus = [tmp_path / "code.jsonl", tmp_path / "prose.txt", "--field", "body"]
    tokens = {}
    for weighted in ("code.jsonl", "prose.txt"):
        model = shared_model(tmp_path / weighted[:4], BPE[0])
        told = learn(model, "prune", *corpus, "--tokens", "1500", "--weight", f"{tmp_path / weighted}=1000")
        lines = Path(told["reasons_file"]).read_text("utf-8").splitlines()[1:]
        tokens[weighted] = {json.loads(line.split("\t")[1]) for line in lines}
    library = model.library()
    for weighted, other, text in (("code.jsonl", "prose.txt", CODE), ("prose.txt", "code.jsonl", PROSE)):
        produced = {token for tokens in tokenize(library, [text]) for token in tokens}
        assert len(produced & tokens[weighted]) > len(produced & tokens[other])


def test_tokens_to_keep_and_to_drop(tmp_path: Path, corpus: Path) -> None:
    model = shared_model(tmp_path / "w", "phi-2", {"chat_template.jinja": CHATML_TEMPLATE})
    (tmp_path / "drop.txt").write_text("Ġreturn\nret\nĠself\n", "utf-8")
    (tmp_path / "text.txt").write_text("Liverpool\n", "utf-8")
    words = ["--drop", tmp_path / "drop.txt", "--drop", "preset:digits", "--drop", "re: (from|import)$"]
    words += ["--keep", "re:^1[0-9]$", "--keep", "script:greek", "--keep-text", tmp_path / "text.txt"]
    told = learn(model, "prune", corpus, "--unused", *words)
    reasons = read_reasons(told)
    assert reasons.keys().isdisjoint({"Ġreturn", "Ġself", "Ġfrom", "Ġimport", "2019"})
    # A token that stays is merged from it; or it is a letter, or one to keep, or of the text.
    assert [reasons[token] for token in ("ret", "7", "14", "Î±", "Liverpool", "ol")] == [
        "dependency",
        "structural",
        "keep",
        "keep",
        "keep",
        "corpus",
    ]
    vocabulary = model.json("tokenizer.json")["model"]["vocab"]
    dropped = {token for token in vocabulary if token.strip("Ġ").isdecimal()} | {"Ġreturn", "ret", "Ġself"}
    assert sum(told["not_dropped"].values()) == len(dropped & reasons.keys())
    # The roles of messages stand in no template.
    roles = [token for tokens in tokenize(model.library(), ["assistant", "user", "system"]) for token in tokens]
    assert {reasons[token] for token in roles} == {"template"}


def test_only_what_is_to_be_dropped_goes(tmp_path: Path, corpus: Path) -> None:
    model = shared_model(tmp_path / "w", "gpt2-chatml")
    old = model.library().get_vocab()
    told = learn(model, "prune", corpus, "--drop", "re:(?i)^ ?government$", "--ids", "tombstone")
    assert told["removed"] == len([token for token in old if token.lower().strip("ġ") == "government"]) > 0
    assert told["saved"]["bytes"] == told["saved"]["parameters"] == 0
    upgrade(model.workspace, model.entry)
    new = model.library().get_vocab()
    assert {token: new[token] for token in old if token in new}.items() <= old.items()
    assert len([token for token in old if token not in new]) == told["removed"]


def test_no_more_tokens_are_replaced_than_the_corpus_has_merges(tmp_path: Path) -> None:
    model = shared_model(tmp_path / "w", "gpt2-chatml")
    (tmp_path / "few.txt").write_text("one two three, one two three; onetwothree\n" * 5, "utf-8")
    words = ("learn", "prune", str(tmp_path / "few.txt"), "--replace", "4000", "-m", "Learned")
    told = Workspace(model.root).run(*words)
    assert told.returncode == 0, told.stderr
    assert "fewer than 4,000: the corpus has no more merges" in told.stdout
    assert "nothing was held out" in told.stdout
    rows, old = model.rows(), model.library()
    upgrade(model.workspace, model.entry)
    assert {key: held.shape for key, held in model.rows().items()} == {key: held.shape for key, held in rows.items()}
    assert len(model.library().encode("onetwothree").ids) < len(old.encode("onetwothree").ids)


def test_as_many_tokens_are_replaced_as_are_wanted_whatever_is_to_be_dropped(tmp_path: Path) -> None:
    model = shared_model(tmp_path / "w", "gpt2-chatml")
    (tmp_path / "few.txt").write_text("one two three, one two three; onetwothree\n" * 5, "utf-8")
    drop = ("--drop", "re:^ [Gg]overn")
    told = learn(model, "prune", tmp_path / "few.txt", "--replace", "1", *drop)
    (gone,) = json.loads(Path(told["tokens_file"]).read_text("utf-8"))
    assert gone.lower().startswith("ġgovern")
    # The corpus has fewer merges than there are tokens to drop.
    assert 0 < learn(model, "prune", tmp_path / "few.txt", "--replace", "300", "--drop", "re:^ [Gg]")["replaced"] < 100


@pytest.mark.parametrize("name", available("mistral-chat", "phi-3-mini"))
def test_the_count_of_a_token_goes_to_what_it_becomes(name: str) -> None:
    document = json.loads((real(name) / "tokenizer.json").read_text("utf-8"))
    state = state_without_weights({"tokenizer.json": document}, 0)
    trees, merges = MergeTrees(state.tokenizer), merges_of(document["model"])
    halves = {token: parts for token in state.tokenizer.vocabulary if (parts := trees.halves(token))}
    used = {part for parts in halves.values() for part in parts}
    first: dict[str, tuple[str, str]] = {}
    for merge in merges:
        first.setdefault("".join(merge), merge)
    gone = {token for token in halves if token not in used and first[token] != halves[token]}
    assert len(gone) > 20
    kept = [list(merge) for merge in merges if "".join(merge) not in gone]
    model = {**document["model"], "merges": kept}
    library = tokenizers.Tokenizer.from_str(json.dumps({**document, "model": model, "added_tokens": []}))
    for token in gone:
        assert tuple(each.value for each in library.model.tokenize(token)) == halves[token]


@pytest.mark.parametrize("name", ["phi-2", "mistral-chat"])
def test_new_tokens_take_the_rows_of_others(tmp_path: Path, corpus: Path, name: str) -> None:
    model = shared_model(tmp_path / "w", name)
    if name == "mistral-chat":
        shutil.copy(real("mistral-spm") / "tokenizer.model", model.directory)
    before, old, rows = model.bytes(), model.library(), model.rows()
    told = learn(model, "prune", corpus, "--replace", "200", "--drop", "re:^ Liverpool$")
    gone = json.loads(Path(told["tokens_file"]).read_text("utf-8"))
    assert told["replaced"] == len(gone) == 200
    assert ("ĠLiverpool" in gone) == (name == "phi-2")
    upgrade(model.workspace, model.entry)
    new, ids = model.library(), old.get_vocab(with_added_tokens=True)
    made = new.get_vocab(with_added_tokens=True)
    assert ids.keys() - made.keys() == set(gone)
    assert {made[token] for token in made.keys() - ids.keys()} == {ids[token] for token in gone}
    assert {token: made[token] for token in ids if token in made}.items() <= ids.items()
    kept = [number for token, number in ids.items() if token in made]
    for key, held in model.rows().items():
        assert held.shape == rows[key].shape == (told["rows"], 4)
        np.testing.assert_array_equal(held[kept], rows[key][kept])
    assert told["held_out"]["tokens_after"] == held_out(new) < 0.97 * held_out(old)
    events = [(event.event, event.token) for event in model.events()]
    assert {token for event, token in events if event == TokenEventType.REMOVED} == set(gone)
    assert {token for event, token in events if event == TokenEventType.ADDED} == made.keys() - ids.keys()
    assert len(events) == 400
    if name == "mistral-chat":
        data = (model.directory / "tokenizer.model").read_bytes()
        judge = sentencepiece.SentencePieceProcessor(model_proto=data)
        # SentencePiece sees no added token.
        added = [token.content for token in old.get_added_tokens_decoder().values()]
        for line in [line for line in CODE.splitlines() if not any(token in line for token in added)]:
            assert new.encode(line, add_special_tokens=False).ids == judge.encode(line), line
    model.down()
    assert model.bytes() == before


def test_another_choice_is_made_without_counting_again(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shared_model(tmp_path / "w", BPE[-1])
    counted: list[str] = []

    def count(question: Question, *request: Any) -> list[dict[str, Any]]:
        counted.append(question)
        return stream_shares(question, *request)

    monkeypatch.setattr(token_selection, "stream_shares", count)
    monkeypatch.setattr(token_selection, "_RACY_NS", 0)

    def choose(tokens: int) -> tuple[dict[str, Any], list[str]]:
        told = learn(model, "prune", corpus, "--tokens", str(tokens))
        listed = [Path(told[file]).read_text("utf-8") for file in ("keep_file", "reasons_file")]
        for file in (model.root / "migrations").glob("*learned*"):
            file.unlink()
        return told, listed

    first = choose(4_000)
    assert choose(3_000) != first
    assert choose(4_000) == first
    assert counted == ["count_tokens"]
    (model.root / ".tokmigrate" / "counts.json").write_bytes(b'{"digest": 1')
    assert choose(4_000) == first
    assert len(counted) == 2
    corpus.write_text(f"{CODE}\nanother line", "utf-8")
    choose(4_000)
    assert len(counted) == 3
    # Another version of a library may tokenize differently.
    monkeypatch.setattr(token_selection, "library_versions", lambda: {"tokenizers": "0"})
    choose(4_000)
    assert len(counted) == 4


def test_new_tokens_take_the_rows_that_an_earlier_removal_left(tmp_path: Path, corpus: Path) -> None:
    model = shared_model(tmp_path / "w", "phi-2")
    before, ids = model.bytes(), model.library().get_vocab()
    earlier = ["\u0120Liverpool", "\u0120Democrats", "\u0120Senate"]
    model.migrate(f"- remove_tokens: {{tokens: {json.dumps(earlier)}, ids: tombstone, acknowledge: breaking}}")
    middle, rows = model.bytes(), model.rows()
    told = learn(model, "prune", corpus, "--replace", "40")
    gone = json.loads(Path(told["tokens_file"]).read_text("utf-8"))
    assert told["replaced"] == len(gone) == 40
    assert ids.keys() >= {*gone}
    upgrade(model.workspace, model.entry)
    made = model.library().get_vocab()
    free = sorted(ids[token] for token in (*earlier, *gone))
    new = sorted(number for token, number in made.items() if token not in ids and not is_tombstone(token))
    assert new == free[:40]
    assert sorted(number for token, number in made.items() if is_tombstone(token)) == free[40:]
    kept = sorted(set(range(told["rows"])) - {*new})
    for key, held in model.rows().items():
        assert held.shape == rows[key].shape
        np.testing.assert_array_equal(held[kept], rows[key][kept])
    downgrade(model.workspace, model.entry, "-1")
    assert model.bytes() == middle
    model.down()
    assert model.bytes() == before
