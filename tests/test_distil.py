"""Rows that are distilled from the model as it was before its new tokens."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import making
import pytest
import torch
from making import tensors_of
from real_tokenizers import real
from tokenizers import Tokenizer
from workspaces import DEMO, Workspace, contents, make_workspace

from tokmigrate.commands.earlier_tokenizer import find_earlier_tokenizer
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.init.file_strategy import read_provenance
from tokmigrate.training.snippets import SnippetSample

TEXT = DEMO.with_name("demo-text.txt")
STEPS = ("--steps", "10", "--batch-size", "8")
WORDS = ["tokenizer", "safetensors", "kubernetes"]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace with the demo that has twelve merges of its own text, and no other migration."""
    made = make_workspace(tmp_path_factory.mktemp("extended") / "w")
    for path in (made.root / "migrations").iterdir():
        path.unlink()
    made.asked("learn", "extend", str(TEXT), "--tokens", "12", "-m", "Merges")
    made.asked("upgrade")
    return made.root


@pytest.fixture
def demo(extended: Path, tmp_path: Path) -> Workspace:
    """Return a copy of that workspace, whose state and undo data come along."""
    return Workspace(Path(shutil.copytree(extended, tmp_path / "w")))


@pytest.mark.parametrize("corpus", [["--corpus", str(TEXT)], []], ids=["a corpus", "no corpus"])
def test_a_decoder_learns_the_rows_of_its_new_tokens_and_nothing_else(demo: Workspace, corpus: list[str]) -> None:
    before, tensors = contents(DEMO), tensors_of(demo.model)
    told = demo.asked("distil", *STEPS, *corpus)
    assert (told["revision"], told["held_out"] > 0, len(told["losses"])) == (None, True, 10)
    assert (told["snippets"] > told["written"]) == bool(corpus)
    assert told["after"] < 0.95 * told["before"]
    # What the model writes begins with the token, which nothing predicts there.
    assert not corpus or 0 < told["predictions"][1] < told["predictions"][0]
    learned = {
        json.loads((demo.model / "tokenizer.json").read_text("utf-8"))["model"]["vocab"][token]
        for token in told["tokens"]
    }
    assert len(learned) + len(told["absent"]) == 12
    demo.asked("upgrade")
    for name, after in tensors_of(demo.model).items():
        other = torch.ones(len(after), dtype=torch.bool)
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            other[list(learned)] = False
            assert (after[~other] != tensors[name][~other]).any(1).all()
        assert torch.equal(after[other], tensors[name][other])
    (model,) = demo.asked("status")["models"]
    assert {token["training"] for token in model["training"] if token["token"] in told["tokens"]} == {"trained"}
    file = next((demo.root / "migrations").glob("*.input.safetensors"))
    said = read_provenance(file.read_bytes(), file.name)
    assert said is not None
    assert (said["command"], said["steps"], said["teacher"]) == ("distil", 10, None)
    assert said["distance"] == [told["before"], told["after"]]
    demo.asked("downgrade", "base")
    assert contents(demo.model) == before


