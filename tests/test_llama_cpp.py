"""What llama.cpp's converter reads of a model, of tokenizer.json alone and beside tokenizer.model, after migrations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import sentencepiece
import transformers
from gguf import TokenType as Type
from making import llama, migrated, write_json
from test_real_tokenizers import library
from test_slow_tokenizer_files import ADDED, SPARE, model_with_pieces
from transformers import AutoTokenizer
from workspaces import contents

from tokmigrate.commands.check import check
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.model.documents.roles import ROLES, special_token
from tokmigrate.model.documents.slow_tokenizer_files import is_read_without_flags
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.model.worker.worker import call_worker
from tokmigrate.servers.finding import Loaded, Subject
from tokmigrate.servers.gguf import list_roles
from tokmigrate.servers.gguf_tokens import read_tokens
from tokmigrate.settings import ModelEntry


def converted(model: Path) -> list[tuple[str, Type]]:
    """Return text and type of each id, as the converter reads them.

    A class of llama.cpp's `LlamaModel` reads tokenizer.model, else a BPE that falls back to bytes with gguf 0.19, else
    any BPE with transformers: conversion/llama.py of ggml-org/llama.cpp, commit
    7bca1fd9ca2a681b0182e16f24f832b7be1942af.
    """
    if (model / "tokenizer.model").exists():
        return converted_with_pieces(model)
    try:
        vocabulary = gguf.LlamaHfVocab(model)
    except (FileNotFoundError, TypeError):
        return converted_with_transformers(model)
    return [(text.decode(), Type(kind)) for text, _, kind in vocabulary.all_tokens()]


def converted_with_transformers(model: Path) -> list[tuple[str, Type]]:
    """Return the reading of `TextModel.get_vocab_base` in conversion/base.py, of the commit below, said again."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    rows, texts = document(model, "config.json")["vocab_size"], {n: t for t, n in tokenizer.get_vocab().items()}
    assert max(texts) < rows
    found = []
    for number in range(rows):
        text, kind = texts.get(number, f"[PAD{number}]"), Type.NORMAL if number in texts else Type.UNUSED
        token = tokenizer.added_tokens_decoder.get(number)
        if token is not None:
            if not token.normalized:
                text = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
            kind = Type.CONTROL if token.special or looks_special(text) else Type.USER_DEFINED
            text = text if kind is Type.CONTROL else text.replace("\u2581", " ")
        found.append((text, kind))
    return found


