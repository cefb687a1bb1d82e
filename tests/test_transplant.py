"""Another model's tokenizer: shared tokens keep their rows, new ones are sums, and every byte comes back."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import WORDS, llama, tokenizer_json, workspace
from real_tokenizers import real
from safetensors.numpy import save_file
from shared_models import SharedModel, shared_model
from test_adapters import Pair, pair
from test_whisper import make as make_whisper
from workspaces import Workspace, image

from tokmigrate.audit.blame import blame_text
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.plan import plan
from tokmigrate.commands.stamp import stamp_model
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import FileProblems, OperationError
from tokmigrate.init.coefficients import StoredWeights, Sum, read_coefficients, write_coefficients
from tokmigrate.init.vector_sums import approximate
from tokmigrate.model.documents.declared import read_declared_roles
from tokmigrate.model.documents.reading import read_tokenizer_files
from tokmigrate.model.documents.state import Made
from tokmigrate.model.formats.safetensors_header import encode_header, read_header
from tokmigrate.model.tokenizer.byte_level import letters_of_bytes
from tokmigrate.model.tokenizer.token_meaning import Spelling, match_tokens
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.model.weights.tensor_rows import Geometry, TensorRows
from tokmigrate.model.weights.undertrained import find_undertrained
from tokmigrate.plan.token_changes import TokenChange
from tokmigrate.revision.history import History
from tokmigrate.vocabulary.row_edit import Side

MEAN = "- transplant: {tokenizer: donor, init: {strategy: mean}, template: donor, acknowledge: breaking}"
SUMS = "- transplant: {tokenizer: donor, coefficients: c.safetensors, template: donor, acknowledge: breaking}"
END = "<|endoftext|>"
CHATML = {"bos": "<|im_start|>", "eos": "<|im_end|>", "unk": "<|endoftext|>"}
ROLES = dict.fromkeys(("bos", "eos", "unk"), END)
SMALL = tokenizer_json(specials=(END,), words=("zebra", "quagga", "\u0120zebra", *WORDS[2:]))
WEIGHTS = st.floats(-4, 4, width=32)


def give(model: SharedModel, source: Path | None = None, changes: Mapping[str, Any] = {}) -> Tokenizer:
    """Put a tokenizer beside the migrations, by default a small one, with other settings, and return it."""
    folder = model.root / "migrations" / "donor"
    folder.mkdir()
    settings: dict[str, Any] = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    if source is None:
        (folder / "tokenizer.json").write_text(json.dumps(SMALL), "utf-8")
    else:
        for name, data in read_tokenizer_files(source).items():
            (folder / name).write_bytes(data)
        settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **changes}), "utf-8")
    return Tokenizer(json.loads((folder / "tokenizer.json").read_text("utf-8")))


def tokenizer_of(model: SharedModel) -> Tokenizer:
    return Tokenizer(model.json("tokenizer.json"))


def write_sums(model: SharedModel, new: Tokenizer, said: Mapping[str, Any] = {}) -> dict[int, Sum]:
    """Write coefficients for all tokens that get no row of the model, and return them."""
    old = tokenizer_of(model)
    match = match_tokens(old, new, CHATML, ROLES)
    kept = {row: number for number, row in reversed(match.items())}
    left = sorted(number for number in new.texts if kept.get(match.get(number, -1)) != number)
    terms: dict[int, Sum] = {}
    for n in left:
        size = 1 + n % 3
        terms[n] = ([n % 97, 300 + n % 89, 500 + n % 7][:size], [0.5, -1.25, 0.75][:size])
    data = write_coefficients({"input": terms}, old.texts, {"donor": new.fingerprint, **said})
    (model.root / "migrations" / "c.safetensors").write_bytes(data)
    return terms


@pytest.fixture
def model(tmp_path: Path) -> SharedModel:
    return shared_model(
        tmp_path, "gpt2-chatml", {"generation_config.json": {"eos_token_id": [2, 0], "bos_token_id": 1}}
    )


@pytest.mark.parametrize("donor", ["phi-2-small", "mistral-chat-small"])
def test_shared_tokens_keep_their_rows_and_all_comes_back(model: SharedModel, donor: str) -> None:
    before, old, was = model.bytes(), tokenizer_of(model), model.rows()
    new = give(model, real(donor))
    model.migrate(MEAN)
    now = model.rows()
    for word in ("the", "that", "model", "x"):
        for mark, text in (("", word), ("\u0120", f" {word}")):
            spelled = text.replace(" ", "\u2581" if donor == "mistral-chat-small" else "\u0120")
            if mark + word in old.ids and spelled in new.ids:
                for name in was:
                    assert (was[name][old.ids[mark + word]] == now[name][new.ids[spelled]]).all()
    end = new.ids["<|endoftext|>"]
    assert (now["lm_head.weight"][end] == was["lm_head.weight"][old.ids["<|im_end|>"]]).all()
    assert {len(rows) for rows in now.values()} == {new.highest + 1} == {model.json("config.json")["vocab_size"]}
    assert model.json("config.json")["eos_token_id"] == end
    assert model.json("generation_config.json")["eos_token_id"] == [end]
    settings = model.json("tokenizer_config.json")
    assert settings["model_max_length"] == 131072
    assert "chat_template" not in settings or "<|im_start|>" not in settings["chat_template"]
    model.down()
    assert model.bytes() == before


def test_a_second_spelling_of_a_token_is_a_copy(model: SharedModel) -> None:
    old, was = tokenizer_of(model), model.rows()
    new = give(model, real("mistral-chat-small"))
    model.migrate(MEAN)
    rows = model.rows()["lm_head.weight"]
    letter, byte = new.ids["A"], new.ids["<0x41>"]
    assert (rows[letter] == rows[byte]).all()
    assert (rows[letter] == was["lm_head.weight"][old.ids["A"]]).all()
    assert (rows[new.ids["<0xE2>"]] == was["lm_head.weight"][old.ids[letters_of_bytes(b"\xe2")]]).all()


def test_a_token_at_an_id_with_a_new_row_is_not_a_renamed_one(model: SharedModel) -> None:
    old, new = tokenizer_of(model), give(model)
    model.write(MEAN)
    changes = plan(model.workspace, model.entry).tokens
    for change in changes:
        if change.old_token is not None and change.token is not None:
            assert change.row == "kept"
    assert {change.token for change in changes if change.old_token is None} >= {"zebra", "quagga"}
    upgrade(model.workspace, model.entry)
    renamed = {event.old_token: event.token for event in model.events() if event.event == "renamed"}
    assert not renamed
    added = {event.token for event in model.events() if event.event == "added"}
    assert added == {token for token in new.ids if token not in old.ids}


def test_a_row_that_stays_under_another_spelling_is_that_of_a_renamed_token(model: SharedModel) -> None:
    old, new = tokenizer_of(model), give(model, real("mistral-chat-small"))
    model.write(MEAN)
    folder = model.root / "migrations" / "donor"
    documents = {path.name: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
    match = match_tokens(old, new, CHATML, read_declared_roles(documents))
    the = TokenChange("\u2581the", new.ids["\u2581the"], "\u0120the", old.ids["\u0120the"], "kept", "kept")
    assert the in plan(model.workspace, model.entry).tokens
    upgrade(model.workspace, model.entry)
    events = model.events()
    renamed = {event.old_token: event for event in events if event.event == "renamed"}
    for was, event in renamed.items():
        assert match[new.ids[event.token]] == old.ids[was] == event.old_id
        assert (event.token_id, event.init) == (new.ids[event.token], None)
    assert renamed["\u0120the"].token == "\u2581the"
    gone = {token for token in old.ids if token not in new.ids}
    removed = {event.token for event in events if event.event == "removed"}
    assert removed == gone - renamed.keys()
    # A letter for a byte is also a character of the new one: what had that byte's row is new under another text.
    added = {event.token for event in events if event.event == "added"}
    assert added == new.ids.keys() - old.ids.keys() - {event.token for event in renamed.values()}
    kept = {row for number, row in match.items() if new.texts[number] not in old.ids and old.texts[row] in gone}
    assert {old.texts[row] for row in kept} == renamed.keys()
    (blamed,) = blame_text(model.workspace, [model.entry], "\u2581the")
    assert [(token.names, token.added) for token in blamed.tokens] == [(("\u0120the", "\u2581the"), False)]
    assert "transplant" in str(blamed.tokens[0].events[0].location.does)
    model.down()
    reverted = {event.old_token: event for event in model.events() if event.event == "reverted"}
    assert reverted["\u2581the"].token == "\u0120the"


def test_new_rows_are_the_sums_of_the_file(model: SharedModel) -> None:
    was = model.rows()
    terms = write_sums(model, give(model))
    model.migrate(SUMS)
    for name, rows in model.rows().items():
        for number in terms:
            sources, weights = terms[number]
            wanted = np.array(weights) @ was[name][[*sources]].astype(np.float64)
            assert np.allclose(rows[number], wanted, rtol=1e-6, atol=1e-7)


def test_coefficients_may_lie_in_the_directory_of_the_tokenizer(model: SharedModel) -> None:
    new = give(model)
    write_sums(model, new)
    (model.root / "migrations" / "c.safetensors").rename(model.root / "migrations" / "donor" / "c.safetensors")
    model.migrate(SUMS.replace("c.safetensors", "donor/c.safetensors"))
    assert tokenizer_of(model).ids == new.ids
    assert not (model.directory / "c.safetensors").exists()


def test_one_run_gives_what_many_runs_give(tmp_path: Path) -> None:
    ends = []
    for name in ("fused", "stepwise"):
        model = shared_model(tmp_path / name, "gpt2-chatml")
        new = give(model)
        model.write("- add_tokens: {tokens: ['<new>'], init: {strategy: mean_cov, scale: 1}}")
        if name == "stepwise":
            upgrade(model.workspace, model.entry)
        write_sums(model, new)
        model.write(SUMS)
        if name == "stepwise":
            upgrade(model.workspace, model.entry)
        model.write("- add_tokens: {tokens: ['<last>']}")
        upgrade(model.workspace, model.entry)
        ends.append(model.bytes())
    assert ends[0] == ends[1]


DONOR = tokenizer_json(words=("zebra", "quagga", *WORDS[2:]))


def give_sums(both: Pair) -> tuple[Tokenizer, list[int]]:
    """Write a migration to the tokenizer `DONOR` with sums for its new tokens; return it and their ids."""
    old, new = Tokenizer(json.loads((both.model / "tokenizer.json").read_text("utf-8"))), Tokenizer(DONOR)
    both.write({"transplant": {"tokenizer": "donor", "coefficients": "c.safetensors", "acknowledge": "breaking"}})
    folder = both.root / "migrations"
    (folder / "donor").mkdir()
    (folder / "donor" / "tokenizer.json").write_text(json.dumps(DONOR), "utf-8")
    shutil.copy(both.model / "tokenizer_config.json", folder / "donor")
    left = [number for number, text in new.texts.items() if text not in old.ids]
    terms: dict[int, Sum] = {number: ([5, 40], [0.5, -2.0]) for number in left}
    data = write_coefficients({"input": terms}, old.texts, {"donor": new.fingerprint})
    (folder / "c.safetensors").write_bytes(data)
    return new, left


def test_factors_of_an_adapter_are_the_same_sums(tmp_path: Path) -> None:
    both = pair(tmp_path, {"target_modules": ["embed_tokens", "lm_head"]})
    before = image(both.adapter)
    was = merged_rows(both)
    old = Tokenizer(json.loads((both.model / "tokenizer.json").read_text("utf-8")))
    new, left = give_sums(both)
    upgrade(both.workspace, both.entry)
    for rows, held in zip(merged_rows(both), was, strict=True):
        assert left
        wanted = 0.5 * held[5] - 2.0 * held[40]
        torch.testing.assert_close(rows[left], wanted.expand(len(left), -1), rtol=1e-4, atol=1e-5)
        assert torch.equal(rows[new.ids["\u0120the"]], held[old.ids["\u0120the"]])
    downgrade(both.workspace, both.entry, "base")
    assert image(both.adapter) == before


def merged_rows(both: Pair) -> tuple[torch.Tensor, torch.Tensor]:
    merged = both.loaded().merge_and_unload()
    return merged.get_input_embeddings().weight.detach(), merged.get_output_embeddings().weight.detach()


def test_ids_that_an_adapter_trains_follow_their_tokens(tmp_path: Path) -> None:
    old = tokenizer_json()["model"]["vocab"]
    both = pair(tmp_path, {"target_modules": ["q_proj"], "trainable_token_indices": [old["\u0120the"], 9]})
    new, _ = give_sums(both)
    upgrade(both.workspace, both.entry)
    config = json.loads((both.adapter / "adapter_config.json").read_text("utf-8"))
    assert config["trainable_token_indices"] == [new.ids["\u0120the"], 9]
    assert new.ids["\u0120the"] != old["\u0120the"]


def test_a_stamp_knows_the_rows_that_it_made(model: SharedModel) -> None:
    terms = write_sums(model, give(model))
    model.migrate(SUMS)
    upgraded, stamped = model.stamp_again()
    made = {row for row, recipe in stamped.rows.recipes() if isinstance(recipe, Made)}
    assert made == {row for row, _ in upgraded.rows.recipes()} == terms.keys()


def test_a_stamp_without_coefficients_is_refused(model: SharedModel) -> None:
    give(model)
    model.migrate(MEAN)
    model.forget()
    with pytest.raises(OperationError, match="which rows it initialised cannot be seen"):
        stamp_model(model.workspace, model.entry, "head")


def test_the_checksum_covers_each_file_of_the_directory(model: SharedModel) -> None:
    give(model)
    model.write(MEAN)
    (first,) = History.read(model.workspace).migrations
    assert {*first.attachments} == {"donor/tokenizer.json", "donor/tokenizer_config.json"}
    (model.root / "migrations" / "donor" / "README.md").write_text("no part of a tokenizer", "utf-8")
    assert History.read(model.workspace).migrations[0].checksum == first.checksum
    (model.root / "migrations" / "donor" / "added_tokens.json").write_text("{}", "utf-8")
    assert History.read(model.workspace).migrations[0].checksum != first.checksum


@pytest.mark.parametrize(
    ("operations", "changes", "words"),
    [
        (
            MEAN,
            {"bos_token": None, "eos_token": "<|endoftext|>"},
            "no token for the role 'bos', which '<|im_start|>' has",
        ),
        (MEAN.replace("template: donor, ", ""), {}, "the chat template has '<|im_start|>'"),
        (MEAN.replace("acknowledge: breaking", "coefficients: c.safetensors, acknowledge: breaking"), {}, "not both"),
        (MEAN.replace("tokenizer: donor", "tokenizer: none"), {}, "none"),
    ],
)
def test_what_is_refused(model: SharedModel, operations: str, changes: dict[str, Any], words: str) -> None:
    give(model, changes=changes)
    before = model.bytes()
    with pytest.raises((OperationError, FileProblems), match=re.escape(words)):
        model.migrate(operations)
    assert model.bytes() == before


def test_coefficients_for_another_tokenizer_are_refused(tmp_path: Path) -> None:
    made = shared_model(tmp_path / "one", "gpt2-chatml")
    write_sums(made, give(made))
    other = shared_model(tmp_path / "two", "mistral-chat-small")
    for name in ("donor", "c.safetensors"):
        (shutil.copytree if name == "donor" else shutil.copy)(
            made.root / "migrations" / name, other.root / "migrations" / name
        )
    with pytest.raises(OperationError, match="are for another tokenizer"):
        other.migrate(SUMS)
    shutil.rmtree(made.root / "migrations" / "donor")
    give(made, real("mistral-chat-small"))
    with pytest.raises(OperationError, match="are not those of the tokenizer in donor"):
        made.migrate(SUMS)


def test_a_token_without_coefficients_is_named(model: SharedModel) -> None:
    new = give(model)
    terms = write_sums(model, new)
    last = max(terms)
    del terms[last]
    data = write_coefficients({"input": terms}, tokenizer_of(model).texts, {"donor": new.fingerprint})
    (model.root / "migrations" / "c.safetensors").write_bytes(data)
    with pytest.raises(OperationError, match=f"no coefficients for 1 token: '{re.escape(new.texts[last])}'"):
        model.migrate(SUMS)


def test_coefficients_of_an_id_without_a_token_are_refused(model: SharedModel) -> None:
    new = give(model)
    data = write_coefficients({"input": {9999: ([1], [1.0])}}, tokenizer_of(model).texts, {"donor": new.fingerprint})
    (model.root / "migrations" / "c.safetensors").write_bytes(data)
    with pytest.raises(OperationError, match="are not those of the tokenizer in donor"):
        model.migrate(SUMS)


@pytest.mark.parametrize("metadata", [{}, *({"tokmigrate": said} for said in ("x", "1", "[]", "{}", '{"format": 1}'))])
def test_a_file_of_something_else_is_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(OperationError, match="c: the file holds no coefficients"):
        read_coefficients("c", encode_header([], metadata, 512))


DRAWN = st.lists(st.tuples(st.integers(0, 99), WEIGHTS), min_size=1).map(lambda pairs: tuple(zip(*pairs, strict=True)))


@given(st.dictionaries(st.integers(0, 10_000), DRAWN, min_size=1))
def test_coefficients_are_read_as_written(terms: dict[int, Any]) -> None:
    texts = {row: str(row) for row in range(100)}
    read = read_coefficients("c", write_coefficients({"input": terms}, texts, {"method": "x"}))
    read.check_sources(texts)
    assert read.tokens == tuple(sorted(terms))
    for token, (rows, weights) in terms.items():
        start = read.start("output", token, range(100))
        assert isinstance(start.strategy, StoredWeights)
        assert (start.sources, start.strategy.weights) == (rows, np.array(weights, "<f8").tobytes())
    other = read.start("input", read.tokens[0], range(100)).sources[0]
    with pytest.raises(OperationError, match="another tokenizer"):
        read.check_sources({**texts, other: "other"})


def open_rows(path: Path, shape: tuple[int, ...]) -> TensorRows:
    return TensorRows(path, read_header(path).data_start, Geometry.of(shape, "F64", 0), "F64")


def byte_level(texts: Sequence[bytes]) -> Tokenizer:
    document = tokenizer_json(specials=(), words=())
    document["model"]["vocab"] |= {letters_of_bytes(text): 256 + place for place, text in enumerate(texts)}
    return Tokenizer(document)


def pieces(texts: Sequence[str]) -> Tokenizer:
    spelled = [*(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *(text.replace(" ", "\u2581") for text in texts)]
    vocabulary = {text: number for number, text in enumerate(spelled)}
    return Tokenizer({"model": {"type": "BPE", "byte_fallback": True, "vocab": vocabulary, "merges": []}})


TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), min_size=2), unique=True
)


@given(TEXTS)
def test_tokens_match_by_meaning_whatever_their_spelling(texts: list[str]) -> None:
    letters, spelled = byte_level([text.encode() for text in texts]), pieces(texts)
    for old, new in ((letters, spelled), (spelled, letters)):
        match = match_tokens(old, new, {}, {})
        assert match.keys() == new.texts.keys()
        for number, row in match.items():
            meanings = Spelling(old).find_meaning(old.texts[row]), Spelling(new).find_meaning(new.texts[number])
            assert meanings[0] == meanings[1]
    for number, text in letters.texts.items():
        found = Spelling(spelled).find_pieces(Spelling(letters).find_meaning(text) or b"")
        said = b"".join(Spelling(spelled).find_meaning(spelled.texts[each]) or b"" for each in found)
        assert said == Spelling(letters).find_meaning(letters.texts[number])


def test_the_plan_says_what_undo_keeps(model: SharedModel) -> None:
    give(model)
    model.write(MEAN)
    told = Workspace(model.root).run("plan")
    assert told.returncode == 0
    lost = sum(stop - start for start, stop in plan(model.workspace, model.entry).edit.find_lost_rows())
    assert lost
    assert f"{lost:,} rows are replaced or removed" in told.stdout


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_pursuit_finds_a_sum_of_few_atoms_exactly(most: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    # Nearly orthogonal, as few of many dimensions are: then the first atoms are the right ones.
    atoms = random.standard_normal((60, 3_000))
    places = random.permutation(60)[:most]
    weights = random.uniform(0.5, 2.0, most)
    targets = np.array([weights @ atoms[places], 3.0 * atoms[7], np.zeros(3_000)])
    found = list(approximate(targets, atoms, 6))
    assert {*found[0][0].tolist()} == {*places.tolist()}
    for (rows, held), target in zip(found, targets, strict=True):
        assert np.allclose(held @ atoms[rows], target, rtol=0, atol=1e-11)
    assert found[1][0].tolist() == [7]


def test_a_pursuit_takes_the_first_of_equal_atoms_and_leaves_no_more_with_more() -> None:
    random = np.random.default_rng(5)
    atoms = random.standard_normal((40, 16))
    atoms[9] = atoms[3]
    targets = np.concatenate([atoms[3:4] * 2.0, random.standard_normal((20, 16))])
    left = np.inf
    for most in (1, 4, 8, 16, 32):
        found = list(approximate(targets, atoms, most))
        assert found[0][0].tolist() == [3]
        now = float(np.linalg.norm(targets - [held @ atoms[rows] for rows, held in found]))
        assert now <= left * (1 + 1e-12)
        left = now
    assert left < 1e-10


@pytest.mark.parametrize("method", ["omp", "subtokens"])
def test_what_is_learned_is_applied(tmp_path: Path, method: str) -> None:
    donor = shared_model(tmp_path / "donor", "gpt2-chatml", width=32).directory
    model = shared_model(tmp_path / "w", "mistral-chat", width=8)
    old, new = tokenizer_of(model), Tokenizer(json.loads((donor / "tokenizer.json").read_text("utf-8")))
    before, was = model.bytes(), model.rows()
    told = Workspace(model.root).run(
        *("learn", "transplant", "--donor", str(donor), "--method", method, "-k", "5"),
        *("--template", "donor", "-m", "Another tokenizer", "--json"),
    )
    assert told.returncode == 0, told.stdout + told.stderr
    learned = json.loads(told.stdout)
    counts = learned["tokens"]
    assert sum(counts.values()) == len(new.ids)
    assert counts["new"] > 100
    path = Path(learned["coefficients_file"])
    assert path.stat().st_size == learned["bytes_of_coefficients"] < 1_000 + 100 * (counts["new"] + counts["copied"])
    read = read_coefficients("c", path.read_bytes())
    assert (read.said["method"], len(read.tokens)) == (method, counts["new"] + counts["copied"])
    upgrade(model.workspace, model.entry)
    now = model.rows()
    for name, side in SIDES.items():
        for token in read.tokens[::50]:
            start = read.start(side, token, range(len(was[name])))
            assert isinstance(start.strategy, StoredWeights)
            wanted = np.frombuffer(start.strategy.weights, "<f8") @ was[name][[*start.sources]].astype(np.float64)
            assert np.allclose(now[name][token], wanted, rtol=1e-5, atol=1e-5)
    assert (now["lm_head.weight"][new.ids["\u0120the"]] == was["lm_head.weight"][old.ids["\u2581the"]]).all()
    model.down()
    assert model.bytes() == before


SIDES: dict[str, Side] = {"model.embed_tokens.weight": "input", "lm_head.weight": "output"}


def test_rows_like_those_that_are_never_trained_are_undertrained(tmp_path: Path) -> None:
    tokenizer = Tokenizer(SMALL)
    size = tokenizer.highest + 11
    random = np.random.default_rng(3)
    start = random.standard_normal(24)
    values = random.standard_normal((size, 24))
    never = [*range(size - 10, size), *(tokenizer.ids[letters_of_bytes(bytes([octet]))] for octet in (0xC0, 0xFE))]
    hardly = [tokenizer.ids[token] for token in ("z", "q", "\u0120the")]
    values[[*never, *hardly]] = start + 0.01 * random.standard_normal((len(never) + 3, 24))
    values[tokenizer.ids["b"]] = -0.01 * start
    save_file({"rows": values}, tmp_path / "rows.safetensors")
    with open_rows(tmp_path / "rows.safetensors", values.shape) as rows:
        tied, untied = (find_undertrained(rows, tokenizer, are_tied=are_tied) for are_tied in (True, False))
    assert {*never, *hardly} <= tied < untied
    assert tokenizer.ids["b"] in untied - tied
    assert len(untied) < 0.2 * size


def test_a_python_migration_names_the_directory_among_its_files(model: SharedModel) -> None:
    give(model)
    fields = "tokenizer='donor', init={'strategy': 'mean'}, template='donor', acknowledge='breaking'"
    text = "revision = 'aaaaaaaaaaaa'\nfiles = [{files}]\ndef upgrade(op):\n    op.transplant({fields})\n"
    path = model.root / "migrations" / "0001_donor.py"
    path.write_text(text.format(files="", fields=fields), "utf-8")
    with pytest.raises(OperationError, match="does not declare the file 'donor/'"):
        upgrade(model.workspace, model.entry)
    path.write_text(text.format(files="'donor/'", fields=fields), "utf-8")
    upgrade(model.workspace, model.entry)
    assert tokenizer_of(model).ids == Tokenizer(SMALL).ids


@pytest.mark.parametrize("suffix", [".py", ".yaml"])
def test_a_directory_of_a_tokenizer_is_no_list_of_tokens(model: SharedModel, suffix: str) -> None:
    give(model)
    path = model.root / "migrations" / f"0001_donor{suffix}"
    if suffix == ".py":
        text = (
            "revision = 'aaaaaaaaaaaa'\nfiles = ['donor/']\ndef upgrade(op):\n    op.add_tokens(tokens_file='donor/')\n"
        )
        path.write_text(text, "utf-8")
    else:
        model.write(f"{MEAN}\n- add_tokens: {{tokens_file: donor}}")
    with pytest.raises(FileProblems, match="this is a directory and not a file"):
        upgrade(model.workspace, model.entry)


def test_transformers_reads_the_new_tokenizer_and_the_old_one_again(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", dtype="float32")
    before = image(model)
    made = workspace(tmp_path / "w", {"m": model}, [{"operations": [TO_MISTRAL]}])
    shutil.copytree(real("mistral-chat-small"), made.workspace.migrations / "donor")
    upgrade(made.workspace, made.entry("m"))
    settings = json.loads((model / "tokenizer_config.json").read_text("utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    downgrade(made.workspace, made.entry("m"), "base")
    assert image(model) == before


TO_MISTRAL = {
    "transplant": {"tokenizer": "donor", "init": {"strategy": "subtokens"}, "acknowledge": "breaking"},
}


def test_a_tokenizer_without_new_tokens_needs_no_coefficients(model: SharedModel, tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    donor.mkdir()
    document = tokenizer_json(specials=(END,), words=())
    (donor / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    (donor / "tokenizer_config.json").write_text(json.dumps(roles), "utf-8")
    words = ("learn", "transplant", "--donor", str(donor), "--template", "donor", "-m", "Bytes")
    told = Workspace(model.root).run(*words)
    assert told.returncode == 2
    assert "choose --method subtokens" in told.stderr
    told = Workspace(model.root).run(*words, "--method", "subtokens")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "257 tokens keep their rows, 0 get a sum of rows" in told.stdout
    assert not list((model.root / "migrations").glob("*.safetensors"))
    upgrade(model.workspace, model.entry)
    assert tokenizer_of(model).ids == Tokenizer(document).ids


def test_a_model_with_timestamps_is_refused(tmp_path: Path) -> None:
    root = make_whisper(tmp_path).root
    folder = root / "migrations" / "donor"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(json.dumps(SMALL), "utf-8")
    place = Workspace(root)
    place.add_migration(MEAN, after="null")
    told = place.run("plan")
    assert told.returncode == 1
    assert "for a timestamp by its order" in told.stderr