def test_the_same_run_gives_the_same_rows(demo: Workspace) -> None:
    found = []
    for name in ("one", "two"):
        demo.asked("distil", "--steps", "2", "--corpus", str(TEXT), "-m", name)
        files = sorted((demo.root / "migrations").glob(f"*_{name}*"))
        found.append([path.read_bytes() for path in files if path.suffix == ".safetensors"])
        for path in files:
            path.unlink()
        demo.asked("lock")
    assert found[0] == found[1]
    assert len(found[0]) == 2


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace with a small BERT of random weights that has new words."""
    root = tmp_path_factory.mktemp("encoder")
    sizes = {"vocab_size": 30_522, "intermediate_size": 32, "max_position_embeddings": 512}
    making.built(root / "m", "BertModel", initializer_range=0.5, **sizes)
    for path in real("bert-base-uncased").glob("tokenizer*.json"):
        shutil.copy(path, root / "m")
    making.migrated(root, root / "m", {"add_words": {"words": WORDS}})
    return Workspace(root)


def test_an_encoder_comes_nearer_to_its_embeddings(encoder: Workspace, tmp_path: Path) -> None:
    chosen = random.Random(5)  # noqa: S311 - the same texts each time
    others = ["house", "river", "small", "green", "there", "came", "when", "it", "was", "and", "the", "of"]
    lines = []
    for _ in range(80):
        lines.append(" ".join([*chosen.sample(others, 5), chosen.choice(WORDS[:2]), *chosen.sample(others, 3)]))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(lines), "utf-8")
    told = encoder.run("distil", "--steps", "30", "--corpus", str(corpus), "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    assert ({*found["tokens"]}, found["absent"], found["written"]) == ({*WORDS[:2]}, WORDS[2:], 0)
    assert 0 < found["after"] < 0.5 * found["before"]
    for path in (encoder.root / "migrations").glob("*istil*"):
        path.unlink()
    encoder.run("lock")


def test_tied_embeddings_learn_both_sides_in_one_row(tmp_path: Path) -> None:
    model = making.llama(tmp_path / "m", head="tied")
    step = {"add_tokens": {"tokens": [{"content": " and then", "special": False}], "init": {"strategy": "subtokens"}}}
    made = making.migrated(tmp_path / "w", model, step)
    before = tensors_of(model)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"{word} and then {word}ing" for word in ("to", "er", "on", "re", "in") * 4), "utf-8")
    told = Workspace(made.root).asked("distil", "--steps", "20", "--corpus", str(corpus))
    assert told["after"] < told["before"]
    assert [path.name.split(".")[1] for path in (made.root / "migrations").glob("*.safetensors")] == ["input"]
    upgrade(made.workspace, made.entry("m"))
    after = tensors_of(model)
    changed = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
    assert changed == ["model.embed_tokens.weight"]
    rows = (after[changed[0]] != before[changed[0]]).any(1).nonzero()
    assert rows.tolist() == [[making.TOKENS]]


@pytest.mark.parametrize("more", ["", " is at the end"])
def test_a_text_that_begins_with_its_only_new_token(demo: Workspace, tmp_path: Path, more: str) -> None:
    """Nothing predicts that token."""
    library = Tokenizer.from_file(str(demo.model / "tokenizer.json"))
    old = Tokenizer.from_file(str(DEMO / "tokenizer.json")).get_vocab()
    number = next(number for token, number in library.get_vocab().items() if token not in old and token[0] != "Ġ")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(f"{library.decode([number])}{more}\n", "utf-8")
    words = ("--token", library.id_to_token(number), "--corpus", str(corpus), "--steps", "3")
    told = demo.asked("distil", *words)
    assert (told["snippets"], told["held_out"]) == (1, 0)
    assert told["predictions"] == [0, 0]
    assert 0 < told["after"] < told["before"]


def test_a_token_that_no_step_reads_keeps_its_row(demo: Workspace) -> None:
    told = demo.asked("distil", "--corpus", str(TEXT), "--steps", "1", "--batch-size", "1")
    assert 0 < len(told["tokens"]) < 12
    assert len({*told["tokens"], *told["absent"]}) == 12


def test_what_cannot_be_distilled(demo: Workspace, encoder: Workspace, tmp_path: Path) -> None:
    roles = make_workspace(tmp_path / "roles")
    roles.asked("upgrade")
    text = tmp_path / "other.txt"
    text.write_text("nothing\n", "utf-8")
    for made, words, message in (
        (demo, ("--lr", "0"), "a learning rate is more than 0"),
        (demo, ("--token", "e"), "the model never had a tokenizer without e"),
        (roles, (), "special tokens stand for no text: <|im_end|>, <|im_start|>, <|pad|>"),
        (demo, ("--corpus", str(TEXT), "--lr", "1e38", "--steps", "4"), "training diverged"),
        (encoder, (), "cannot write snippets itself"),
        (encoder, ("--corpus", str(text)), "there are no snippets with the tokens"),
    ):
        done = made.run("distil", *words)
        assert done.returncode != 0
        assert message in done.stderr
        assert "what to do: " in done.stderr
        assert not list((made.root / "migrations").glob("*istil*"))


def test_the_earlier_tokenizer_and_where_its_rows_are(tmp_path: Path) -> None:
    """Tokens move when others go; the tokenizer is the last one without the new tokens."""
    steps = [
        {"add_tokens": {"tokens": ["<first>"]}},
        {"add_tokens": {"tokens": ["<second>", "<third>"]}},
        {"remove_tokens": {"tokens": ["Ġand"], "ids": "compact", "acknowledge": "breaking"}},
    ]
    made = making.migrated(tmp_path / "w", making.llama(tmp_path / "m"), *steps)
    entry = made.entry("m")
    now = Tokenizer.from_file(str(entry.path / "tokenizer.json")).get_vocab()
    for tokens, revision in ((["<second>", "<third>"], made.revisions[0]), (["<first>", "<third>"], None)):
        found = find_earlier_tokenizer(made.workspace, entry, tokens)
        assert found.revision == revision
        then = found.tokenizer.ids
        assert {token: found.rows.get(number) for token, number in then.items()} == {
            token: now.get(token) for token in then
        }
        assert any(found.rows.get(number) not in (number, None) for number in then.values())
    # No tokenizer was without the one, and the latest without the other is chosen.
    assert find_earlier_tokenizer(made.workspace, entry, ["the", "<first>"]).revision is None


def test_snippets_do_not_depend_on_the_order_of_texts() -> None:
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    wanted = {tokenizer.token_to_id(token): token for token in ("Ġthe", "Ġof", "!")}
    texts = [line for line in TEXT.read_text("utf-8").splitlines() if line]
    shuffled = random.Random(1).sample(texts, len(texts))  # noqa: S311 - the same order each time
    found = []
    for lines in (texts, shuffled):
        sample = SnippetSample(tokenizer, wanted, 5, 0)
        for start in range(0, len(lines), 7):
            sample.add(lines[start : start + 7])
        found.append(sample.snippets())
    assert found[0] == found[1]
    assert 5 <= len(found[0]) <= 15
    for snippet in found[0]:
        assert wanted.keys() & {*tokenizer.encode(snippet).ids}
        assert len(tokenizer.encode(snippet).ids) <= 52
    assert SnippetSample(tokenizer, wanted, 5, 1).snippets() == []