def converted_with_pieces(model: Path) -> list[tuple[str, Type]]:
    """Return text and type of each id, as the converter reads them beside tokenizer.model.

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


@pytest.fixture
def saved(tmp_path: Path, pieces: Path) -> Path:
    """A model as transformers 5 saves it, with tokenizer.model laid beside it."""
    return make_model_with_pieces(tmp_path / "model", pieces)


def make_model_with_pieces(directory: Path, pieces: Path) -> Path:
    model = model_with_pieces(directory, pieces)
    write_json(model / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    write_json(model / "config.json", {**document(model, "config.json"), "architectures": ["LlamaForCausalLM"]})
    return model


NEW = {"add_tokens": {"tokens": [{"content": "<end of turn>", "special": True}, "\u2581newword"]}}


OPERATIONS: dict[str, list[dict[str, Any]]] = {
    "add": [NEW],
    "add and use": [NEW, {"set_special_tokens": {"eos": "<end of turn>"}}],
    "add roles": [{"add_role_tokens": {"preset": "chatml"}}],
    "extend": [NEW, {"extend_vocab": {"merges": ["x x"]}}],
    "rename": [{"rename_tokens": {"tokens": {"word": "other", "<|b|>": "<|renamed|>"}}}],
    "flag": [{"set_token_flags": {"tokens": "word", "special": True}}],
    "unflag": [{"set_token_flags": {"tokens": "<|a|>", "special": False}}],
    "set roles": [{"set_special_tokens": {"eos": "<|a|>", "pad": "<|b|>"}}],
    "pad": [{"add_tokens": {"tokens": ["<|pad|>"]}}, {"set_padding": {"token": "<|pad|>", "side": "left"}}],
    "move": [{"move_tokens": {"tokens": {"<|a|>": "<|b|>", "<|b|>": "<|a|>"}, "acknowledge": "breaking"}}],
    "bury": [{"remove_tokens": {"tokens": ["<|b|>"], "ids": "tombstone", "acknowledge": "breaking"}}],
    "close up": [{"remove_tokens": {"tokens": ["<|b|>"], "ids": "compact", "acknowledge": "breaking"}}],
    "resize": [NEW, {"resize_vocab": {"multiple_of": 64}}],
}
"""What adds or changes tokens, on a model that has the added tokens `<|a|>`, `<|b|>` and `word`."""


def check_all_added(model: Path) -> None:
    """Check that each added token has its text and the type of its flag, and that `check --target gguf` knows that."""
    found = converted(model)
    state = take_snapshot(ModelEntry("m", model)).state
    reads_roles = is_read_without_flags(state)
    with_role = {special_token(state, role) for role in ROLES}
    for entry in document(model, "tokenizer.json")["added_tokens"]:
        text, kind = found[entry["id"]]
        if kind is Type.UNKNOWN:
            continue
        assert text in (entry["content"], entry["content"].replace("\u2581", " ")), entry
        is_special = entry["special"] or (text in with_role if reads_roles else looks_special(text))
        assert (kind is Type.CONTROL) == is_special, entry
    if not reads_roles:
        assert sum(kind is Type.UNUSED for _, kind in found) == len(found) - library(model).get_vocab_size()
    subject = read_subject(model)
    read = read_tokens(subject)
    assert read is not None
    assert [*read.tokens] == found
    ids, adds = list_roles(state, len(found))
    judge = gguf.SpecialVocab(model, n_vocab=len(found))
    assert ids == judge.special_token_ids
    assert {role: adds.get(role) for role in ("bos", "eos")} == {
        role: judge.add_special_token.get(role) for role in ("bos", "eos")
    }


def read_subject(model: Path) -> Subject:
    """Return what the rules of llama.cpp are about."""
    # In this process: a worker for each would take its time.
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    added = [each["content"] for each in document(model, "tokenizer.json")["added_tokens"]]
    decoded = {text: tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) for text in added}
    loaded = Loaded((), decoded, frozenset(tokenizer.all_special_tokens))
    return Subject(take_snapshot(ModelEntry("m", model)), (), loaded)


def test_added_tokens_reach_the_converter_and_come_back(saved: Path, tmp_path: Path) -> None:
    before = contents(saved)
    old = converted(saved)
    assert [kind for _, kind in old[-SPARE - 3 :]] == [Type.UNUSED] * (SPARE + 3)

    made = migrated(tmp_path / "w", saved, NEW, {"set_special_tokens": {"eos": "<end of turn>"}})
    check_all_added(saved)
    found = converted(saved)
    assert found[special_id(saved, "eos")] == ("<end of turn>", Type.CONTROL)
    assert (" newword", Type.USER_DEFINED) in found
    assert "<end of turn>" in document(saved, "tokenizer_config.json")["extra_special_tokens"]
    assert [text for text, _ in found][: len(old) - SPARE - 3] == [text for text, _ in old][: len(old) - SPARE - 3]

    downgrade(made.workspace, made.entry("m"), "base")
    assert contents(saved) == before


@pytest.fixture(params=["tokenizer.json", "tokenizer.json of a BPE with bytes", "tokenizer.model"])
def model(request: pytest.FixtureRequest, tmp_path: Path, pieces: Path) -> Path:
    """A model of each kind that the converter reads otherwise, with added tokens of the same texts."""
    directory = tmp_path / "model"
    if request.param == "tokenizer.json":
        llama(directory, spare=SPARE + 3)
        tokenizer = document(directory, "tokenizer.json")
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        first = 1 + tokenizer["added_tokens"][-1]["id"]
        tokenizer["added_tokens"] += [
            {"id": first + place, "content": text, **flags, "special": text != "word"}
            for place, text in enumerate(ADDED)
        ]
        write_json(directory / "tokenizer.json", tokenizer)
        return directory
    make_model_with_pieces(directory, pieces)
    if request.param != "tokenizer.model":
        (directory / "tokenizer.model").unlink()
    return directory


@pytest.mark.parametrize("kind", OPERATIONS)
def test_every_change_of_tokens_reaches_the_converter(model: Path, tmp_path: Path, kind: str) -> None:
    steps = OPERATIONS[kind]
    if kind == "move":
        ids = {each["content"]: each["id"] for each in document(model, "tokenizer.json")["added_tokens"]}
        moved = {"<|a|>": ids["<|b|>"], "<|b|>": ids["<|a|>"]}
        steps = [{"move_tokens": {"tokens": moved, "acknowledge": "breaking"}}]
    before = contents(model)
    made = migrated(tmp_path / "w", model, *steps)
    check_all_added(model)
    downgrade(made.workspace, made.entry("m"), "base")
    assert contents(model) == before


def test_nothing_is_written_where_nothing_is_missing(saved: Path, tmp_path: Path) -> None:
    (saved / "tokenizer.model").unlink()
    migrated(tmp_path / "w", saved, NEW)
    assert "added_tokens_decoder" not in document(saved, "tokenizer_config.json")


def test_transformers_reads_the_same_with_the_list(saved: Path, tmp_path: Path) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    write_json(saved / "tokenizer_config.json", config)
    write_json(
        saved / "special_tokens_map.json", {"eos_token": {"content": "</s>", "lstrip": False}, "bos_token": "<s>"}
    )
    before = call_worker("transformers", {"directory": str(saved), "encode": ["a word <|a|>"]})["tokenizer"]
    special = AutoTokenizer.from_pretrained(saved).special_tokens_map
    made = migrated(tmp_path / "w", saved, NEW)
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
