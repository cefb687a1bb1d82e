"""Fields of configurations that name tokens by id, set by migrations; and those whose id no token has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import pytest
import transformers
from making import BOS, EOS, TOKENS, Made, write_json

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.plan import plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import FileProblems, OperationError
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.operations.operation import Context
from tokmigrate.operations.set_special_tokens import SetSpecialTokens
from tokmigrate.revision.derivation import derive
from tokmigrate.revision.history import History
from tokmigrate.revision.new_file import dump_written_fields

IMAGE = "<image>"
ID = TOKENS
ADD = {"add_tokens": {"tokens": [{"content": IMAGE, "special": True}]}}
THE = making.tokenizer_json()["model"]["vocab"]["the"]


def made_with(root: Path, files: Mapping[str, Mapping[str, Any]], *operations: Mapping[str, Any]) -> Made:
    """Make a model whose files say more, and one migration."""
    model = making.llama(root / "m")
    for name, fields in files.items():
        path = model / name
        held = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        path.parent.mkdir(exist_ok=True)
        write_json(path, {**held, **fields})
    return making.workspace(root, {"m": model}, [{"operations": [dict(each) for each in operations]}])


def final(made: Made) -> Mapping[str, Any]:
    return plan(made.workspace, made.entry("m")).final.documents


CASES: Mapping[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "index": (
        {"config.json": {"image_token_index": 999}},
        {"image": IMAGE},
        {"config.json": {"image_token_index": ID}},
    ),
    "two names": (
        {
            "config.json": {"image_token_id": 9, "vision_config": {"image_token_id": 9}},
            "processor_config.json": {"image_token": "<img>", "image_token_id": 9},
        },
        {"image": IMAGE},
        {
            "config.json": {"image_token_id": ID, "vision_config": {"image_token_id": ID}},
            "processor_config.json": {"image_token": IMAGE, "image_token_id": ID},
        },
    ),
    "a list keeps its others": (
        {"config.json": {"image_token_ids": [7, 8]}},
        {"image": IMAGE},
        {"config.json": {"image_token_ids": [ID, 7, 8]}},
    ),
    "null": (
        {"config.json": {"boi_token_id": None, "vision_config": {"boi_token_id": None}}},
        {"boi": IMAGE},
        {"config.json": {"boi_token_id": ID, "vision_config": {"boi_token_id": None}}},
    ),
    "generation": (
        {},
        {"decoder_start": EOS, "forced_bos": IMAGE, "forced_eos": BOS},
        {
            "generation_config.json": {
                "decoder_start_token_id": TOKENS - 1,
                "forced_bos_token_id": ID,
                "forced_eos_token_id": TOKENS - 2,
            }
        },
    ),
    "lists": (
        {
            "generation_config.json": {
                "suppress_tokens": [1, 2],
                "begin_suppress_tokens": [1],
                "bad_words_ids": [[1, 2]],
            }
        },
        {
            "suppress_tokens": {"add": [IMAGE], "remove": [making.byte_alphabet()[1]]},
            "begin_suppress_tokens": [IMAGE, EOS],
            "bad_words_ids": {"add": [IMAGE]},
        },
        {
            "generation_config.json": {
                "suppress_tokens": [2, ID],
                "begin_suppress_tokens": [ID, TOKENS - 1],
                "bad_words_ids": [[1, 2], [ID]],
            }
        },
    ),
    "maps": (
        {"generation_config.json": {"lang_to_id": {"<|en|>": 5}, "task_to_id": {"transcribe": 6}}},
        {"lang_to_id": {"add": [IMAGE]}, "task_to_id": {"see": IMAGE}},
        {
            "generation_config.json": {
                "lang_to_id": {"<|en|>": 5, IMAGE: ID},
                "task_to_id": {"transcribe": 6, "see": ID},
            }
        },
    ),
    "positions": (
        {"config.json": {"forced_decoder_ids": [[1, 3]]}},
        {"forced_decoder_ids": [BOS, IMAGE]},
        {"config.json": {"forced_decoder_ids": [[1, TOKENS - 2], [2, ID]]}},
    ),
    "the name of a field": (
        {"config.json": {"image_token_index": 3, "video_token_index": 3}},
        {"video_token_index": IMAGE},
        {"config.json": {"image_token_index": 3, "video_token_index": ID}},
    ),
    "what another model counts stays": (
        {"config.json": {"image_token_id": 3, "talker_config": {"vocab_size": 17, "image_token_id": 3}}},
        {"image": IMAGE},
        {"config.json": {"image_token_id": ID, "talker_config": {"vocab_size": 17, "image_token_id": 3}}},
    ),
    "the text in tokenizer_config.json": (
        {"config.json": {"image_token_id": 3}, "tokenizer_config.json": {"extra_special_tokens": {"image_token": BOS}}},
        {"image": IMAGE},
        {
            "config.json": {"image_token_id": ID},
            "tokenizer_config.json": {"extra_special_tokens": {"image_token": IMAGE}},
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_fields_are_set(tmp_path: Path, case: str) -> None:
    files, fields, expected = CASES[case]
    made = made_with(tmp_path, files, ADD, {"set_special_tokens": fields})
    reached = final(made)
    for name, held in expected.items():
        assert {key: reached[name].get(key) for key in held} == held
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    upgrade(made.workspace, made.entry("m"))
    downgrade(made.workspace, made.entry("m"), "base")
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before


def test_what_transformers_takes_by_default_is_written(tmp_path: Path) -> None:
    state = take_snapshot(made_with(tmp_path, {}).entry("m")).state
    # config.json of a LLaVA need not say image_token_index: transformers takes 32000 then.
    llava = replace(state, traits=replace(state.traits, model_type="llava"))
    llava = llava.with_value("config.json", ("model_type",), "llava")
    reached = SetSpecialTokens.model_validate({"image": BOS}).apply(llava, Context("aaaa0001"))
    assert reached.documents["config.json"]["image_token_index"] == TOKENS - 2


def test_an_ordinary_word_stays_one(tmp_path: Path) -> None:
    files = {"config.json": {"yes_token_index": 3}}
    made = made_with(tmp_path, files, {"set_special_tokens": {"yes": "the"}})
    reached = final(made)
    assert reached["config.json"]["yes_token_index"] == THE
    assert "the" not in {entry["content"] for entry in reached["tokenizer.json"]["added_tokens"]}


def test_a_declared_field_is_set(tmp_path: Path) -> None:
    made = made_with(tmp_path, {"config.json": {"whistle_token": 3}}, {"set_special_tokens": {"whistle_token": BOS}})
    with pytest.raises(OperationError, match="no configuration of this model has a field that names the whistle_token"):
        final(made)
    making.say_of(made.root, "m", id_fields={"whistle_token": "ids"})
    assert made.run("upgrade").returncode == 0
    assert json.loads((tmp_path / "m" / "config.json").read_text("utf-8"))["whistle_token"] == TOKENS - 2


@pytest.mark.parametrize(
    ("fields", "error", "words", "hint"),
    [
        ({"imagee": IMAGE}, FileProblems, "unknown field 'imagee'", "image"),
        (
            {"video": BOS},
            OperationError,
            "no configuration of this model has a field that names the video token",
            "image",
        ),
        ({"suppress_tokens": BOS}, OperationError, "'suppress_tokens' holds a list", ""),
        ({"image": {"see": BOS}}, OperationError, "'image_token_id' holds one token", ""),
        ({"image": "<nothing>"}, OperationError, "'<nothing>' is not a token", ""),
        ({"sequence_bias": [BOS]}, FileProblems, "unknown field 'sequence_bias'", ""),
        ({"additional": {}}, FileProblems, "gives `add` or `remove`", ""),
        ({}, OperationError, "names no token", ""),
    ],
)
def test_what_is_refused(tmp_path: Path, fields: dict[str, Any], error: Any, words: str, hint: str) -> None:
    files = {"config.json": {"image_token_id": 3}}
    with pytest.raises(error) as raised:
        final(made_with(tmp_path, files, {"set_special_tokens": fields}))
    assert words in str(raised.value)
    assert hint in str(raised.value) + str(raised.value.hint)


def listed(document: Any) -> Any:
    return document.get("extra_special_tokens", document.get("additional_special_tokens"))


def test_the_list_of_special_tokens_is_changed_and_kept_in_step(tmp_path: Path) -> None:
    old = {"tokenizer_config.json": {"additional_special_tokens": [EOS]}}
    old["special_tokens_map.json"] = {"additional_special_tokens": [{"content": EOS, "lstrip": False}]}
    more = {"add_tokens": {"tokens": [{"content": "<x>", "special": True}, "<y>"]}}
    reached = final(made_with(tmp_path / "a", old, more))
    assert reached["tokenizer_config.json"]["additional_special_tokens"] == [EOS, "<x>"]
    assert reached["special_tokens_map.json"]["additional_special_tokens"][1:] == ["<x>"]
    assert final(made_with(tmp_path / "b", {}, more))["tokenizer_config.json"]["extra_special_tokens"] == ["<x>"]
    changed = {"set_special_tokens": {"additional": {"add": ["<y>", BOS], "remove": [EOS]}}}
    reached = final(made_with(tmp_path / "c", old, more, changed))
    assert reached["tokenizer_config.json"]["additional_special_tokens"] == [BOS, "<x>", "<y>"]
    whole = {"set_special_tokens": {"additional": [BOS]}}
    assert listed(final(made_with(tmp_path / "d", old, more, whole))["tokenizer_config.json"]) == [BOS]
    flags = [
        {"set_token_flags": {"tokens": "<y>", "special": True}},
        {"set_token_flags": {"tokens": "<x>", "special": False}},
    ]
    assert listed(final(made_with(tmp_path / "e", {}, more, *flags))["tokenizer_config.json"]) == ["<y>"]
    named = {"tokenizer_config.json": {"extra_special_tokens": {"image_token": BOS}}}
    reached = final(made_with(tmp_path / "f", named, more))["tokenizer_config.json"]
    assert reached["extra_special_tokens"] == {"image_token": BOS}
    assert reached["additional_special_tokens"] == ["<x>"]


def test_lint_and_check_warn_of_an_id_without_token(tmp_path: Path) -> None:
    files = {"config.json": {"image_token_index": TOKENS + 9, "suppress_tokens": [-1, 3]}}
    made = made_with(tmp_path, files, ADD)
    said = f"config.json: 'image_token_index' holds {TOKENS + 9}, which no token has, and has no row"
    linted = made.run("lint")
    assert f"TM308 warning: {said}" in linted.stdout
    assert "set_special_tokens: {image: …}" in linted.stdout
    assert made.run("upgrade").returncode == 0
    checked = made.run("check")
    assert checked.returncode == 0
    assert f"warning: {said}" in checked.stdout
    assert json.loads(made.run("check", "--json").stdout)["models"][0]["notes"] == [said]


def test_it_is_written_squashed_and_derived_again(tmp_path: Path) -> None:
    files = {"config.json": {"image_token_id": 3}, "generation_config.json": {"suppress_tokens": [1]}}
    fields = {"image": IMAGE, "suppress_tokens": {"add": [IMAGE]}}
    made = made_with(tmp_path, files, ADD, {"set_special_tokens": fields})
    state = take_snapshot(made.entry("m")).state
    derived = derive(state, final(made), "aaaa0001")
    assert derived.operations[-2:] == [
        SetSpecialTokens.model_validate({"image": IMAGE}),
        SetSpecialTokens.model_validate({"suppress_tokens": [making.byte_alphabet()[1], IMAGE]}),
    ]
    chain = History.read(made.workspace).chain()
    (_, setting) = (planned.operation for planned in chain[0].operations)
    assert dump_written_fields(setting) == fields
    footprint = setting.footprint()
    assert footprint is not None
    assert footprint.writes == {"the id field 'image'", "the id field 'suppress_tokens'"}
    assert footprint.reads == {"the token '<image>'"}


def test_a_list_that_only_the_map_has_is_kept(tmp_path: Path) -> None:
    more = {"add_tokens": {"tokens": [{"content": "<x>", "special": True}]}}
    made = made_with(tmp_path, {"special_tokens_map.json": {"additional_special_tokens": [EOS]}}, more)
    upgrade(made.workspace, made.entry("m"))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        held = json.loads((tmp_path / "m" / name).read_text("utf-8"))
        assert held["additional_special_tokens"] == [EOS, "<x>"]
        assert "extra_special_tokens" not in held
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    assert loaded.extra_special_tokens == [EOS, "<x>"]
