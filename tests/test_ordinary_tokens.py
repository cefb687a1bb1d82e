"""A role for a token that text is made of: transformers then cuts it out of every text, and the plan says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import making
import pytest
from tokenizers import Tokenizer

from tokmigrate.commands.plan import plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.operations.operation import RiskLevel


@pytest.mark.parametrize(
    "operation",
    [
        {"set_padding": {"token": "in"}},
        {"set_special_tokens": {"mask": "in"}},
        {"set_special_tokens": {"additional": ["in"]}},
        {"add_role_tokens": {"roles": {"user": making.BOS}, "end": "in", "existing": "reuse"}},
    ],
)
def test_a_word_with_a_role_changes_tokenization_and_is_reported(operation: dict[str, Any], tmp_path: Path) -> None:
    making.llama(tmp_path / "model")
    made = making.workspace(tmp_path, {"model": tmp_path / "model"}, [{"operations": [operation]}])
    before = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json")).encode("ing").tokens
    (effect,) = plan(made.workspace, made.entry("model")).steps[0].effects
    upgrade(made.workspace, made.entry("model"))
    library = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    library.no_padding()
    assert library.encode("ing").tokens == ["in", "g"] != before
    assert effect.risk.level is RiskLevel.CAUTION
    assert "'in'" in effect.risk.reason
    assert "tokenized differently" in effect.risk.reason


def test_a_special_token_with_a_role_is_safe(tmp_path: Path) -> None:
    making.llama(tmp_path / "model")
    padding = {"set_padding": {"token": making.BOS}}
    made = making.workspace(tmp_path, {"model": tmp_path / "model"}, [{"operations": [padding]}])
    (effect,) = plan(made.workspace, made.entry("model")).steps[0].effects
    assert effect.risk.level is RiskLevel.SAFE
