"""Tokens that text could produce are never left without a text that produces them, unless the plan says so."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pytest
import tokenizers
from making import llama, tokenizer_json, workspace
from real_tokenizers import real
from shared_models import SharedModel, shared_model

from tokmigrate.commands.plan import plan
from tokmigrate.errors import OperationError
from tokmigrate.model.documents.state import ModelState, Traits
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.operations.operation import Context, RiskLevel
from tokmigrate.operations.remove_tokens import RemoveTokens
from tokmigrate.operations.token_checks import unreachable_tokens
from tokmigrate.plan.steps import Effect
from tokmigrate.vocabulary.ids import AddedToken
from tokmigrate.vocabulary.row_edit import RowEdit

MEANT = {"acknowledge": "breaking"}
LOWERCASE = {"set_normalizer": {"type": "Lowercase"}}
SPLIT = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
PER_LETTER = [SPLIT, LEVEL]


@pytest.fixture(scope="module")
def phi(tmp_path_factory: pytest.TempPathFactory) -> SharedModel:
    return shared_model(tmp_path_factory.mktemp("phi"), "mistral-chat")


def removal(*tokens: str, **fields: Any) -> str:
    value = {"tokens": list(tokens), "ids": "compact", "acknowledge": "breaking", **fields}
    return f"- remove_tokens: {json.dumps(value, ensure_ascii=False)}"


def effect(root: Path, model: Path, *operations: dict[str, Any]) -> Effect:
    made = workspace(root, {"m": model}, [{"operations": list(operations)}])
    return plan(made.workspace, made.entry("m")).steps[0].effects[-1]


def test_a_token_that_only_a_lower_rank_would_reach_is_named(phi: SharedModel) -> None:
    with pytest.raises(OperationError, match="1 other token any more: '▁selfish'") as error:
        phi.planned(removal("▁self"))
    assert "with: unreachable" in str(error.value.hint)


@pytest.mark.parametrize("ids", ["compact", "tombstone"])
def test_it_is_taken_along_and_listed(phi: SharedModel, ids: str) -> None:
    planned = phi.planned(removal("▁self", ids=ids, **{"with": "unreachable"}))
    (found,) = planned.steps[0].effects
    assert "also removes 1 that no text produces without them: '▁selfish'" in found.risk.reason
    assert [fate.old_token for fate in planned.tokens if fate.token is None] == ["▁self", "▁selfish"]


def state_of(document: dict[str, Any]) -> ModelState:
    """The state of a model with this tokenizer.json and nothing else that matters here."""
    rows = max(Tokenizer(document).texts) + 1
    everything = RowEdit.identity(rows)
    documents = {"tokenizer.json": document, "config.json": {"vocab_size": rows}}
    return ModelState(documents, frozenset(), everything, everything, ((0, rows),), False, None, Traits("llama", True))


def without(document: dict[str, Any], tokens: list[str], **fields: Any) -> Tokenizer:
    """The tokenizer after a removal."""
    given = {"tokens": tokens, "ids": "tombstone", "acknowledge": "breaking", **fields}
    return RemoveTokens.model_validate(given).apply(state_of(document), Context("r")).tokenizer


def test_two_tokens_cost_one_look_at_a_large_vocabulary() -> None:
    vocabulary = {f"word{number}": number for number in range(60_000)}
    before = Tokenizer({"model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "word0"}, "added_tokens": []})
    after = before.with_tokens([AddedToken("<|one|>"), AddedToken("<|two|>")])
    states = state_of(dict(before.document)), state_of(dict(after.document))
    started = time.process_time()
    assert unreachable_tokens(*states) == ()
    assert time.process_time() - started < 2.0


def test_what_was_unreachable_before_never_counts() -> None:
    document = tokenizer_json(())
    model = document["model"]
    # The pre-tokenizer parts the one, no merge makes the other.
    model["merges"].append(["the", "Ġa"])
    model["vocab"] |= {"theĠa": 500, "Ġthing": 501}
    left = without(document, ["the"]).vocabulary
    assert {"theĠa", "Ġthing"} <= left.keys()


def test_a_token_that_a_whole_word_gives_stays_reachable() -> None:
    document = tokenizer_json((), words=("Ġthe",))
    with pytest.raises(OperationError, match="'Ġthe'"):
        without(document, ["Ġth"])
    document["model"]["ignore_merges"] = True
    assert "Ġthe" in without(document, ["Ġth"]).vocabulary


def test_a_part_of_a_letter_counts_although_it_is_no_text() -> None:
    # "€" is three bytes; the token of the first two is not a text of its own.
    document = tokenizer_json((), words=("âĤ¬",))
    document["model"]["vocab"] |= {"âĤ¬¬": 500}
    document["model"]["merges"].append(["âĤ¬", "¬"])
    document["model"]["ignore_merges"] = True
    with pytest.raises(OperationError, match="'âĤ¬¬'"):
        without(document, ["âĤ¬"])


def test_a_word_piece_needs_another_to_stand_behind() -> None:
    vocabulary = {"[UNK]": 0, "[A]": 1, "[B]": 2, "a": 3, "##b": 4, "b": 5}
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": vocabulary}
    document = {"added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    model["max_input_chars_per_word"] = 9
    assert "##b" in without(document, ["b"]).vocabulary
    assert "##b" in without(document, ["a"]).vocabulary
    with pytest.raises(OperationError, match="'##b'"):
        without(document, ["a", "b"])


def document_of(name: str) -> dict[str, Any]:
    """A real tokenizer.json, made of vocabulary and merges where there is none."""
    if name == "gpt2":
        made = tokenizers.Tokenizer(
            tokenizers.models.BPE.from_file(str(real(name) / "vocab.json"), str(real(name) / "merges.txt"))
        )
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        document: dict[str, Any] = json.loads(made.to_str())
        return document
    return dict(json.loads((real(name) / "tokenizer.json").read_text("utf-8")))


def reachable(document: dict[str, Any], tokens: list[str]) -> set[str]:
    """Return those of the tokens that the tokenizer's model makes, as the library says."""
    library = tokenizers.Tokenizer.from_str(json.dumps(document))
    return {token for token in tokens if [each.value for each in library.model.tokenize(token)] == [token]}


