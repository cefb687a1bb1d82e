"""Merges appended to a BPE: every new boundary is an old one, and each new token has a row made of its parts."""

from __future__ import annotations

import functools
import json
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from making import llama, workspace
from random_bpe import random_bpes
from real_tokenizers import available, real
from shared_models import SharedModel, shared_model
from workspaces import Workspace

from tokmigrate.commands.stamp import stamp_model
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import OperationError, OutOfStepError
from tokmigrate.model.documents.declared import state_without_weights
from tokmigrate.model.formats.protobuf import number_field
from tokmigrate.model.formats.sentencepiece import Algorithm, Kind, Piece, SentencePieceModel
from tokmigrate.model.from_sentencepiece import tokenizer_document
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer, merges_of
from tokmigrate.operations.extend_vocab import ExtendVocab, reachable_merges
from tokmigrate.operations.operation import Context

REAL = ["phi-2-small", "mistral-chat-small", "deepseek"]
HERE = Path(__file__).parent
DOMAIN = "\n".join(path.read_text("utf-8") for path in sorted(HERE.glob("test_rea*.py")))
OLD = (HERE.parent / "README.md").read_text("utf-8") + "Überraschung im Straßenverkehr, 漢字かな交じり文, 🦄🦄 naïve\n"


def learn(library: tokenizers.Tokenizer, text: str, most: int) -> list[tuple[str, str]]:
    """Return the most frequent merges of neighbouring tokens, one after the other, without those over a border."""
    words = Counter(
        tuple(library.id_to_token(number) for number in each.ids)
        for each in library.encode_batch(
            [part for line in text.splitlines() for part in cut(library, line)], add_special_tokens=False
        )
    )
    merges: list[tuple[str, str]] = []
    while len(merges) < most:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for left, right in pairwise(word):
                if not (left.startswith("<0x") or right.startswith(("<0x", "▁"))):
                    pairs[left, right] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({join(word, best): count for word, count in words.items()})
    return merges


def cut(library: tokenizers.Tokenizer, line: str) -> list[str]:
    if library.pre_tokenizer is None:
        return [f" {word}" for word in line.split(" ") if word]
    return [line[start:stop] for _, (start, stop) in library.pre_tokenizer.pre_tokenize_str(line)]


def join(word: tuple[str, ...], merge: tuple[str, str]) -> tuple[str, ...]:
    made: list[str] = []
    place = 0
    while place < len(word):
        step = 2 if word[place : place + 2] == merge else 1
        made.append("".join(word[place : place + step]))
        place += step
    return tuple(made)


def boundaries(library: tokenizers.Tokenizer, text: str) -> list[int]:
    """Return where tokens end, in bytes or letters of the vocabulary's own spelling."""
    ends, reached = [], 0
    for number in library.encode(text, add_special_tokens=False).ids:
        reached += len(library.id_to_token(number))
        ends.append(reached)
    return ends


def texts(count: int) -> list[str]:
    letters = "abcdefgh  \n\t.,:()_=0123'\"éß漢字🦄ÄĠ▁<|>"
    source = random.Random(11)  # noqa: S311 - the same texts each time
    return ["".join(source.choices(letters, k=source.randint(1, 40))) for _ in range(count)]


def extend(model: SharedModel, merges: list[tuple[str, str]], init: str = "{strategy: mean}") -> None:
    (model.root / "migrations" / "new.json").write_text(json.dumps(merges), "utf-8")
    model.migrate(f"- extend_vocab: {{merges_file: new.json, init: {init}}}")


