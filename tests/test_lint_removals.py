"""What `lint` says of removals of many tokens, on real tokenizers, and that it is silent on small ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from shared_models import SharedModel, shared_model

from tokmigrate.commands.lint import lint
from tokmigrate.lint.linter import Selection
from tokmigrate.model.documents.chat_template import find_literals
from tokmigrate.model.tokenizer.byte_level import text_of_letters
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer

RULES = Selection(("TM117", "TM118", "TM119", "TM310"))


def lint_removal(model: SharedModel, is_removed: Callable[[str], bool], more: str = "") -> dict[str, str]:
    """Return what is found, by code, in a migration that removes those tokens of the model that `is_removed`."""
    tokenizer = Tokenizer(model.json(FILE))
    gone = [token for token in tokenizer.vocabulary if is_removed(token) and token not in tokenizer.added]
    (model.root / "migrations" / "gone.json").write_text(json.dumps(gone), "utf-8")
    model.write(f"- remove_tokens: {{tokens_file: gone.json, ids: compact, acknowledge: breaking{more}}}")
    linted = lint(model.workspace, [model.entry], RULES)
    assert not linted.notes
    return {found.rule.code: found.message for found in linted.findings}


def test_a_word_piece_tokenizer_without_other_letters_than_those_of_english(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "bert-base-uncased")
    found = lint_removal(model, lambda token: not token.isascii() or token == "##7")
    assert found["TM117"].startswith("no word of 15 scripts is left: Han (494 removed, 0 left), Hiragana (")
    assert found["TM118"] == "1 of the 10 tokens of 1 digit is removed: '##7'"
    assert found["TM119"] == "1,858 letters can no longer be written: '¡', '¢', '£' and 1,855 more"


def test_a_script_of_which_letters_are_left(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "bert-base-uncased")
    found = lint_removal(model, lambda token: "\u0400" <= token[-1] <= "\u04ff" and token.startswith("##"))
    assert "TM117" not in found
    assert found["TM119"].startswith("39 letters can no longer be written: '##")


def test_a_byte_level_tokenizer_without_a_script(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "phi-2")
    found = lint_removal(
        model,
        lambda token: any("\u30a0" <= letter <= "\u30ff" for letter in text_of_letters(token)),
        ", with: unreachable",
    )
    assert list(found) == ["TM117"]
    assert found["TM117"].startswith("no word of a script is left: Katakana (")


@pytest.mark.parametrize("name", ["bert-base-uncased", "gpt2-chatml", "oromo-t5"])
def test_a_small_removal_is_silent(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path, name)
    long = sorted((token for token in Tokenizer(model.json(FILE)).vocabulary if token[1:].isalpha()), key=len)[-5:]
    assert lint_removal(model, lambda token: token in long, ", with: unreachable") == {}


def test_names_of_fields_are_not_written() -> None:
    template = (
        "{# 'no' #}{% for m in messages %}<|im_start|>{{ m['role'] + '\\n' }}"
        "{% if m.role == \"it's\" %}{{ '<|im_end|>' }} bye{% endif %}{% endfor %}"
    )
    assert {*find_literals(template)} == {"<|im_start|>", "\n", " bye", "it's", "<|im_end|>"}
