"""What is learned from a corpus: merges that a migration appends; and what both commands refuse."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from learning import CODE, held_out, learn, tokenize, write_code
from shared_models import shared_model
from workspaces import Workspace

from tokmigrate.commands.upgrade import upgrade
from tokmigrate.vocabulary.scripts import find_main_script

BPE = ["phi-2-small", "mistral-chat-small"]
OTHER = ["oromo-t5", "bert-base-uncased"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_code(tmp_path)


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prune", "CORPUS"], "give one of --tokens"),
        (["prune", "CORPUS", "--tokens", "5", "--unused"], "several options say how many"),
        (["prune", "CORPUS", "--tokens", "999999"], "no token would be removed"),
        (["prune", "CORPUS", "--tokens", "200"], "295 tokens have to stay (structural 295), which is more than 200"),
        (["prune", "EMPTY", "--unused"], "the corpus has no text"),
        (["prune", "CORPUS", "--unused", "--keep", "script:Latn"], "did you mean 'Latin'?"),
        (["prune", "CORPUS", "--unused", "--drop", "preset:digit"], "the presets are alphanumeric, "),
        (["prune", "CORPUS", "--unused", "--drop", "re:("], "'(' is not a regular expression: missing )"),
        (["prune", "CORPUS", "--unused", "--keep", "script:Runic"], "no token matches 'script:Runic'"),
        (["prune", "CORPUS", "--unused", "--keep", "scripts:Latin"], "patterns begin with re:, script: or preset:"),
        (["prune", "CORPUS", "--unused", "--keep-text", "BINARY"], "binary.txt: the file is not UTF-8"),
        (["prune", "missing.txt", "--unused"], "missing.txt"),
        (["prune", "CORPUS", "--unused", "--keep", "NAMES"], "names.txt:1:1: 'no such token' is not a token of this"),
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
    told = Workspace(model.root).run("learn", *(str(paths.get(word, word)) for word in words), "-m", "Learned")
    assert told.returncode in (1, 2)
    assert message in told.stderr
    assert not [path for path in (model.root / "migrations").iterdir() if path.name.startswith("0001")]


@pytest.mark.parametrize(
    "words",
    [
        ["learn", "extend", "absent.txt", "--tokens", "5"],
        ["learn", "prune", "absent.txt", "--unused"],
        ["learn", "prune", "absent.txt", "--replace", "5"],
        ["learn", "transplant", "--donor", "absent"],
        ["revision", "--autogenerate", "--from", "absent", "--to", "absent"],
        ["squash", "0001:0002"],
    ],
)
def test_a_message_is_refused_before_anything_is_read(tmp_path: Path, words: list[str]) -> None:
    model = shared_model(tmp_path, BPE[0])
    for message in ("", "two\nlines"):
        told = Workspace(model.root).run(*words, "-m", message)
        assert told.returncode == 2
        assert "a migration needs a message, one line of printable text" in told.stderr


def test_no_file_stays_beside_a_migration_that_is_not_written(tmp_path: Path, corpus: Path) -> None:
    model = shared_model(tmp_path / "w", BPE[0])
    left = model.root / "migrations" / "0001_learned.reasons.tsv"
    left.write_text("left by a crash", "utf-8")
    told = Workspace(model.root).run("learn", "prune", str(corpus), "--tokens", "5000", "-m", "Learned")
    assert told.returncode == 1
    assert f"{left.name}: the file cannot be written: File exists" in told.stderr
    assert "give another message" in told.stderr
    assert [path for path in left.parent.iterdir() if path.name.startswith("0001")] == [left]
    assert left.read_text("utf-8") == "left by a crash"


@pytest.mark.parametrize("name", OTHER)
def test_only_a_bpe_learns_merges(tmp_path: Path, corpus: Path, name: str) -> None:
    model = shared_model(tmp_path / "w", name)
    told = Workspace(model.root).run("learn", "extend", str(corpus), "--tokens", "5", "-m", "Learned")
    assert told.returncode == 2
    assert "has no merges" in told.stderr


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


def test_a_model_that_is_named_by_its_directory_is_taken_at_the_head(tmp_path: Path, corpus: Path) -> None:
    model = shared_model(tmp_path / "w", BPE[0])
    first = learn(model, "extend", corpus, "--tokens", "20")
    second = learn(model, "extend", corpus, "--tokens", "20", "--model", model.directory)
    merges = [set(Path(each["merges_file"]).read_text("utf-8").splitlines()) for each in (first, second)]
    assert merges[0].isdisjoint(merges[1])
    upgrade(model.workspace, model.entry)
