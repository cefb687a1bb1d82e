"""Whisper's timestamps are the last ids, in order: new tokens stand before them, and all that names them follows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import byte_alphabet, tokenizer_json, write_json
from safetensors.numpy import save_file
from shared_models import SharedModel

from tokmigrate.errors import OperationError
from tokmigrate.operations.operation import RiskLevel

STAMPS = [f"<|{number * 0.02:.2f}|>" for number in range(40)]
LANGUAGES = ["<|en|>", "<|zh|>"]
NAMED = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    *LANGUAGES,
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]
WORD = "- add_tokens: {tokens: [{content: concord, single_word: true}]}"


def make(root: Path, *, spare: int = 0, stamps: bool = True, silence: bool = True) -> SharedModel:
    """Make what of a Whisper matters here; row i of its embeddings holds the number i."""
    names = [name for name in NAMED if silence or name != "<|nospeech|>"]
    document = tokenizer_json([*names, *(STAMPS if stamps else [])], ["the", "Ġand"])
    for entry in document["added_tokens"]:
        entry["special"] = entry["content"] in NAMED
    ids = {entry["content"]: entry["id"] for entry in document["added_tokens"]}
    rows = ids["<|notimestamps|>"] + 1 + len(STAMPS) + spare
    model = root / "m"
    model.mkdir(parents=True)
    (root / "migrations").mkdir()
    write_json(model / "tokenizer.json", document)
    settings = {
        "tokenizer_class": "WhisperTokenizer",
        **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
        "additional_special_tokens": names,
        "added_tokens_decoder": {
            str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
            for entry in document["added_tokens"]
        },
    }
    write_json(model / "tokenizer_config.json", settings)
    last = rows - spare - 1
    config = {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "vocab_size": rows,
        "d_model": 4,
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), ids["<|endoftext|>"]),
        "begin_suppress_tokens": [3, ids["<|endoftext|>"], last],
        "suppress_tokens": [5, ids["<|translate|>"], ids["<|startofprev|>"]],
        "forced_decoder_ids": [[1, ids["<|en|>"]], [2, ids["<|transcribe|>"]], [3, ids["<|notimestamps|>"]]],
    }
    write_json(model / "config.json", config)
    generation = {
        **{key: value for key, value in config.items() if key.endswith(("_id", "_ids", "_tokens"))},
        "lang_to_id": {language: ids[language] for language in LANGUAGES},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("translate", "transcribe")},
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
    }
    write_json(model / "generation_config.json", generation)
    tensor = np.repeat(np.arange(rows, dtype=np.float32)[:, None], 4, axis=1)
    save_file({"model.decoder.embed_tokens.weight": tensor}, model / "model.safetensors", metadata={"format": "pt"})
    (root / "tokmigrate.yaml").write_text("format: 1\nverify: fast\nmodels:\n  m: {path: m}\n", "utf-8")
    return SharedModel(root)


def ids_of(model: SharedModel) -> dict[str, int]:
    return model.library().get_vocab(with_added_tokens=True)


def named(model: SharedModel) -> dict[str, Any]:
    """Return what the configurations name, with texts in the place of ids."""
    texts = {number: token for token, number in ids_of(model).items()}

    def text(held: Any) -> Any:
        if isinstance(held, dict):
            return {name: text(value) for name, value in held.items()}
        return [text(value) for value in held] if isinstance(held, list) else texts.get(held, held)

    fields = ("decoder_start_token_id", "eos_token_id", "begin_suppress_tokens", "suppress_tokens", "lang_to_id")
    more = ("task_to_id", "no_timestamps_token_id", "prev_sot_token_id")
    config, generation = model.json("config.json"), model.json("generation_config.json")
    found = {name: text(generation[name]) for name in (*fields, *more)}
    assert all(text(config[name]) == found[name] for name in fields if name in config)
    for each in (config, generation):
        assert [texts[number] for _, number in each["forced_decoder_ids"]] == [
            "<|en|>",
            "<|transcribe|>",
            "<|notimestamps|>",
        ]
    return found


def check_rows(model: SharedModel, before: dict[str, int]) -> None:
    """Each old token has the row that it had."""
    rows = model.rows()["model.decoder.embed_tokens.weight"]
    assert len(rows) == model.json("config.json")["vocab_size"]
    for token, number in ids_of(model).items():
        if token in before:
            assert set(rows[number]) == {before[token]}, token


def check_order(model: SharedModel) -> None:
    """The timestamps are the last tokens, silence and no timestamps stand right before them, as transformers counts."""
    ids = ids_of(model)
    first = model.json("generation_config.json")["no_timestamps_token_id"] + 1
    assert [ids[stamp] for stamp in STAMPS] == list(range(first, first + len(STAMPS)))
    assert max(ids.values()) == first + len(STAMPS) - 1
    assert ids["<|nospeech|>"] == first - 2
    start = ids["<|startoftranscript|>"]
    languages = model.json("generation_config.json")["lang_to_id"]
    assert [languages[language] for language in languages] == list(range(start + 1, start + 1 + len(languages)))
    # WhisperTokenizer takes the id behind the last special token for the first timestamp.
    assert model.json("tokenizer_config.json")["additional_special_tokens"][-1] == "<|notimestamps|>"
    decoder = model.json("tokenizer_config.json")["added_tokens_decoder"]
    assert {entry["content"]: int(number) for number, entry in decoder.items()} == {
        entry["content"]: entry["id"] for entry in model.json("tokenizer.json")["added_tokens"]
    }


@pytest.mark.parametrize("spare", [0, 1, 5])
def test_new_tokens_stand_before_the_timestamps(tmp_path: Path, spare: int) -> None:
    model = make(tmp_path, spare=spare)
    before, old, said = model.bytes(), ids_of(model), named(model)
    (effect,) = model.planned(WORD).steps[0].effects
    new = {each.token: each.id for each in effect.assigned_ids if each.row != "moved"}
    assert new == {"concord": old["<|nospeech|>"]}
    assert effect.risk.level is RiskLevel.CAUTION
    assert "'<|nospeech|>' and the 41 ids after it move up by 1 as one block" in effect.risk.reason
    model.migrate('- add_tokens: {tokens: [{content: concord, single_word: true}, {content: "<|x|>", special: true}]}')
    ids = ids_of(model)
    assert (ids["concord"], ids["<|x|>"]) == (old["<|nospeech|>"], old["<|nospeech|>"] + 1)
    check_order(model)
    check_rows(model, old)
    assert named(model) == said
    assert model.json("config.json")["vocab_size"] == len(byte_alphabet()) + len(old) - 256 + max(spare, 2)
    assert "concord" in model.library().encode("is concord here").tokens
    model.down()
    assert model.bytes() == before


def test_languages_stand_behind_languages(tmp_path: Path) -> None:
    model = make(tmp_path)
    before, old, said = model.bytes(), ids_of(model), named(model)
    step = '- add_tokens: {tokens: [concord, {content: "<|yue|>", language: true}]}'
    reason = model.planned(step).steps[0].effects[0].risk.reason
    assert "'<|translate|>' and the ids after it move up by 1; '<|nospeech|>' and the 41 ids after it" in reason
    model.migrate(step)
    ids = ids_of(model)
    assert ids["<|yue|>"] == old["<|zh|>"] + 1
    assert ids["concord"] == old["<|nospeech|>"] + 1
    assert model.library().get_added_tokens_decoder()[ids["<|yue|>"]].special
    check_order(model)
    check_rows(model, old)
    assert named(model) == {**said, "lang_to_id": {**said["lang_to_id"], "<|yue|>": "<|yue|>"}}
    model.down()
    assert model.bytes() == before


def test_what_is_no_whisper_has_no_languages(tmp_path: Path) -> None:
    model = make(tmp_path)
    held = model.json("config.json")
    write_json(model.directory / "config.json", {**held, "model_type": "bart", "decoder_start_token_id": 3})
    with pytest.raises(OperationError, match="bart model has no tokens of languages"):
        model.planned('- add_tokens: {tokens: [{content: "<|yue|>", language: true}]}')


def test_role_tokens_stand_before_the_timestamps_too(tmp_path: Path) -> None:
    model = make(tmp_path)
    old = ids_of(model)
    step = '- add_role_tokens: {roles: {user: "<|user|>"}, end: "<|over|>", template: keep}'
    assert "move up by 2" in model.planned(step).steps[0].effects[0].risk.reason
    model.migrate(step)
    check_order(model)
    check_rows(model, old)


def test_where_the_tokenizer_has_no_timestamps_all_rows_behind_are_some(tmp_path: Path) -> None:
    model = make(tmp_path, stamps=False)
    old = ids_of(model)
    model.migrate(WORD)
    assert ids_of(model)["concord"] == old["<|nospeech|>"]
    rows = model.rows()["model.decoder.embed_tokens.weight"][:, 0].tolist()
    first, last = old["<|notimestamps|>"] + 1, old["<|notimestamps|>"] + len(STAMPS)
    assert rows[first + 1 :] == list(map(float, range(first, last + 1)))
    # A timestamp is named by its id alone.
    assert model.json("config.json")["begin_suppress_tokens"][-1] == last + 1
    check_rows(model, old)


def test_without_silence_the_tail_begins_at_no_timestamps(tmp_path: Path) -> None:
    model = make(tmp_path, silence=False)
    old = ids_of(model)
    model.migrate(WORD)
    assert ids_of(model)["concord"] == old["<|notimestamps|>"]
    check_rows(model, old)


def test_spare_rows_stand_for_further_timestamps(tmp_path: Path) -> None:
    planned = make(tmp_path).planned("- resize_vocab: {multiple_of: 64}")
    assert "takes rows after" in planned.steps[0].effects[0].risk.reason


def test_moves_that_keep_the_timestamps_together(tmp_path: Path) -> None:
    model = make(tmp_path, spare=2)
    ids = ids_of(model)
    tail = ["<|nospeech|>", "<|notimestamps|>", *STAMPS]
    together = {"the": ids["<|nospeech|>"], **{token: ids[token] + 1 for token in tail}}
    apart = {STAMPS[3]: ids[STAMPS[4]], STAMPS[4]: ids[STAMPS[3]]}
    behind = {"the": ids[STAMPS[-1]] + 1}
    for moves, is_kept in ((together, True), (apart, False), (behind, False)):
        step = f"- move_tokens: {{acknowledge: breaking, tokens: {json.dumps(moves, ensure_ascii=False)}}}"
        (effect,) = model.planned(step).steps[0].effects
        assert ("by its order" not in effect.risk.reason) is is_kept


def test_a_compaction_takes_the_timestamps_along(tmp_path: Path) -> None:
    model = make(tmp_path)
    old = ids_of(model)
    model.migrate('- remove_tokens: {tokens: ["Ġand"], ids: compact, acknowledge: breaking}')
    check_order(model)
    check_rows(model, old)
    with pytest.raises(OperationError, match="by its order"):
        model.planned(f'- remove_tokens: {{tokens: ["{STAMPS[3]}"], ids: compact, acknowledge: breaking}}')


def test_one_run_and_two_end_alike(tmp_path: Path) -> None:
    made = make(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    stepwise, fused = made, SharedModel(tmp_path / "b")
    second = (
        '- add_tokens: {tokens: [tally, {content: "<|yue|>", language: true, init: {strategy: copy, token: concord}}]}'
    )
    stepwise.migrate(WORD)
    stepwise.migrate(second)
    fused.write(WORD)
    fused.migrate(second)
    assert stepwise.bytes() == fused.bytes()
