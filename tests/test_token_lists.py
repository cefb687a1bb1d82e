"""Lists of tokens in files, and lists of tokens that stay."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from learning import CODE, PROSE, tokenize
from random_bpe import random_bpes
from shared_models import SharedModel, shared_model

from tokmigrate.errors import FileProblems, OperationError
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.operations.rename_tokens import RenameTokens
from tokmigrate.operations.token_closure import MergeTrees
from tokmigrate.operations.token_lists import read_tokens

REAL = ["phi-2-small", "mistral-chat-small", "oromo-t5", "bert-base-uncased"]


def keep_most_frequent(model: SharedModel, most: int, text: str) -> list[str]:
    """Write the most frequent tokens of a text to `keep.json`."""
    library = model.library()
    counts = Counter(number for each in library.encode_batch(text.splitlines()) for number in each.ids)
    kept = [library.id_to_token(number) for number, _ in counts.most_common(most)]
    (model.root / "migrations" / "keep.json").write_text(json.dumps(kept), "utf-8")
    return kept


KEEP = "- remove_tokens: {keep_file: keep.json, closure: keep, ids: compact, shrink: exact, acknowledge: breaking}"


@pytest.mark.parametrize("name", REAL)
def test_text_of_kept_tokens_is_tokenized_as_before(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path, name)
    before, library = model.bytes(), model.library()
    kept = keep_most_frequent(model, 1_500, CODE)
    model.migrate(KEEP)
    after = model.library()
    ids = after.get_vocab(with_added_tokens=True)
    assert set(kept) <= ids.keys()
    assert sorted(ids.values()) == list(range(len(ids)))
    assert {len(rows) for rows in model.rows().values()} == {len(ids)}
    lines = [*CODE.splitlines(), *PROSE.splitlines()]
    old, new = tokenize(library, lines), tokenize(after, lines)
    same = [number for number, tokens in enumerate(old) if ids.keys() >= set(tokens)]
    assert len(same) > len(lines) / 5
    assert [old[number] for number in same] == [new[number] for number in same]
    model.down()
    assert model.bytes() == before


@pytest.mark.parametrize("name", REAL[:2])
def test_without_closure_missing_parts_are_an_error(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path, name)
    before = model.bytes()
    keep_most_frequent(model, 1_500, CODE)
    with pytest.raises(OperationError) as caught:
        model.migrate(KEEP.replace("closure: keep, ", ""))
    assert caught.value.hint
    assert model.bytes() == before


def test_a_list_in_a_file_is_a_list_in_the_migration(tmp_path: Path) -> None:
    name = REAL[0]
    listed, filed, in_json = (shared_model(tmp_path / kind, name) for kind in ("list", "txt", "json"))
    tokens = [token for token, number in listed.library().get_vocab().items() if 900 < number < 930]
    flags = "ids: tombstone, with: unreachable, acknowledge: breaking"
    (filed.root / "migrations" / "drop.txt").write_text("".join(f"{token}\n" for token in tokens), "utf-8")
    (in_json.root / "migrations" / "drop.json").write_text(json.dumps(tokens), "utf-8")
    listed.migrate(f"- remove_tokens: {{tokens: {json.dumps(tokens)}, {flags}}}")
    filed.migrate(f"- remove_tokens: {{tokens_file: drop.txt, {flags}}}")
    in_json.migrate(f"- remove_tokens: {{tokens_file: drop.json, {flags}}}")
    stamps = [each.bytes().pop("tokmigrate.json") for each in (listed, filed, in_json)]
    assert len(set(stamps)) == 3
    assert len({each.library().to_str() for each in (listed, filed, in_json)}) == 1


OPERATIONS = {
    "add_tokens": "- add_tokens: {tokens_file: new.txt}",
    "reinit_tokens": "- add_tokens: {tokens_file: new.txt}\n- reinit_tokens: {tokens_file: new.txt}",
    "set_token_flags": "- add_tokens: {tokens_file: new.txt}\n- set_token_flags: {tokens_file: new.txt, special: true}",
}


@pytest.mark.parametrize("operations", OPERATIONS.values(), ids=OPERATIONS)
def test_each_operation_on_a_list_reads_a_file(tmp_path: Path, operations: str) -> None:
    model = shared_model(tmp_path, REAL[0])
    before = model.bytes()
    (tmp_path / "migrations" / "new.txt").write_text("<|a|>\n# b\n", "utf-8")
    model.migrate(operations)
    assert {"<|a|>", "# b"} <= model.library().get_vocab(with_added_tokens=True).keys()
    model.down()
    assert model.bytes() == before


@pytest.mark.parametrize("operation", ["rename_tokens", "move_tokens"])
def test_a_mapping_in_a_file_is_one_in_the_migration(tmp_path: Path, operation: str) -> None:
    listed, filed = (shared_model(tmp_path / kind, "gpt2-chatml") for kind in ("list", "json"))
    first, before = listed.library().get_vocab_size(), filed.bytes()
    held, more = (
        ({"<|a|>": first + 1, "# b": first}, ", acknowledge: breaking")
        if operation == "move_tokens"
        else ({"<|a|>": "<|c|>", "# b": "two\nlines"}, "")
    )
    (filed.root / "migrations" / "map.json").write_text(json.dumps(held), "utf-8")
    for model, field in ((listed, f"tokens: {json.dumps(held)}"), (filed, "tokens_file: map.json")):
        model.migrate(f'- add_tokens: ["<|a|>", "# b"]\n- {operation}: {{{field}{more}}}')
    assert listed.library().to_str() == filed.library().to_str()
    wanted = held if operation == "move_tokens" else dict(zip(held.values(), (first, first + 1), strict=True))
    assert listed.library().get_vocab().items() >= wanted.items()
    filed.down()
    assert filed.bytes() == before


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('{"a": "b", "a": "c"}', 2, "'a' is in line 1 already"),
        ('{"a": "b", "": "c"}', 2, "the line is empty"),
        ('{"a": "b", "c": ""}', 2, "at least 1"),
        ('{"a": "b", "c": {"d": 1}}', 2, "text"),
        ("{}", 1, "lists nothing"),
        ('["a", "b"]', 1, "mapping"),
        ('{"a" "b"}', 1, "no JSON"),
    ],
)
def test_a_fault_in_a_mapping_names_its_place(text: str, line: int, message: str) -> None:
    with pytest.raises(FileProblems, match=message) as caught:
        RenameTokens(tokens_file="map.json").with_listed({"map.json": text.encode()})
    assert str(caught.value).startswith(f"map.json:{line}:")


def test_a_long_mapping_moves_into_a_file() -> None:
    operation = RenameTokens(tokens={f"<{n}>": f"<<{n}>>" for n in range(60)})
    named, files = operation.with_files("0007_names")
    assert (named.tokens_file, named.tokens) == ("0007_names.tokens.json", operation.tokens)
    assert json.loads(files["0007_names.tokens.json"]) == operation.tokens


def test_a_changed_file_is_a_changed_migration(tmp_path: Path) -> None:
    model = shared_model(tmp_path, REAL[0])
    file = tmp_path / "migrations" / "new.txt"
    file.write_text("<|a|>\n", "utf-8")
    first = model.planned("- add_tokens: {tokens_file: new.txt}").steps[0].migration.checksum
    file.write_text("<|b|>\n", "utf-8")
    assert model.planned("- add_tokens: {tokens_file: new.txt}").steps[0].migration.checksum != first


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (b"a\n\nb\n", 2, "the line is empty"),
        (b"a\nb\na\n", 3, "'a' is in line 1 already"),
        (b"a\r\nb\r\n", 1, "carriage return"),
        (b"a\n\xff\n", 2, "not UTF-8"),
        (b"", 1, "lists nothing"),
    ],
)
def test_a_fault_in_a_list_names_file_and_line(tmp_path: Path, data: bytes, line: int, message: str) -> None:
    model = shared_model(tmp_path, REAL[0])
    (tmp_path / "migrations" / "new.txt").write_bytes(data)
    with pytest.raises(FileProblems, match=message) as caught:
        model.planned("- add_tokens: {tokens_file: new.txt}")
    assert str(caught.value).startswith(f"migrations/new.txt:{line}:")


@pytest.mark.parametrize(
    "operation",
    [
        "- remove_tokens: {ids: compact, acknowledge: breaking}",
        "- remove_tokens: {tokens: [a], keep_tokens: [b], ids: compact, acknowledge: breaking}",
        "- reinit_tokens: {tokens: [a], tokens_file: new.txt}",
        "- rename_tokens: {in_template: true}",
    ],
)
def test_exactly_one_list_is_given(tmp_path: Path, operation: str) -> None:
    model = shared_model(tmp_path, REAL[0])
    (tmp_path / "migrations" / "new.txt").write_text("a\n", "utf-8")
    with pytest.raises(FileProblems, match="give one of `tokens`"):
        model.planned(operation)


TEXT = st.text(st.characters(codec="utf-8"), min_size=1)


@given(st.lists(TEXT, min_size=1, unique=True))
@example(["\r"])
def test_a_list_is_read_as_it_was_written(tokens: list[str]) -> None:
    assert read_tokens("a.json", json.dumps(tokens).encode()) == tuple(tokens)
    if not tokens[0].startswith("\ufeff") and not {"\r", "\n"}.intersection("".join(tokens)):
        assert read_tokens("a.txt", "\n".join(tokens).encode()) == tuple(tokens)


def test_a_token_without_letters_has_no_parts() -> None:
    affixes = {"continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"}
    vocabulary = {token: number for number, token in enumerate(["a", "##b", "ab", "", "##", "</w>"])}
    model = {"type": "BPE", "vocab": vocabulary, "merges": ["a ##b"], **affixes}
    trees = MergeTrees(Tokenizer({"model": model, "added_tokens": []}))
    assert trees.find_parts({"", "##", "</w>"}) == {"", "##", "</w>"}
    assert trees.find_parts({"ab"}) == {"a", "##b", "ab"}


@given(random_bpes(), st.data(), st.lists(st.text("abc", min_size=1, max_size=14), max_size=30))
def test_parts_are_enough_for_every_text(document: dict[str, Any], data: st.DataObject, texts: list[str]) -> None:
    tokenizer = Tokenizer(document)
    some = data.draw(st.sets(st.sampled_from(sorted(tokenizer.vocabulary)), max_size=6))
    kept = MergeTrees(tokenizer).find_parts({*some, *"abc"})
    merges = [pair for pair in document["model"]["merges"] if {*pair, "".join(pair)} <= kept]
    vocabulary = {token: number for number, token in enumerate(sorted(kept))}
    reduced = {**document, "model": {**document["model"], "vocab": vocabulary, "merges": merges}}
    old, new = (tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", **each})) for each in (document, reduced))
    for text in texts:
        tokens = old.encode(text).tokens
        if kept >= set(tokens):
            assert new.encode(text).tokens == tokens