@pytest.mark.parametrize("name", REAL)
def test_every_boundary_is_an_old_one(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path, name)
    before, old = model.bytes(), model.library()
    ids = old.get_vocab(with_added_tokens=True)
    merges = learn(old, DOMAIN, 120)
    extend(model, merges)
    new = model.library()
    after = new.get_vocab(with_added_tokens=True)
    assert {token: after[token] for token in ids} == ids
    made = [left + right for left, right in merges]
    assert sorted(after.keys() - ids.keys()) == sorted(set(made) - ids.keys())
    assert sorted(after.values())[-len(after) + len(ids) :] == list(
        range(max(ids.values()) + 1, max(after.values()) + 1)
    )
    lines = [*DOMAIN.splitlines(), *OLD.splitlines(), *texts(2_000)]
    for line in lines:
        assert set(boundaries(new, line)) <= set(boundaries(old, line)), line
    saved = [sum(len(each.encode(line).ids) for line in DOMAIN.splitlines()) for each in (old, new)]
    assert saved[1] < 0.95 * saved[0]
    model.down()
    assert model.bytes() == before


@pytest.mark.parametrize("name", REAL[:2])
def test_a_new_row_is_made_of_the_old_tokens_that_it_joins(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path, name)
    old, rows = model.library(), model.rows()
    merges = learn(old, DOMAIN, 40)
    sources = {token: [number] for token, number in old.get_vocab().items()}
    for left, right in merges:
        sources.setdefault(left + right, [*sources[left], *sources[right]])
    extend(model, merges, "{strategy: subtokens}")
    after, new = model.rows(), model.library().get_vocab()
    for token in new.keys() - old.get_vocab().keys():
        for key, held in rows.items():
            wanted = held[sources[token]].astype(np.float64).mean(axis=0)
            np.testing.assert_allclose(after[key][new[token]], wanted, rtol=1e-6, atol=1e-6)


def test_slow_files_follow(tmp_path: Path) -> None:
    name = next(iter(available("roberta-base", "phi-2")))
    files = {
        file.name: file.read_text("utf-8") for file in real(name).glob("*") if file.name in ("vocab.json", "merges.txt")
    }
    model = shared_model(tmp_path, name, files)
    library = model.library()
    merges = learn(library, DOMAIN, 20)
    extend(model, merges)
    if files:
        vocabulary = json.loads((model.directory / "vocab.json").read_text("utf-8"))
        assert {left + right for left, right in merges} <= vocabulary.keys()
        lines = (model.directory / "merges.txt").read_text("utf-8").splitlines()
        assert lines[-len(merges) :] == [f"{left} {right}" for left, right in merges]


