"""The semantic diff of two tokenizers: written otherwise they are equal, and each change is named as what it is."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from making import BOS, EOS, tokenizer_json
from real_tokenizers import available, is_available, real

from tokmigrate.model.documents.chat_template import read_chat_templates
from tokmigrate.model.documents.declared import Documents
from tokmigrate.model.documents.reading import read_documents
from tokmigrate.model.documents.semantic_diff import Difference, differences, without_ignorable

REAL = available(
    "all-minilm-l6-v2",
    "bert-base-uncased",
    "gpt2-chatml",
    "gpt2-roberta",
    "oromo-t5",
    "phi-2",
    "model2vec-float16",
    "roberta-base",
    "t5-small",
)


def files(directory: Path) -> Documents:
    return read_documents(directory)[1]


def resaved(name: str, loader: Any, to: Path) -> Documents:
    source = to / "source"
    shutil.copytree(real(name), source, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    loader.from_pretrained(str(source)).save_pretrained(str(to / "saved"))
    return files(to / "saved")


def besides_rounding(name: str, found: Sequence[Difference]) -> list[Difference]:
    """Return the differences besides those of the scores of a Unigram model, which the library rounds."""
    assert not [each for each in without_ignorable(found) if each.aspect == "rounding"]
    return [each for each in found if name not in ("oromo-t5", "t5-small") or each.aspect != "rounding"]


@pytest.mark.parametrize("name", [*REAL, "mistral-chat"])
def test_saved_again_by_transformers_it_is_the_same(name: str, tmp_path: Path) -> None:
    saved = resaved(name, transformers.PreTrainedTokenizerFast, tmp_path)
    assert besides_rounding(name, differences(files(tmp_path / "source"), saved)) == []
    assert besides_rounding(name, differences(saved, files(tmp_path / "source"))) == []


@pytest.mark.parametrize("name", REAL)
def test_saved_again_by_the_class_of_its_own_it_is_the_same(name: str, tmp_path: Path) -> None:
    saved = resaved(name, transformers.AutoTokenizer, tmp_path)
    assert besides_rounding(name, differences(files(tmp_path / "source"), saved)) == []


@pytest.mark.parametrize(
    ("name", "model_type", "config"),
    [
        ("bert-base-uncased", "bert", None),
        ("bert-base-uncased", "bert", {"do_lower_case": True, "model_max_length": 512}),
        ("gpt2-roberta", "roberta", {"model_max_length": 512}),
        ("phi-2", "phi", {}),
        *([("t5-small", "t5", {"tokenizer_class": "T5TokenizerFast"})] if is_available("t5-small") else []),
        ("mistral-chat", "phi3", {"tokenizer_class": "LlamaTokenizer"}),
    ],
)
def test_roles_that_only_the_class_knows(name: str, model_type: str, config: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(real(name) / "tokenizer.json", source)
    (source / "config.json").write_text(json.dumps({"model_type": model_type}), "utf-8")
    if config is not None:
        (source / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    transformers.AutoTokenizer.from_pretrained(str(source)).save_pretrained(str(tmp_path / "saved"))
    shutil.copy(source / "config.json", tmp_path / "saved")
    found = differences(files(source), files(tmp_path / "saved"))
    # T5's class lists its sentinels, which no file had listed.
    assert [each.aspect for each in found if each.aspect != "rounding"] == (["specials"] if name == "t5-small" else [])


def test_a_class_that_builds_the_tokenizer_itself_is_found(tmp_path: Path) -> None:
    saved = resaved("mistral-chat", transformers.AutoTokenizer, tmp_path)
    found = {(each.aspect, each.subject) for each in differences(files(tmp_path / "source"), saved)}
    assert found == {("model", "unk_token"), ("part", "normalizer"), ("part", "pre_tokenizer")}


def made() -> dict[str, Any]:
    """Return the files of a small model, with something in every place that is compared."""
    document = tokenizer_json()
    pieces = [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    document["normalizer"] = {"type": "NFC"}
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {BOS: {"id": BOS, "ids": [document["added_tokens"][0]["id"]], "tokens": [BOS]}},
    }
    number = document["added_tokens"][1]["id"]
    return {
        "tokenizer.json": document,
        "tokenizer_config.json": {
            "bos_token": BOS,
            "eos_token": EOS,
            "additional_special_tokens": [BOS, EOS],
            "chat_template": "{{ messages }}",
            "model_max_length": 64,
        },
        "config.json": {"model_type": "llama", "vocab_size": 400, "eos_token_id": number},
        "generation_config.json": {"eos_token_id": [number, 5]},
    }


def _pairs_as_texts(held: Any) -> None:
    model = held["tokenizer.json"]["model"]
    model["merges"] = [" ".join(merge) for merge in model["merges"]]


def _as_objects(held: Any) -> None:
    config = held["tokenizer_config.json"]
    config["eos_token"] = {"content": config["eos_token"], "__type": "AddedToken", "lstrip": False}


def _in_another_file(held: Any) -> None:
    config = held["tokenizer_config.json"]
    held["special_tokens_map.json"] = {"bos_token": config.pop("bos_token")}


def _template_as_file(held: Any) -> None:
    config = held["tokenizer_config.json"]
    if isinstance(config["chat_template"], str):
        held["chat_template.jinja"] = config.pop("chat_template")


def _template_in_a_list(held: Any) -> None:
    config = held["tokenizer_config.json"]
    if "chat_template" in config:
        config["chat_template"] = [{"name": "default", "template": config["chat_template"]}]


def _new_name_of_the_list(held: Any) -> None:
    config = held["tokenizer_config.json"]
    config["extra_special_tokens"] = config.pop("additional_special_tokens", [BOS, EOS])[::-1]


def _without_defaults(held: Any) -> None:
    document = held["tokenizer.json"]
    model = document["model"]
    for name in ("dropout", "unk_token", "fuse_unk", "byte_fallback", "ignore_merges", "type"):
        if not model[name] or name == "type":
            del model[name]
    model["continuing_subword_prefix"] = ""
    for name in ("pre_tokenizer", "decoder"):
        document[name].pop("use_regex", None)
    del document["truncation"]


def _nested(held: Any) -> None:
    document = held["tokenizer.json"]
    document["normalizer"] = {"type": "Sequence", "normalizers": [document["normalizer"]]}


def _with_unused_specials(held: Any) -> None:
    held["tokenizer.json"]["post_processor"]["special_tokens"]["unused"] = {"id": "unused", "ids": [1], "tokens": ["a"]}


def _with_defaults(held: Any) -> None:
    config = held["tokenizer_config.json"]
    for name, value in {"padding_side": "right", "truncation_side": "right", "pad_token": None}.items():
        config.setdefault(name, value)
    held["config.json"] |= {"bos_token_id": 1, "pad_token_id": None}


def _one_as_a_list(held: Any) -> None:
    held["config.json"]["eos_token_id"] = [held["config.json"]["eos_token_id"]]


def _with_slow_files(held: Any) -> None:
    document = held["tokenizer.json"]
    held["vocab.json"] = document["model"]["vocab"]
    held["added_tokens.json"] = {entry["content"]: entry["id"] for entry in document["added_tokens"]}
    held["tokenizer_config.json"]["tokenizer_class"] = "PreTrainedTokenizerFast"
    document["version"] = "2.0"


def _in_another_order(held: Any) -> None:
    for name, value in held.items():
        if isinstance(value, dict):
            held[name] = json.loads(json.dumps(value, sort_keys=True))


SPELLINGS: tuple[Callable[[Any], None], ...] = (
    _pairs_as_texts,
    _as_objects,
    _in_another_file,
    _template_as_file,
    _template_in_a_list,
    _new_name_of_the_list,
    _without_defaults,
    _nested,
    _with_unused_specials,
    _with_defaults,
    _one_as_a_list,
    _with_slow_files,
    _in_another_order,
)


def _set(*path: Any) -> Callable[[Any], None]:
    *steps, last, value = path

    def change(held: Any) -> None:
        for step in steps:
            held = held[step]
        held[last] = value

    return change


def _swapped_merges(held: Any) -> None:
    merges = held["tokenizer.json"]["model"]["merges"]
    merges[3], merges[4] = merges[4], merges[3]


def _rename(held: Any) -> None:
    held["tokenizer.json"]["added_tokens"][1]["content"] = "<end>"


def _swap_ids(held: Any) -> None:
    vocabulary = held["tokenizer.json"]["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


def _add(held: Any) -> None:
    added = held["tokenizer.json"]["added_tokens"]
    added.append({**added[-1], "id": added[-1]["id"] + 1, "content": "<new>"})


def _remove(held: Any) -> None:
    held["tokenizer.json"]["added_tokens"].pop()


def _move(held: Any) -> None:
    held["tokenizer.json"]["added_tokens"][1]["id"] += 3


MERGES = [" + ".join(merge) for merge in made()["tokenizer.json"]["model"]["merges"][3:5]]
A, B = (made()["tokenizer.json"]["model"]["vocab"][letter] for letter in "ab")
NUMBER = made()["tokenizer.json"]["added_tokens"][1]["id"]
CHANGES: dict[str, tuple[Callable[[Any], None], list[tuple[str, str, Any, Any]]]] = {
    "a token more": (_add, [("added", "<new>", None, NUMBER + 1)]),
    "a token fewer": (_remove, [("removed", EOS, NUMBER, None)]),
    "a token moved": (_move, [("moved", EOS, NUMBER, NUMBER + 3)]),
    "a token renamed": (_rename, [("renamed", str(NUMBER), EOS, "<end>")]),
    "two swapped": (_swap_ids, [("moved", "a", A, B), ("moved", "b", B, A)]),
    "a flag": (
        _set("tokenizer.json", "added_tokens", 1, "lstrip", True),
        [("flags", f"{EOS}: lstrip", False, True)],
    ),
    "a setting": (_set("tokenizer.json", "model", "byte_fallback", True), [("model", "byte_fallback", False, True)]),
    "normalizer": (
        _set("tokenizer.json", "normalizer", {"type": "NFKC"}),
        [("part", "normalizer", {"type": "NFC"}, {"type": "NFKC"})],
    ),
    "role": (_set("tokenizer_config.json", "pad_token", EOS), [("role", "pad", None, EOS)]),
    "specials": (
        _set("tokenizer_config.json", "additional_special_tokens", [BOS]),
        [("specials", "listed", [EOS, BOS], [BOS])],
    ),
    "template": (_set("tokenizer_config.json", "chat_template", "x"), [("template", "default", "{{ messages }}", "x")]),
    "length": (_set("tokenizer_config.json", "model_max_length", 32), [("setting", "model_max_length", 64, 32)]),
    "side": (_set("tokenizer_config.json", "padding_side", "left"), [("setting", "padding_side", "right", "left")]),
    "an id": (
        _set("generation_config.json", "eos_token_id", [NUMBER, 6]),
        [("id field", "generation_config.json: eos_token_id", [NUMBER, 5], [NUMBER, 6])],
    ),
    "rows": (_set("config.json", "vocab_size", 512), [("rows", "vocab_size", 400, 512)]),
    "merges": (_swapped_merges, [("merges", "order", *MERGES)]),
}


@given(st.lists(st.sampled_from(SPELLINGS), max_size=6, unique=True))
@settings(max_examples=60, deadline=None)
def test_written_otherwise_it_is_the_same(spellings: list[Callable[[Any], None]]) -> None:
    other = made()
    for spell in spellings:
        spell(other)
    assert differences(made(), other) == ()


@pytest.mark.parametrize("change", CHANGES)
@given(spellings=st.lists(st.sampled_from(SPELLINGS), max_size=4, unique=True))
@settings(max_examples=8, deadline=None)
def test_a_change_is_reported_as_what_it_is(change: str, spellings: list[Callable[[Any], None]]) -> None:
    make, expected = CHANGES[change]
    other = copy.deepcopy(made())
    make(other)
    for spell in spellings:
        spell(other)
    assert differences(made(), other) == tuple(Difference(*each) for each in expected)  # type: ignore[arg-type]


def test_a_chat_template_is_the_one_that_transformers_takes() -> None:
    documents: dict[str, Any] = {
        "tokenizer_config.json": {
            "chat_template": [{"name": "default", "template": "config"}, {"name": "tool_use", "template": "tools"}]
        },
        "chat_template.json": {"chat_template": "processor"},
        "chat_template.jinja": "file",
        "additional_chat_templates/rag.jinja": "rag",
    }
    others = {"tool_use": "tools", "rag": "rag"}
    assert read_chat_templates(documents) == {"default": "file", **others}
    del documents["chat_template.jinja"]
    assert read_chat_templates(documents) == {"default": "processor", **others}
    del documents["chat_template.json"]
    assert read_chat_templates(documents) == {"default": "config", **others}
