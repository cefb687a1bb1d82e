"""What is learned from a corpus: migrations that append merges, or remove tokens that it does not need."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from in_process import Here
from random_bpe import random_bpes
from real_tokenizers import available
from shared_models import SharedModel, shared_model

from tokmigrate.commands.learn_prune import Wanted, choose_tokens
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.model.documents.declared import state_without_weights
from tokmigrate.operations.token_closure import MergeTrees
from tokmigrate.vocabulary.scripts import find_main_script

BPE = available("phi-2", "mistral-chat", "phi-3-mini", "minimind")
OTHER = available("oromo-t5", "bert-base-uncased")
HERE = Path(__file__).parent
CODE = "\n".join(path.read_text("utf-8") for path in sorted(HERE.glob("test_r*.py")))
PROSE = (HERE.parent / "README.md").read_text("utf-8")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(CODE, "utf-8")
    return path


def learn(model: SharedModel, *words: str | Path) -> dict[str, Any]:
    """Run `learn` in the model's workspace, and return what it says."""
    told = Here(model.root).run("learn", *map(str, words), "-m", "Learned", "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def tokenize(library: tokenizers.Tokenizer, lines: list[str]) -> list[list[str]]:
    return [
        [library.id_to_token(number) for number in each.ids]
        for each in library.encode_batch(lines, add_special_tokens=False)
    ]


def held_out(library: tokenizers.Tokenizer) -> int:
    return sum(map(len, tokenize(library, [line for line in CODE.split("\n")[9::10] if line])))


@pytest.mark.parametrize("name", BPE)
def test_learned_merges_save_what_they_say(tmp_path: Path, corpus: Path, name: str) -> None:
    model = shared_model(tmp_path / "w", name)
    before, old = model.bytes(), model.library()
    told = learn(model, "extend", corpus, "--tokens", "150")
    upgrade(model.workspace, model.entry)
    new = model.library()
    assert told["new_tokens"] == new.get_vocab_size() - old.get_vocab_size() == 150
    assert told["held_out"]["tokens_before"] == held_out(old)
    assert told["held_out"]["tokens_after"] == held_out(new) < 0.97 * held_out(old)
    assert held_out(old) - held_out(new) == told["held_out"]["saved_by_merges"][-1]["saved"]
    produced = {token for tokens in tokenize(new, CODE.splitlines()) for token in tokens}
    made = new.get_vocab().keys() - old.get_vocab().keys()
    assert len(made & produced) > 0.8 * len(made)
    model.down()
    assert model.bytes() == before


def test_the_same_merges_whatever_the_order_of_lines(tmp_path: Path) -> None:
    lines = [line for line in CODE.splitlines() if line][:3_000]
    # Which lines are held out depends on the order, so each stands ten times.
    texts = [lines, random.Random(3).sample(lines, len(lines))]  # noqa: S311 - the same order each time
    learned = []
    for number, some in enumerate(texts):
        model = shared_model(tmp_path / str(number), BPE[0])
        path = tmp_path / f"{number}.txt"
        path.write_text("".join(f"{line}\n" * 9 + "\n" for line in some), "utf-8")
        learned.append(Path(learn(model, "extend", path, "--tokens", "60")["merges_file"]).read_text("utf-8"))
    assert learned[0] == learned[1]


@pytest.mark.parametrize("name", [*BPE, *OTHER])
def test_text_of_kept_tokens_stays_as_it_is(tmp_path: Path, corpus: Path, name: str) -> None:
    model = shared_model(tmp_path / "w", name)
    before, old = model.bytes(), model.library()
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prune", "CORPUS"], "give one of --tokens"),
        (["prune", "CORPUS", "--tokens", "5", "--unused"], "give one of --tokens"),
        (["prune", "CORPUS", "--tokens", "999999"], "no token would be removed"),
        (["prune", "missing.txt", "--unused"], "missing.txt"),
        (["prune", "CORPUS", "--unused", "--keep", "NAMES"], "'no such token' is not a token of this tokenizer"),
        (["extend", "EMPTY", "--tokens", "5"], "no merge to learn"),
        (["prune", "CORPUS", "--unused", "--weight", "CORPUS=0"], "is no weight"),
        (["prune", "CORPUS", "--unused", "--weight", "news=2"], "it is not in the corpus"),
        (["extend", "CORPUS", "--tokens", "5", "--script", "Cyrilic"], "did you mean 'Cyrillic'"),
        (["extend", "BINARY", "--tokens", "5"], "is not UTF-8"),
    ],
)
def test_a_refusal_writes_nothing(tmp_path: Path, corpus: Path, words: list[str], message: str) -> None:
    model = shared_model(tmp_path / "w", BPE[0])
    (tmp_path / "empty.txt").write_text("", "utf-8")
    (tmp_path / "binary.txt").write_bytes(b"a\n\xff\xfe\n")
    (tmp_path / "names.txt").write_text("no such token\n", "utf-8")
    paths = {
        "CORPUS": corpus,
        "NAMES": tmp_path / "names.txt",
        "EMPTY": tmp_path / "empty.txt",
        "BINARY": tmp_path / "binary.txt",
    }
    told = Here(model.root).run("learn", *(str(paths.get(word, word)) for word in words), "-m", "Learned")
    assert told.returncode in (1, 2)
    assert message in told.stderr
    assert not [path for path in (model.root / "migrations").iterdir() if path.name.startswith("0001")]


@pytest.mark.parametrize("name", OTHER)
def test_only_a_bpe_learns_merges(tmp_path: Path, corpus: Path, name: str) -> None:
    model = shared_model(tmp_path / "w", name)
    told = Here(model.root).run("learn", "extend", str(corpus), "--tokens", "5", "-m", "Learned")
    assert told.returncode == 2
    assert "has no merges" in told.stderr


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
        assert kept.keys() == MergeTrees(state.tokenizer).find_parts(stay)
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


RUSSIAN = "Привет, мир! Это словарь для русского языка, и hello world остаётся. Мир, труд, май; словари языков.\n" * 40


@pytest.mark.parametrize("name", BPE[:2])
def test_only_tokens_of_a_script_are_learned(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path / "w", name)
    old = model.library()
    (tmp_path / "mixed.txt").write_text(RUSSIAN + CODE, "utf-8")
    told = learn(
        model, "extend", tmp_path / "mixed.txt", "--tokens", "60", "--script", "cyrillic", "--max-length", "60"
    )
    upgrade(model.workspace, model.entry)
    new = model.library()
    made = new.get_vocab().keys() - old.get_vocab().keys()
    assert len(made) == told["new_tokens"] > 20
    texts = [new.decode([new.token_to_id(token)]) for token in made]
    assert {find_main_script(text) for text in texts if "\ufffd" not in text} == {"Cyrillic"}
    assert not any(letter.isascii() and letter.isalpha() for text in texts for letter in text)
    growth = {each["script"]: each for each in told["held_out"]["by_script"]}
    assert growth["Cyrillic"]["tokens_after"] < 0.7 * growth["Cyrillic"]["tokens_before"]
    assert growth["Latin"]["tokens_after"] == growth["Latin"]["tokens_before"]
