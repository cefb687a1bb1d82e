"""Removed tokens: placeholders or ids that close up, and what stands in the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from making import TOKENS, llama, workspace, write_json
from test_move_tokens import files, ids_of

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import FileProblems, OperationError
from tokmigrate.model.snapshot import take_snapshot


def remove(root: Path, model: Path, *tokens: str, **how: Any) -> Any:
    operation = {"remove_tokens": {"tokens": list(tokens), "acknowledge": "breaking", "ids": "compact", **how}}
    return workspace(root, {"m": model}, [{"operations": [operation]}])


def numbers(value: Any, path: str = "") -> dict[str, int]:
    """Return every number of a JSON document by its place."""
    if isinstance(value, dict):
        parts = [(f"{path}.{name}", item) for name, item in value.items()]
    elif isinstance(value, list):
        parts = [(f"{path}[{place}]", item) for place, item in enumerate(value)]
    else:
        return {path: value} if isinstance(value, int) and not isinstance(value, bool) else {}
    return {place: number for name, item in parts for place, number in numbers(item, name).items()}


@pytest.mark.parametrize("section", ["normalizer", "pre_tokenizer"])
def test_a_letter_for_a_byte_is_never_removed(tmp_path: Path, section: str) -> None:
    model = llama(tmp_path / "m")
    document = json.loads((model / "tokenizer.json").read_text("utf-8"))
    parts = {"normalizer": {"type": "ByteLevel"}, "pre_tokenizer": document["pre_tokenizer"]}
    document |= {"normalizer": None, "pre_tokenizer": None, section: parts[section]}
    write_json(model / "tokenizer.json", document)
    made = remove(tmp_path / "w", model, "z")
    with pytest.raises(OperationError, match="'z' is a letter of the alphabet"):
        upgrade(made.workspace, made.entry("m"))


def test_no_file_holds_an_old_id(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", spare=2)
    ids = ids_of(model)
    last = {"bos_token_id": ids["<s>"], "eos_token_id": [ids["</s>"], ids["Ġand"]]}
    config = json.loads((model / "config.json").read_text())
    nested = {"text_config": {**last, "vocab_size": TOKENS + 2}, "task_specific_params": {"a": {**last}}}
    write_json(model / "config.json", config | last | nested)
    generation = {"suppress_tokens": [ids["Ġto"], ids["ing"]], "bad_words_ids": [[ids["</s>"]], [ids["ing"], 4]]}
    tables = {"lang_to_id": {"<s>": ids["<s>"]}, "forced_decoder_ids": [[1, ids["<s>"]], [2, None]]}
    bias = {"sequence_bias": {f"({ids['</s>']}, {ids['Ġto']})": 2.0}}
    write_json(model / "generation_config.json", last | generation | tables | bias)
    write_json(model / "processor_config.json", {"image_token_id": ids["</s>"], "nested": {"image_token_index": 5}})
    write_json(model / "added_tokens.json", {"<s>": ids["<s>"], "</s>": ids["</s>"]})
    vocab = {token: number for token, number in ids.items() if not token.startswith("<")}
    write_json(model / "vocab.json", dict(sorted(vocab.items(), key=lambda item: item[1])))
    before = files(model)
    made = remove(tmp_path / "w", model, "ing", shrink=True)
    upgrade(made.workspace, made.entry("m"))
    after = files(model)
    assert ids["ing"] < ids["Ġto"] < ids["<s>"]
    for name in (name for name in before if name.endswith(".json")):
        was, now = (numbers(json.loads(held[name])) for held in (before, after))
        # In lists that lost an id, and in tables, the places differ as well.
        for place, number in now.items():
            if place in was and was[place] > ids["ing"] and "suppress" not in place and "added_tokens[" not in place:
                assert number == was[place] - 1, (name, place)
    generation = json.loads(after["generation_config.json"])
    assert generation["suppress_tokens"] == [ids["Ġto"] - 1]
    assert generation["bad_words_ids"] == [[ids["</s>"] - 1]]
    assert generation["sequence_bias"] == {f"({ids['</s>'] - 1}, {ids['Ġto'] - 1})": 2.0}
    assert json.loads(after["config.json"])["text_config"]["vocab_size"] == TOKENS + 1
    assert "ing" not in json.loads(after["vocab.json"])
    downgrade(made.workspace, made.entry("m"), "base")
    assert files(model) == before


@pytest.mark.parametrize(
    ("token", "said"),
    [("</s>", "eos_token"), ("th", "no text produces 1 other token any more: .the."), ("a", "alphabet")],
)
def test_what_is_in_use_stays(tmp_path: Path, token: str, said: str) -> None:
    model = llama(tmp_path / "m")
    before = files(model)
    made = remove(tmp_path / "w", model, token)
    with pytest.raises(OperationError, match=said):
        upgrade(made.workspace, made.entry("m"))
    assert files(model) == before


def test_a_template_keeps_its_tokens(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    (model / "chat_template.jinja").write_text("<s>{{ messages }}", "utf-8")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    del settings["bos_token"]
    write_json(model / "tokenizer_config.json", settings)
    made = remove(tmp_path / "w", model, "<s>", ids="tombstone")
    with pytest.raises(OperationError, match="the chat template"):
        upgrade(made.workspace, made.entry("m"))


def test_it_has_to_be_acknowledged(tmp_path: Path) -> None:
    made = workspace(
        tmp_path / "w",
        {"m": llama(tmp_path / "m")},
        [{"operations": [{"remove_tokens": {"tokens": ["the"], "ids": "compact"}}]}],
    )
    with pytest.raises(FileProblems, match="acknowledge"):
        upgrade(made.workspace, made.entry("m"))


def test_the_population_follows(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", spare=2)
    number = ids_of(model)["the"]
    made = remove(tmp_path / "w", model, "the")
    upgrade(made.workspace, made.entry("m"))
    state = take_snapshot(made.entry("m")).state
    assert state.rows == TOKENS + 2
    # The spare rows of the baseline moved down, and the one made for the removed token is not a part of it.
    assert state.population == ((0, TOKENS - 1),)
    assert [row for row, _ in state.lineage.recipes()] == [TOKENS + 1]
    assert state.lineage.row(number) == number + 1


def test_stepwise_is_fused(tmp_path: Path) -> None:
    removals = [{"tokens": ["the"], "ids": "compact"}, {"tokens": ["ing"], "ids": "compact", "shrink": True}]
    steps = [{"operations": [{"remove_tokens": {**one, "acknowledge": "breaking"}}]} for one in removals]
    steps.append({"operations": [{"add_tokens": {"tokens": ["<new>"], "init": {"strategy": "mean_cov"}}}]})
    once, often = (workspace(tmp_path / f"w{n}", {"m": llama(tmp_path / n, shards=2)}, steps) for n in "ab")
    upgrade(once.workspace, once.entry("m"))
    for revision in often.revisions:
        upgrade(often.workspace, often.entry("m"), revision)
    assert files(tmp_path / "a") == files(tmp_path / "b")
