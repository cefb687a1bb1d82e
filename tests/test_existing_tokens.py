"""Tokens that a model has already, and that a migration adds or gives a role."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import making
import pytest
from making import BOS, EOS, TOKENS
from tokenizers import Tokenizer
from workspaces import Workspace

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.plan import plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import OperationError
from tokmigrate.operations.operation import RiskLevel

OWN = ("<|im_start|>", "<|im_end|>")


def base(directory: Path) -> Path:
    """Make a model that has ChatML's tokens of its own."""
    making.llama(directory, spare=4)
    making.write_tokenizer(directory, making.tokenizer_json((BOS, EOS, *OWN)))
    return directory


def migrated(root: Path, *operations: dict[str, Any]) -> making.Made:
    return making.workspace(root, {"m": base(root / "m")}, [{"operations": list(operations)}])


@pytest.mark.parametrize("operation", [{"add_role_tokens": {"preset": "chatml"}}, {"add_tokens": {"tokens": [*OWN]}}])
def test_the_hint_names_reuse_and_following_it_helps(tmp_path: Path, operation: dict[str, Any]) -> None:
    made = migrated(tmp_path / "w", operation)
    refused = made.run("upgrade")
    assert refused.returncode == 1
    assert "the token '<|im_start|>' exists already" in refused.stderr
    hint = refused.stderr.partition("what to do: ")[2]
    assert hint.startswith("if it is the model's own, add `existing: reuse` to the operation")
    assert "looks like" not in hint
    ((name, fields),) = operation.items()
    again = migrated(tmp_path / "again", {name: {**fields, "existing": "reuse"}})
    (effect,) = plan(again.workspace, again.entry("m")).steps[0].effects
    assert "whether their rows are trained is not known" in effect.risk.reason
    assert "not trained yet" not in effect.risk.reason


def test_a_token_of_an_earlier_migration_is_said_to_be_that_migrations(tmp_path: Path) -> None:
    add = {"add_tokens": {"tokens": ["<tool>"]}}
    made = making.workspace(tmp_path, {"m": base(tmp_path / "m")}, [{"operations": [add]}, {"operations": [add]}])
    assert made.run("upgrade", "0001").returncode == 0
    for command in ("plan", "upgrade", "lock"):
        refused = made.run(command)
        assert refused.returncode == 1
        assert f"what to do: {made.revisions[0]} adds it: leave it out here\n" in refused.stderr


def test_reuse_adds_what_is_not_there_and_leaves_the_rest(tmp_path: Path) -> None:
    tokens = [OWN[0], {"content": "<|tool|>", "special": True}]
    made = migrated(tmp_path / "w", {"add_tokens": {"tokens": tokens, "existing": "reuse"}})
    model = tmp_path / "w" / "m"
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    rows = making.tensors_of(model)["model.embed_tokens.weight"]
    (effect,) = plan(made.workspace, made.entry("m")).steps[0].effects
    assert [(given.token, given.id) for given in effect.assigned_ids] == [("<|tool|>", TOKENS + 2)]
    assert effect.risk.level is RiskLevel.SAFE
    assert "'<|im_start|>' is there already, and whether its row is trained is not known" in effect.risk.reason
    upgrade(made.workspace, made.entry("m"))
    now = making.tensors_of(model)["model.embed_tokens.weight"]
    assert now[TOKENS].equal(rows[TOKENS])
    assert not now[TOKENS + 2].equal(rows[TOKENS + 2])
    downgrade(made.workspace, made.entry("m"), "base")
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_reuse_with_another_flag_is_refused(tmp_path: Path) -> None:
    tokens = [{"content": OWN[0], "lstrip": True}]
    made = migrated(tmp_path / "w", {"add_tokens": {"tokens": tokens, "existing": "reuse"}})
    with pytest.raises(OperationError, match="exists already, without `lstrip: true`") as raised:
        plan(made.workspace, made.entry("m"))
    assert "set_token_flags: {tokens: …, lstrip: true}" in str(raised.value.hint)


def test_a_model_with_the_tokens_can_be_stamped_there(tmp_path: Path) -> None:
    step = {"add_tokens": {"tokens": [*OWN, "<|tool|>"], "existing": "reuse"}}
    made = migrated(tmp_path / "w", step)
    here, model = Workspace(made.workspace.root), tmp_path / "w" / "m"
    shutil.copytree(model, tmp_path / "base")
    assert here.run("stamp", "head").returncode == 1
    upgrade(made.workspace, made.entry("m"))
    (model / "tokmigrate.json").unlink()
    assert here.run("stamp", "head").returncode == 0


@pytest.mark.parametrize(
    "operation",
    [
        {"set_padding": {"token": "in"}},
        {"set_special_tokens": {"mask": "in"}},
        {"set_special_tokens": {"additional": ["in"]}},
        {"add_role_tokens": {"roles": {"user": BOS}, "end": "in", "existing": "reuse"}},
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
    padding = {"set_padding": {"token": BOS}}
    made = making.workspace(tmp_path, {"model": tmp_path / "model"}, [{"operations": [padding]}])
    (effect,) = plan(made.workspace, made.entry("model")).steps[0].effects
    assert effect.risk.level is RiskLevel.SAFE
