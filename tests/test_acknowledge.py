"""An operation that breaks a model is applied only where the migration says that this is meant."""

from __future__ import annotations

import pytest
from shared_models import SharedModel, shared_model

from tokmigrate.errors import OperationError
from tokmigrate.operations.operation import RiskLevel
from tokmigrate.revision.history import History
from tokmigrate.revision.yaml_file import yaml_checksum

BREAKING = {
    "- move_tokens: {tokens: {the: 419, and: 1196}}": (
        "- move_tokens: {tokens: {the: 419, and: 1196}, acknowledge: breaking}"
    ),
    "- set_pre_tokenizer: {type: Whitespace}": "- set_pre_tokenizer: {type: Whitespace, acknowledge: breaking}",
    "- set_pre_tokenizer: null": "- set_pre_tokenizer: {pre_tokenizer: null, acknowledge: breaking}",
    "- reinit_tokens: the": "- reinit_tokens: {tokens: the, acknowledge: breaking}",
    '- rename_tokens: {tokens: {"<|im_end|>": "<|end|>"}}': (
        '- rename_tokens: {tokens: {"<|im_end|>": "<|end|>"}, acknowledge: breaking}'
    ),
}
"""Operations that are breaking for `model`, with what the hint says of each."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SharedModel:
    """A model whose chat template names <|im_end|>, and where "the" has id 1196 and "and" 419."""
    return shared_model(tmp_path_factory.mktemp("m"), "gpt2-chatml", {"chat_template.jinja": "x<|im_end|>"})


@pytest.mark.parametrize("operation", BREAKING)
def test_what_is_breaking_has_to_be_acknowledged(model: SharedModel, operation: str) -> None:
    with pytest.raises(OperationError) as raised:
        model.planned(operation)
    name = operation.split()[1].rstrip(":")
    assert raised.value.message.startswith(f"{name} is breaking, and the migration does not acknowledge it: ")
    assert raised.value.where == "migrations/0001_m.yaml:6:5"
    assert "acknowledge: breaking" in str(raised.value.hint)
    (effect,) = model.planned(BREAKING[operation]).steps[0].effects
    assert effect.risk.level is RiskLevel.BREAKING


def test_what_changes_nothing_needs_no_word(model: SharedModel) -> None:
    (effect,) = model.planned("- move_tokens: {tokens: {the: 1196}}").steps[0].effects
    assert effect.risk.level is RiskLevel.SAFE


def test_it_can_be_added_to_a_migration_that_models_have(model: SharedModel) -> None:
    checksums = {}
    for text in [*BREAKING, *BREAKING.values()]:
        path = model.write(text)
        checksums[text] = History.read(model.workspace).chain()[0].checksum
        path.unlink()
    same = {text: checksums[text] == checksums[other] for text, other in BREAKING.items()}
    # A value that stands alone has to be written as a field first, which is another text.
    assert [text for text, is_same in same.items() if not is_same] == [
        "- set_pre_tokenizer: null",
        "- reinit_tokens: the",
    ]


def test_the_checksum_of_a_removal_covers_it_as_ever() -> None:
    fields = {"tokens": ["the"], "ids": "tombstone", "acknowledge": "breaking"}
    content = {"format": "1", "revision": "aaaa0001", "down_revision": None, "operations": [{"remove_tokens": fields}]}
    assert yaml_checksum(content, {}) == "1:28250cff827e18cbaf013637dc17ff6ca5fa28addb6dab668869509f60124fcc"