def pieces_of(name: str) -> bytes:
    """Return the SentencePiece model that a tokenizer.json was made of: the published one, or one with its ranks."""
    published = (real("mistral-spm") / "tokenizer.model").read_bytes()
    if name == "mistral-chat":
        return published
    spec = SentencePieceModel.read(published, name)
    vocabulary = json.loads((real(name) / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    # Llama's letters and bytes have the ids of Mistral's, and runs of spaces the same score.
    scores = {text: -1e9 if not text.strip("▁") else 259.0 - number for text, number in vocabulary.items()}
    new = [Piece.new(text, Kind.NORMAL, score) for text, score in scores.items()]
    return spec.with_pieces([*spec.pieces[:259], *new[259:]]).data


@pytest.mark.parametrize("name", available("mistral-chat", "phi-3-mini"))
def test_a_sentencepiece_model_tokenizes_text_alike(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path / "w", name)
    (model.directory / "tokenizer.model").write_bytes(pieces_of(name))
    before, old = model.bytes(), model.library()
    (tmp_path / "corpus.txt").write_text(DOMAIN, "utf-8")
    arguments = ("extend", str(tmp_path / "corpus.txt"), "--tokens", "256", "-m", "Learned")
    told = Workspace(model.root).run("learn", *arguments)
    assert told.returncode == 0, told.stderr
    upgrade(model.workspace, model.entry)
    new = model.library()
    made = new.get_vocab().keys() - old.get_vocab().keys()
    assert len(made) == 256
    was, now = (
        sentencepiece.SentencePieceProcessor(model_proto=data)
        for data in (before["tokenizer.model"], (model.directory / "tokenizer.model").read_bytes())
    )
    assert len(now) == new.get_vocab_size(with_added_tokens=True)
    # SentencePiece sees no added token.
    known = [token.content for token in old.get_added_tokens_decoder().values()]
    source = random.Random(5)  # noqa: S311 - the same texts each time
    some = [*sorted(made), *source.sample(sorted(old.get_vocab()), 500)]
    mixed = ["".join(source.choices(some, k=source.randint(1, 6))).replace("▁", " ") for _ in range(500)]
    lines = [*DOMAIN.splitlines(), *OLD.splitlines(), *texts(500), *mixed]
    lines = [line for line in lines if not any(token in line for token in known)]
    for line in lines:
        for library, judge in ((old, was), (new, now)):
            assert library.encode(line, add_special_tokens=False).ids == judge.encode(line), line
    assert sum(map(len, now.encode(lines))) < 0.95 * sum(map(len, was.encode(lines)))
    model.down()
    assert model.bytes() == before


def test_pieces_take_the_place_of_removed_ones(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "mistral-chat")
    (model.directory / "tokenizer.model").write_bytes(pieces_of("mistral-chat"))
    before, old = model.bytes(), model.library()
    parts = {part for merge in merges_of(model.json("tokenizer.json")["model"]) for part in merge}
    removed = sorted(token for token in old.get_vocab() if len(token) > 13 and token.isalpha() and token not in parts)[
        :3
    ]
    assert len(removed) == 3
    model.migrate(f"- remove_tokens: {{tokens: {json.dumps(removed)}, ids: tombstone, acknowledge: breaking}}")
    merges = learn(model.library(), DOMAIN, 6)
    model.migrate(f"- extend_vocab: {{merges: {json.dumps(merges)}, reuse: placeholders}}")
    new = model.library()
    made = [new.token_to_id("".join(merge)) for merge in merges]
    assert made[:3] == sorted(old.token_to_id(token) for token in removed)
    judge = sentencepiece.SentencePieceProcessor(model_file=str(model.directory / "tokenizer.model"))
    assert [judge.id_to_piece(number) for number in made] == ["".join(merge) for merge in merges]
    for line in OLD.splitlines():
        assert "<|" in line or new.encode(line, add_special_tokens=False).ids == judge.encode(line)
    model.down()
    assert model.bytes() == before


def other_scores(spec: SentencePieceModel) -> bytes:
    scores = [Piece.new(piece.text, Kind.NORMAL, float(rank)) for rank, piece in enumerate(spec.pieces[259:])]
    return spec.with_pieces([*spec.pieces[:259], *scores]).data


CANNOT_FOLLOW = {
    "a Unigram": (lambda spec: spec.with_trainer(number_field(3, Algorithm.UNIGRAM)).data, "its pieces are not merged"),
    "other ids": (lambda spec: spec.with_pieces([*reversed(spec.pieces)]).data, "other ids than in tokenizer.json"),
    "other scores": (other_scores, "tokenize text differently already"),
    "tiktoken": (lambda _: b"YQ== 0\nYg== 1\n", "it ranks tokens by their ids"),
}


@pytest.mark.parametrize(("written", "message"), CANNOT_FOLLOW.values(), ids=CANNOT_FOLLOW)
def test_a_file_that_cannot_follow_is_refused(written: Callable[[SentencePieceModel], bytes], message: str) -> None:
    document = json.loads((real("mistral-chat") / "tokenizer.json").read_text("utf-8"))
    data = written(SentencePieceModel.read(pieces_of("mistral-chat"), ""))
    state = state_without_weights({"tokenizer.json": document, "tokenizer.model": data}, 0)
    with pytest.raises(OutOfStepError, match=message):
        ExtendVocab.model_validate({"merges": [("_", "path")]}).apply(state, Context("0000"))


def test_nothing_is_learned_where_a_file_cannot_follow(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    (model.directory / "tokenizer.model").write_bytes(b"YQ== 0\nYg== 1\n")
    told = Workspace(model.root).run("learn", "extend", __file__, "--tokens", "5", "-m", "Learned")
    assert told.returncode == 1
    assert "it ranks tokens by their ids" in told.stderr


@functools.cache
def bytes_alone() -> SentencePieceModel:
    """Return a SentencePiece model without a piece of letters."""
    spec = SentencePieceModel.read((real("mistral-spm") / "tokenizer.model").read_bytes(), "tokenizer.model")
    return spec.with_pieces(spec.pieces[:259])


@st.composite
def random_pieces(draw: st.DrawFn) -> tuple[SentencePieceModel, list[tuple[str, str]]]:
    """Return a SentencePiece model of random pieces on a, b and c, their scores in any order, and merges to append."""
    document = draw(random_bpes())["model"]
    merges = [(left, right) for left, right in document["merges"]]
    old = list(document["vocab"])[: draw(st.integers(3, len(document["vocab"])))]
    ranked = [*draw(st.permutations(old[3:])), *"▁abc"]
    new = [Piece.new(text, Kind.NORMAL, -1.0 - rank) for rank, text in enumerate(ranked)]
    left_out = [merge for merge in merges if "".join(merge) not in ranked]
    return bytes_alone().with_pieces([*bytes_alone().pieces, *new]), left_out


# Each asks a worker twice which tokens text produces.
@settings(max_examples=15, deadline=None)
@given(random_pieces(), st.lists(st.text("abc", min_size=1, max_size=20), max_size=20))
def test_random_pieces_tokenize_text_alike(
    made: tuple[SentencePieceModel, list[tuple[str, str]]], some: list[str]
) -> None:
    spec, merges = made
    assume(merges)
    document = tokenizer_document(spec, {})
    state = state_without_weights({"tokenizer.json": document, "tokenizer.model": spec.data}, 0)
    merges = list(reachable_merges(state, merges))
    assume(merges)
    after = ExtendVocab.model_validate({"merges": merges}).apply(state, Context("0000"))
    judges, libraries = (
        [read(each.documents[name]) for each in (state, after)]
        for name, read in (
            ("tokenizer.model", lambda data: sentencepiece.SentencePieceProcessor(model_proto=data)),
            ("tokenizer.json", lambda held: tokenizers.Tokenizer.from_str(json.dumps(held))),
        )
    )
    for text in some:
        for library, judge in zip(libraries, judges, strict=True):
            assert library.encode(text, add_special_tokens=False).ids == judge.encode(text)
        old_ends, new_ends = (boundaries(each, text) for each in libraries)
        assert set(new_ends) <= set(old_ends)


def test_added_tokens_keep_their_ids(tmp_path: Path) -> None:
    model = shared_model(tmp_path, REAL[0])
    model.migrate('- add_tokens: ["<|one|>", {content: "<|two|>", special: true}]')
    library = model.library()
    ids = library.get_vocab(with_added_tokens=True)
    extend(model, learn(library, DOMAIN, 5))
    after = model.library()
    assert {token: after.token_to_id(token) for token in ids} == ids
    text = "a<|one|> b<|two|>test_token_changes"
    assert {"<|one|>", "<|two|>"} <= set(after.encode(text).tokens)


FAULTS = {
    "unknown part": ([["Ġthe", "qqqqqq"]], "'qqqqqq' is not a token of the tokenizer's model"),
    "used before it is made": ([["theĠ", "x"], ["the", "Ġ"]], "'theĠ' is not a token"),
    "twice in the list": ([["z", "qz"], ["z", "qz"]], "not a token|already"),
    "over the border of words": ([["e", "Ġthe"]], "no text produces 1 new token: 'eĠthe'"),
}


@pytest.mark.parametrize(("merges", "message"), FAULTS.values(), ids=FAULTS)
def test_a_merge_that_cannot_be_is_refused(tmp_path: Path, merges: list[list[str]], message: str) -> None:
    model = shared_model(tmp_path, "phi-2")
    before = model.bytes()
    with pytest.raises(Exception, match=message):
        extend(model, [(left, right) for left, right in merges])
    assert model.bytes() == before


@pytest.mark.parametrize(
    ("merge", "message"),
    [(("<0xE2>", "<0x9F>"), "is a byte"), (("e", "▁the"), "goes over the border of a word"), (("▁t", "h"), "already")],
)
def test_pieces_of_sentencepiece_that_cannot_be_are_refused(
    tmp_path: Path, merge: tuple[str, str], message: str
) -> None:
    model = shared_model(tmp_path, "mistral-chat-small")
    with pytest.raises(OperationError, match=message):
        extend(model, [merge])


@pytest.mark.parametrize("name", available("bert-base-uncased", "oromo-t5"))
def test_only_a_bpe_has_merges(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path, name)
    with pytest.raises(OperationError, match="has no merges"):
        extend(model, [("a", "b")])


@pytest.mark.parametrize("name", ["phi-2-small", "mistral-chat"])
def test_it_is_stamped_and_detected(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path, name)
    if name == "mistral-chat":
        (model.directory / "tokenizer.model").write_bytes(pieces_of(name))
    merges = learn(model.library(), DOMAIN, 12)
    model.write("- extend_vocab: {merges: " + json.dumps([f"{left} {right}" for left, right in merges]) + "}")
    with pytest.raises(Exception, match="merges"):
        stamp_model(model.workspace, model.entry, "head")
    upgrade(model.workspace, model.entry)
    # Nothing tells how the rows were made but the files.
    upgraded, stamped = model.stamp_again()
    assert stamped.baseline_tokens == upgraded.baseline_tokens
    assert list(stamped.rows.recipes()) == list(upgraded.rows.recipes())


def test_spare_rows_are_used_first(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "phi-2")
    rows = {key: len(held) for key, held in model.rows().items()}
    extend(model, learn(model.library(), DOMAIN, 3))
    assert {key: len(held) for key, held in model.rows().items()} == rows


@st.composite
def merging(draw: st.DrawFn) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return a BPE with the first of random merges, and the others to append."""
    model = draw(random_bpes())["model"]
    merges = [(left, right) for left, right in model["merges"]]
    first = draw(st.integers(0, len(merges)))
    made = {"".join(pair) for pair in merges[:first]} | set("abc")
    old = {token: number for number, token in enumerate(token for token in model["vocab"] if token in made)}
    model |= {"vocab": old, "merges": model["merges"][:first], "ignore_merges": draw(st.booleans())}
    return {"model": model, "added_tokens": []}, merges[first:]


@given(merging(), st.lists(st.text("abc", min_size=1, max_size=14), max_size=30))
def test_appended_merges_only_join(made: tuple[dict[str, Any], list[tuple[str, str]]], some: list[str]) -> None:
    document, merges = made
    known = document["model"]["vocab"]
    new = [token for token in dict.fromkeys(left + right for left, right in merges) if token not in known]
    all_merges = [*merges_of(document["model"]), *merges]
    after = Tokenizer(document).with_merges(all_merges, {token: len(known) + place for place, token in enumerate(new)})
    libraries = [
        tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", **each})) for each in (document, after.document)
    ]
    for text in some:
        old_ends, new_ends = (boundaries(each, text) for each in libraries)
        assert set(new_ends) <= set(old_ends)


def test_a_plan_of_a_migration_written_in_python(tmp_path: Path) -> None:
    made = workspace(tmp_path, {"m": llama(tmp_path / "m")}, [])
    head = 'revision = "aaaa0001"\ndown_revision = None\nmessage = "m"\n\n\n'
    text = head + 'def upgrade(op):\n    op.extend_vocab(["o w"])\n'
    (tmp_path / "migrations" / "0001_m.py").write_text(text, "utf-8")
    ids = json.loads((tmp_path / "m" / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    assert {"o", "w"} <= ids.keys()
    upgrade(made.workspace, made.entry("m"))
    assert "ow" in json.loads((tmp_path / "m" / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
