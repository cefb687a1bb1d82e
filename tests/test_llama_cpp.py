"""What llama.cpp reads of a model that has tokenizer.model beside tokenizer.json, before and after migrations."""

from __future__ import annotations

import json
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from making import Made, workspace, write_json
from test_real_tokenizers import library
from test_slow_tokenizer_files import SPARE, TRAINED, model_with_pieces
from test_tokenizer_kinds import train
from transformers import AutoTokenizer
from workspaces import contents

from tokmigrate.commands.check import check
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.model.worker.worker import call_worker


class Type(IntEnum):
    """The types that GGUF gives tokens."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def converted(model: Path) -> list[tuple[str, Type]]:
    """Return text and type of each id, as the converter reads them.

    It is the reading of `TextModel._create_vocab_sentencepiece` in conversion/base.py of ggml-org/llama.cpp, commit
    2bbcf7fc93a460f04d5709756a48b2408443eecb, said again; convert_hf_to_gguf.py of older releases reads the same.
    """
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model / "tokenizer.model"))
    rows = document(model, "config.json")["vocab_size"]
    found = [(f"[PAD{number}]", Type.UNUSED) for number in range(rows)]
    for number in range(min(len(pieces), rows)):
        kinds = {
            Type.UNKNOWN: pieces.is_unknown,
            Type.CONTROL: pieces.is_control,
            Type.UNUSED: pieces.is_unused,
            Type.BYTE: pieces.is_byte,
        }
        kind = next((kind for kind, is_of in kinds.items() if is_of(number)), Type.NORMAL)
        found[number] = (pieces.id_to_piece(number), kind)
    for text, number in document(model, "added_tokens.json").items():
        if number < rows:
            found[number] = (text, Type.USER_DEFINED)
    for key, entry in document(model, "tokenizer_config.json").get("added_tokens_decoder", {}).items():
        text, number = entry["content"], int(key)
        if number >= rows:
            continue
        if entry.get("special") or looks_special(text):
            found[number] = (text, Type.CONTROL)
        else:
            found[number] = (text.replace("\u2581", " "), Type.USER_DEFINED)
    return found


def looks_special(text: str) -> bool:
    """Return what `does_token_look_special` returns there, without the names of single models."""
    around = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    return text == "<pad>" or any(text.startswith(begin) and text.endswith(end) for begin, end in around)


def special_id(model: Path, role: str) -> int:
    """Return what `SpecialVocab` of gguf-py takes for a role: the token of tokenizer_config.json, by tokenizer.json."""
    entry = document(model, "tokenizer_config.json")[f"{role}_token"]
    text = entry["content"] if isinstance(entry, dict) else entry
    (number,) = (each["id"] for each in document(model, "tokenizer.json")["added_tokens"] if each["content"] == text)
    return int(number)


def document(model: Path, name: str) -> Any:
    return json.loads((model / name).read_text("utf-8")) if (model / name).exists() else {}


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pieces")
    train(root / "bpe", **TRAINED["bpe"])
    return root / "bpe.model"


@pytest.fixture
def saved(tmp_path: Path, pieces: Path) -> Path:
    """A model as transformers 5 saves it, with tokenizer.model laid beside it."""
    model = model_with_pieces(tmp_path / "model", pieces)
    write_json(model / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    return model


def migrated(root: Path, model: Path, *operations: dict[str, Any]) -> Made:
    made = workspace(root / "w", {"m": model}, [{"operations": [each]} for each in operations])
    upgrade(made.workspace, made.entry("m"))
    return made


NEW = {"add_tokens": {"tokens": [{"content": "<end of turn>", "special": True}, "\u2581newword"]}}


def check_all_added(model: Path) -> None:
    """Check that each added token has its text and the type of its flag."""
    found = converted(model)
    for entry in document(model, "tokenizer.json")["added_tokens"]:
        text, kind = found[entry["id"]]
        assert text == (entry["content"] if kind is Type.CONTROL else entry["content"].replace("\u2581", " "))
        assert (kind is Type.CONTROL) == (entry["special"] or looks_special(text)), entry
    assert sum(kind is Type.UNUSED for _, kind in found) == len(found) - library(model).get_vocab_size()


def test_added_tokens_reach_the_converter_and_come_back(saved: Path, tmp_path: Path) -> None:
    before = contents(saved)
    old = converted(saved)
    assert [kind for _, kind in old[-SPARE - 3 :]] == [Type.UNUSED] * (SPARE + 3)

    made = migrated(tmp_path, saved, NEW, {"set_special_tokens": {"eos": "<end of turn>"}})
    check_all_added(saved)
    found = converted(saved)
    assert found[special_id(saved, "eos")] == ("<end of turn>", Type.CONTROL)
    assert (" newword", Type.USER_DEFINED) in found
    assert "<end of turn>" in document(saved, "tokenizer_config.json")["extra_special_tokens"]
    assert [text for text, _ in found][: len(old) - SPARE - 3] == [text for text, _ in old][: len(old) - SPARE - 3]

    downgrade(made.workspace, made.entry("m"), "base")
    assert contents(saved) == before


@pytest.mark.parametrize(
    "operation",
    [
        {"add_role_tokens": {"preset": "chatml"}},
        {"rename_tokens": {"tokens": {"word": "other"}}},
        {"set_token_flags": {"tokens": "word", "special": True}},
        {"set_special_tokens": {"eos": "<|a|>"}},
        {"move_tokens": {"tokens": {"<|a|>": 501, "<|b|>": 500}, "acknowledge": "breaking"}},
        {"remove_tokens": {"tokens": ["<|b|>"], "ids": "tombstone", "acknowledge": "breaking"}},
        {"remove_tokens": {"tokens": ["<|b|>"], "ids": "compact", "acknowledge": "breaking"}},
    ],
    ids="-".join,
)
def test_every_change_of_added_tokens_reaches_the_converter(
    saved: Path, tmp_path: Path, operation: dict[str, Any]
) -> None:
    before = contents(saved)
    made = migrated(tmp_path, saved, operation)
    check_all_added(saved)
    downgrade(made.workspace, made.entry("m"), "base")
    assert contents(saved) == before


def test_nothing_is_written_where_nothing_is_missing(saved: Path, tmp_path: Path) -> None:
    (saved / "tokenizer.model").unlink()
    migrated(tmp_path, saved, NEW)
    assert "added_tokens_decoder" not in document(saved, "tokenizer_config.json")


def test_transformers_reads_the_same_with_the_list(saved: Path, tmp_path: Path) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    write_json(saved / "tokenizer_config.json", config)
    write_json(
        saved / "special_tokens_map.json", {"eos_token": {"content": "</s>", "lstrip": False}, "bos_token": "<s>"}
    )
    before = call_worker("transformers", {"directory": str(saved), "encode": ["a word <|a|>"]})["tokenizer"]
    special = AutoTokenizer.from_pretrained(saved).special_tokens_map
    made = migrated(tmp_path, saved, NEW)
    after = call_worker("transformers", {"directory": str(saved), "encode": ["a word <|a|>"]})["tokenizer"]
    assert AutoTokenizer.from_pretrained(saved).special_tokens_map == special
    assert after["size"] == before["size"] + 2
    for part in ("encodings", "class"):
        assert after[part] == before[part]

    # transformers 5 leaves the list out when it saves, which is not a drift.
    saved_again = document(saved, "tokenizer_config.json")
    del saved_again["added_tokens_decoder"]
    write_json(saved / "tokenizer_config.json", saved_again)
    assert check(made.workspace, made.entry("m")).exit_code == 0
    downgrade(made.workspace, made.entry("m"), "base")
    assert document(saved, "tokenizer_config.json") == config
