"""rename_tokens: the new text in every file, id and row as they were, and every byte back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_models import shared_model

from tokmigrate.errors import OperationError
from tokmigrate.state.rows import TokenEventType

SLOTS = {
    "mistral-chat": "<|placeholder1|>",
    "gpt2-roberta": "<mask>",
}


@pytest.mark.parametrize("name", SLOTS)
def test_a_reserved_slot_gets_a_use(name: str, tmp_path: Path) -> None:
    old, new = SLOTS[name], "<|tool_call|>"
    model = shared_model(tmp_path, name)
    before, rows, ids = model.bytes(), model.rows(), model.library().get_vocab()
    model.migrate(f"- rename_tokens: {{tokens: {{{json.dumps(old)}: {json.dumps(new)}}}}}")
    library = model.library()
    assert library.get_vocab() == {new if token == old else token: number for token, number in ids.items()}
    assert ids[old] in library.encode(f"a{new}b", add_special_tokens=False).ids
    assert ids[old] not in library.encode(f"a{old}b", add_special_tokens=False).ids
    assert all(np.array_equal(values, rows[key]) for key, values in model.rows().items())
    assert (model.directory / "model.safetensors").read_bytes() == before["model.safetensors"]
    for file in model.directory.glob("tokenizer*.json"):
        assert json.dumps(old) not in file.read_text("utf-8")
    (event,) = model.events()
    assert (event.event, event.old_token, event.token) == (TokenEventType.RENAMED, old, new)
    assert (event.token_id, event.old_id, event.init) == (ids[old], ids[old], None)
    model.down()
    assert model.bytes() == before


def test_every_file_that_names_the_token(tmp_path: Path) -> None:
    named = {"content": "<s>", "lstrip": False}
    template = "{{ '<s>' }}{{ '<s>x</s>' }}"
    files = {
        "tokenizer_config.json": {
            "bos_token": "<s>",
            "cls_token": named,
            "extra_special_tokens": {"start_token": "<s>"},
            "added_tokens_decoder": {"0": named},
            "chat_template": [{"name": "default", "template": template}, {"name": "rag", "template": "<s>"}],
            "padding_side": "left",
        },
        "special_tokens_map.json": {"bos_token": named, "additional_special_tokens": ["<s>", "</s>"]},
        "added_tokens.json": {"<s>": 0, "<mask>": 50264},
        "chat_template.jinja": template,
        "generation_config.json": {"stop_strings": ["<s>"]},
    }
    model = shared_model(tmp_path, "gpt2-roberta", files)
    before = model.bytes()
    model.migrate('- rename_tokens: {tokens: {"<s>": "<b>"}, in_template: true, init: {strategy: copy, token: "</s>"}}')
    for file, value in files.items():
        held = (model.directory / file).read_text("utf-8")
        wanted = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        assert held == wanted.replace("<s>", "<b>")
    library, rows = model.library(), model.rows()
    assert library.encode("x").tokens[0] == "<b>"
    assert all(np.array_equal(values[0], values[2]) for values in rows.values())
    (event,) = model.events()
    assert (event.event, event.token, event.old_token) == (TokenEventType.RENAMED, "<b>", "<s>")
    assert event.init is not None
    assert event.row_fingerprint is not None
    model.down()
    assert model.bytes() == before


def test_a_template_that_still_writes_the_old_text_is_reported(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    planned = model.planned('- rename_tokens: {tokens: {"<|im_start|>": "<|turn|>"}, acknowledge: breaking}')
    (effect,) = planned.steps[0].effects
    assert effect.risk.level == "breaking"
    assert "'<|im_start|>'" in effect.risk.reason
    assert effect.assigned_ids == ()


@pytest.mark.parametrize(
    ("name", "tokens", "words"),
    [
        ("mistral-chat", {"<|placeholder1|>": "<|user|>"}, "exists already"),
        ("mistral-chat", {"<|placeholder1|>": "<x>", "<|placeholder2|>": "<x>"}, "cannot both become"),
        ("mistral-chat", {"<0x0A>": "<x>"}, "represents a byte"),
        ("mistral-chat", {"<|placeholder1|": "<x>"}, "not a token"),
        ("mistral-chat", {"▁the": "<x>"}, "the merge of"),
        ("gpt2-chatml", {"Ġ": "<x>"}, "the merge of"),
    ],
)
def test_what_is_refused(name: str, tokens: dict[str, str], words: str, tmp_path: Path) -> None:
    model = shared_model(tmp_path, name)
    with pytest.raises(OperationError, match=words):
        model.planned(f"- rename_tokens: {{tokens: {json.dumps(tokens, ensure_ascii=False)}}}")


def test_an_unused_token_of_the_vocabulary_becomes_a_token_of_text(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "bert-base-uncased")
    before = model.bytes()
    model.migrate(
        '- rename_tokens: {tokens: {"[unused7]": "[TOOL]"}}\n- set_token_flags: {tokens: "[TOOL]", special: true}'
    )
    assert model.library().encode("a [TOOL] b", add_special_tokens=False).ids[1] == 8
    model.down()
    assert model.bytes() == before


@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.dictionaries(
        st.sampled_from(["<|box_start|>", "<|box_end|>", "<|quad_end|>"]),
        st.text("ab<>|\"'é\\ ", min_size=1).map("~{}~".format),
        min_size=1,
    )
)
def test_any_text_goes_up_and_down(tokens: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    if len(set(tokens.values())) < len(tokens):
        return
    model = shared_model(tmp_path_factory.mktemp("w"), "gpt2-chatml")
    before = model.bytes()
    ids = model.library().get_vocab()
    model.migrate(f"- rename_tokens: {{tokens: {json.dumps(tokens, ensure_ascii=False)}}}")
    assert model.library().get_vocab() == {tokens.get(token, token): number for token, number in ids.items()}
    model.down()
    assert model.bytes() == before
