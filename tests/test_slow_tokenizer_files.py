"""Files that repeat the vocabulary: SentencePiece models and lists follow, others are reported or stand in the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import Made, tensors_of, workspace, write_json
from safetensors.torch import save_file
from test_real_tokenizers import cut, document, library
from test_tokenizer_kinds import of_tiktoken, tekken, train
from workspaces import contents

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.plan import plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import OutOfStepError
from tokmigrate.model.formats.sentencepiece import SentencePieceModel
from tokmigrate.model.from_sentencepiece import make_tokenizer_json

ADDED = ("<|a|>", "<|b|>", "word")
SPARE = 3
PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
TRAINED = {
    "bpe": {"model_type": "bpe", "byte_fallback": True, "vocab_size": 500, "control_symbols": ["<c>"], **PLAIN},
    "unigram": {"pad_id": 3, "vocab_size": 200, **PLAIN},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pieces")
    for name, how in TRAINED.items():
        train(root / name, **how)
    return {name: root / f"{name}.model" for name in TRAINED}


def model_with_pieces(directory: Path, file: Path) -> Path:
    """Make a Llama of two columns with a SentencePiece model, three added tokens behind it, and spare rows."""
    directory.mkdir(parents=True)
    data = shutil.copyfile(file, directory / "tokenizer.model").read_bytes()
    size = len(SentencePieceModel.read(data, "").pieces)
    decoder = {
        str(size + place): {"content": token, "special": token != "word", "normalized": token == "word"}
        for place, token in enumerate(ADDED)
    }
    write_json(directory / "tokenizer_config.json", {"added_tokens_decoder": decoder})
    make_tokenizer_json(directory)
    write_weights(directory, "llama", size + len(ADDED) + SPARE)
    return directory


def write_weights(directory: Path, model_type: str, rows: int) -> None:
    """Write rows that say which they are."""
    write_json(directory / "config.json", {"model_type": model_type, "vocab_size": rows, "tie_word_embeddings": True})
    table = torch.arange(rows, dtype=torch.float32).repeat(2, 1).T.contiguous()
    save_file({"model.embed_tokens.weight": table}, directory / "model.safetensors", {"format": "pt"})


def migrated(root: Path, model: Path, *steps: dict[str, Any]) -> Made:
    """Return a workspace in which each step is a migration."""
    return workspace(root, {"m": model}, [{"operations": [step]} for step in steps])


def check_in_step(model: Path) -> sentencepiece.SentencePieceProcessor:
    """Load tokenizer.model with SentencePiece, and compare every piece with tokenizer.json."""
    judge = sentencepiece.SentencePieceProcessor(model_file=str(model / "tokenizer.model"))
    tokenizer = library(model)
    assert [tokenizer.id_to_token(n) for n in range(len(judge))] == [judge.id_to_piece(n) for n in range(len(judge))]
    assert judge.unk_id() == tokenizer.token_to_id("<unk>")
    spec = SentencePieceModel.read((model / "tokenizer.model").read_bytes(), "")
    for role, number in (("bos", judge.bos_id()), ("eos", judge.eos_id())):
        assert spec.role_id(role) == number
        assert number == -1 or judge.id_to_piece(number) == spec.role_text(role)
    return judge


@given(st.data())
@settings(max_examples=12, deadline=None)
def test_pieces_follow_and_come_back(
    trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("chain")
    model = model_with_pieces(root / "m", trained[data.draw(st.sampled_from(list(trained)))])
    before, texts = contents(model), dict(enumerate(sorted_tokens(model)))
    size = len(texts) - len(ADDED)
    controls = [number for number in range(size) if texts[number] in ("<s>", "</s>", "<c>", "<pad>")]
    added_to = size - 3
    left, middle, right = data.draw(st.integers(size // 2, size - 4)), size - 2, size - 1
    control, added = data.draw(st.sampled_from(controls)), data.draw(st.integers(size, size + 1))
    (unused,) = (texts[number] for number in controls if texts[number] in ("<c>", "<pad>"))
    known = {
        "swap": {"move_tokens": {"acknowledge": "breaking", "tokens": {texts[left]: right, texts[right]: left}}},
        "swap roles": {
            "move_tokens": {"acknowledge": "breaking", "tokens": {texts[control]: middle, texts[middle]: control}}
        },
        "swap with added": {
            "move_tokens": {"acknowledge": "breaking", "tokens": {texts[added]: added_to, texts[added_to]: added}}
        },
        "rename": {"rename_tokens": {"tokens": {texts[control]: "<|renamed|>", "<|b|>": "<|bb|>"}}},
        "bury": {"remove_tokens": {"tokens": [unused], "ids": "tombstone", "acknowledge": "breaking"}},
        "close up": {"remove_tokens": {"tokens": [unused], "ids": "compact", "acknowledge": "breaking"}},
        "add": {"add_tokens": {"tokens": ["<|new|>"]}},
    }
    names = data.draw(st.lists(st.sampled_from(list(known)), min_size=1, max_size=3, unique=True))
    ending = [name for name in ("rename", "bury", "close up") if name in names][:1]
    names = [name for name in names if name not in ("rename", "bury", "close up")] + ending
    made = migrated(root / "w", model, *(known[name] for name in names))
    for revision in made.revisions:
        upgrade(made.workspace, made.entry("m"), revision)
        judge = check_in_step(model)
        for text in ("a token is added", "  rows, 漢字 ", "models and migrations"):
            ids = cut(library(model), text)
            # What stands behind the pieces may be a word that was one.
            assert max(ids) >= len(judge) or ids == judge.encode(text)
    assert (contents(model)["tokenizer.model"] == before["tokenizer.model"]) == (names == ["add"])
    downgrade(made.workspace, made.entry("m"), "base")
    assert contents(model) == before


def sorted_tokens(model: Path) -> list[str]:
    ids = library(model).get_vocab(with_added_tokens=True)
    return sorted(ids, key=lambda token: ids[token])


def test_stepwise_is_fused(trained: dict[str, Path], tmp_path: Path) -> None:
    first, second = (model_with_pieces(tmp_path / name, trained["bpe"]) for name in "ab")
    texts = sorted_tokens(first)
    steps = (
        {"move_tokens": {"acknowledge": "breaking", "tokens": {"<c>": 1, "<s>": texts.index("<c>")}}},
        {"remove_tokens": {"tokens": ["<c>"], "ids": "compact", "acknowledge": "breaking"}},
        {"rename_tokens": {"tokens": {"</s>": "<|end|>"}}},
    )
    once, often = (migrated(tmp_path / f"w{model.name}", model, *steps) for model in (first, second))
    upgrade(once.workspace, once.entry("m"))
    for revision in often.revisions:
        upgrade(often.workspace, often.entry("m"), revision)
    assert contents(first) == contents(second)
    assert check_in_step(first).eos_id() == library(first).token_to_id("<|end|>") != 2


def test_a_piece_that_leaves_a_hole_is_refused(trained: dict[str, Path], tmp_path: Path) -> None:
    model = model_with_pieces(tmp_path / "m", trained["bpe"])
    before, texts = contents(model), sorted_tokens(model)
    made = migrated(
        tmp_path / "w", model, {"move_tokens": {"acknowledge": "breaking", "tokens": {texts[20]: len(texts)}}}
    )
    with pytest.raises(OutOfStepError, match=r"tokenizer\.model.*id 20 would be left") as told:
        upgrade(made.workspace, made.entry("m"))
    assert "remove the file" in str(told.value.hint)
    assert contents(model) == before


def notes_on(made: Made, name: str) -> list[str]:
    return [note for note in plan(made.workspace, made.entry("m")).notes if note.startswith(name)]


def test_added_tokens_and_rules_are_reported(trained: dict[str, Path], tmp_path: Path) -> None:
    model = model_with_pieces(tmp_path / "m", trained["bpe"])
    made = migrated(
        tmp_path / "w", model, {"add_tokens": {"tokens": ["<|new|>", "<|two|>"]}}, {"set_normalizer": "NFKC"}
    )
    assert notes_on(made, "tokenizer.model") == [
        "tokenizer.model: a program that reads only tokenizer.model does not see '<|new|>' and 1 more:"
        " added tokens are not written into it",
        "tokenizer.model: a program that reads only tokenizer.model tokenizes text as before:"
        " the file has rules of its own",
    ]
    other = migrated(tmp_path / "o", model, {"rename_tokens": {"tokens": {"<c>": "<|c|>"}}})
    assert notes_on(other, "tokenizer.model") == []


def test_pieces_in_another_order_stand_in_the_way_only_of_their_own(trained: dict[str, Path], tmp_path: Path) -> None:
    model = model_with_pieces(tmp_path / "m", trained["bpe"])
    pieces = SentencePieceModel.read(trained["bpe"].read_bytes(), "")
    # As in XLM-RoBERTa, whose ids are those of the pieces and one more.
    other = pieces.with_pieces(pieces.pieces[1:])
    (model / "sentencepiece.bpe.model").write_bytes(other.data)
    texts = sorted_tokens(model)
    assert len(notes_on(migrated(tmp_path / "add", model, {"add_tokens": {"tokens": ["<|new|>"]}}), "sentencep")) == 1
    added = migrated(
        tmp_path / "added", model, {"move_tokens": {"acknowledge": "breaking", "tokens": {"<|a|>": len(texts)}}}
    )
    assert notes_on(added, "sentencepiece") == []
    for number, step in enumerate(
        (
            {"move_tokens": {"acknowledge": "breaking", "tokens": {"<c>": 1, "<s>": texts.index("<c>")}}},
            {"rename_tokens": {"tokens": {"<c>": "<d>"}}},
        )
    ):
        made = migrated(tmp_path / str(number), model, step)
        with pytest.raises(OutOfStepError, match=r"sentencepiece\.bpe\.model: it holds '<(c|s)>'"):
            plan(made.workspace, made.entry("m"))


@pytest.mark.parametrize("name", ["q.tiktoken", "tekken.json"])
def test_other_formats_are_reported_or_stand_in_the_way(name: str, tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.mkdir()
    _, size = (tekken if name == "tekken.json" else of_tiktoken(name))(model)
    from tokmigrate.model.tokenizer_kinds import remedy

    made_by = remedy(model, {"config.json": {"model_type": "llama"}}).command
    assert made_by is not None
    _make(made_by)
    size = len(sorted_tokens(model))
    write_weights(model, "llama", size + 4)
    before = contents(model)
    adding = migrated(tmp_path / "a", model, {"add_tokens": {"tokens": ["<|one|>", "<|two|>"]}})
    (note,) = notes_on(adding, name)
    assert "'<|one|>' and 1 more" in note
    assert ("mistral-common" in note) == (name == "tekken.json")
    upgrade(adding.workspace, adding.entry("m"))
    assert contents(model)[name] == before[name]
    swap = {"move_tokens": {"acknowledge": "breaking", "tokens": {"<|one|>": size + 1, "<|two|>": size}}}
    write_more(adding, swap)
    upgrade(adding.workspace, adding.entry("m"))
    assert library(model).token_to_id("<|two|>") == size
    token = sorted_tokens(model)[size - 1]
    write_more(adding, {"remove_tokens": {"tokens": [token], "ids": "tombstone", "acknowledge": "breaking"}})
    with pytest.raises(OutOfStepError, match="in a form that is not rewritten"):
        upgrade(adding.workspace, adding.entry("m"))
    (adding.root / "migrations" / "0003_more.yaml").unlink()
    downgrade(adding.workspace, adding.entry("m"), "base")
    assert contents(model) == before


def _make(command: str) -> None:
    from test_tokenizer_kinds import run

    run(command)


def write_more(made: Made, step: dict[str, Any]) -> None:
    """Write one more migration."""
    files = sorted((made.root / "migrations").iterdir())
    last = json.loads(files[-1].read_text("utf-8"))["revision"]
    number = len(files) + 1
    head = {"format": 1, "revision": f"{number:012x}", "down_revision": last, "message": "More"}
    content = {**head, "operations": [step]}
    (made.root / "migrations" / f"{number:04}_more.yaml").write_text(json.dumps(content), "utf-8")


def test_a_renamed_token_has_its_new_text_in_every_list(trained: dict[str, Path], tmp_path: Path) -> None:
    model = model_with_pieces(tmp_path / "m", trained["unigram"])
    (model / "tokenizer.model").unlink()
    texts = sorted_tokens(model)
    pieces = texts[: -len(ADDED)]
    write_json(model / "vocab.json", {token: number for number, token in enumerate(pieces)})
    (model / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    write_json(model / "added_tokens.json", {token: texts.index(token) for token in ADDED})
    before = contents(model)
    names = {"<pad>": "<|pad|>", "<|a|>": "<|c|>"}
    made = migrated(tmp_path / "w", model, {"rename_tokens": {"tokens": names}})
    upgrade(made.workspace, made.entry("m"))
    now = [names.get(token, token) for token in texts]
    assert sorted_tokens(model) == now
    assert document(model, "vocab.json") == {token: number for number, token in enumerate(now[: len(pieces)])}
    assert (model / "vocab.txt").read_text("utf-8") == "\n".join(now[: len(pieces)]) + "\n"
    assert document(model, "added_tokens.json") == {token: now.index(token) for token in now[len(pieces) :]}
    assert tensors_of(model)["model.embed_tokens.weight"][:, 0].tolist() == list(range(len(texts) + SPARE))
    downgrade(made.workspace, made.entry("m"), "base")
    assert contents(model) == before