@pytest.mark.parametrize("name", ["mistral-chat", "phi-2", "gpt2", "gpt2-chatml", "oromo-t5", "bert-base-uncased"])
def test_random_removals_leave_no_token_unreachable(name: str) -> None:
    document = document_of(name)
    state = state_of(document)
    tokens = [token for token in state.tokenizer.vocabulary if token not in state.tokenizer.added]
    chosen = [token for token in tokens if 3 <= len(token) <= 5]
    some = random.Random(name).sample(chosen, 60)  # noqa: S311 - the same ones each time
    after = without(document, some, **{"with": "unreachable"})
    kept = [token for token in tokens if token in after.vocabulary and token not in after.added]
    assert len(kept) > len(tokens) - 3000
    was = reachable(document, kept)
    assert was - reachable(dict(after.document), kept) == set()
    removed = set(tokens) - set(kept) - set(some)
    # What went besides could not have stayed.
    assert not removed & reachable(without(document, [*some, *removed]).document, tokens)


@pytest.mark.parametrize(
    ("operation", "lost"),
    [
        (LOWERCASE, None),
        ({"set_normalizer": {"type": "Replace", "pattern": {"String": "th"}, "content": "d"}}, ["th", "the"]),
        (
            {"set_pre_tokenizer": {"type": "Sequence", "pretokenizers": PER_LETTER, **MEANT}},
            ["th", "the", "in", "re", "on"],
        ),
        ({"add_tokens": {"tokens": [{"content": "nd"}], "init": {"strategy": "mean"}}}, ["and"]),
        ({"set_token_flags": {"tokens": "in", "special": True}}, ["ing"]),
        ({"set_normalizer": "NFC"}, []),
    ],
)
def test_other_operations_count_what_they_lose(tmp_path: Path, operation: dict[str, Any], lost: list[str]) -> None:
    found = effect(tmp_path / "w", llama(tmp_path / "m"), operation)
    if lost is None:
        assert set(found.unreachable) == set(ascii_uppercase)
    else:
        assert [*found.unreachable[: len(lost)]] == lost
    assert ("any more" in found.risk.reason) is (lost != [])
    assert (found.risk.level is RiskLevel.SAFE) <= (lost == [])
