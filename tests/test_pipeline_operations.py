"""Operations on the parts of tokenizer.json and on single tokens: up, the effect, and every byte back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_models import SharedModel, shared_model

from tokmigrate.errors import FileProblems, OperationError
from tokmigrate.operations.pipeline import SetDecoder, parse_json_texts
from tokmigrate.revision.new_file import yaml_text
from tokmigrate.state.rows import TokenEventType
from tokmigrate.strict_yaml.reading import parse


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> SharedModel:
    return shared_model(tmp_path_factory.mktemp("roberta"), "gpt2-roberta")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aé1.tn -"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=3),
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text("ab", min_size=1), json_values))
def test_pasted_json_means_what_it_means_in_json(value: dict[str, Any]) -> None:
    text = json.dumps({"type": "x", **value}, ensure_ascii=False)
    assert parse_json_texts(parse("v: " + text, "m.yaml").value["v"]) == {"type": "x", **value}


def test_unquoted_words_are_typed_as_json_types_them() -> None:
    tree = parse("{a: true, b: yes, c: 0002, d: 1_000, e: 12, f: null, g: '12', h: -1.5e3}", "m.yaml")
    wanted = {"a": True, "b": "yes", "c": "0002", "d": "1_000", "e": 12, "f": None, "g": "12", "h": -1500.0}
    assert parse_json_texts(tree.value) == wanted


def test_a_written_migration_reads_back() -> None:
    decoder = {"type": "WordPiece", "prefix": "true", "cleanup": True}
    text = yaml_text("aaaa0001", None, "m", [SetDecoder(decoder=decoder), SetDecoder(decoder=None)])
    items = parse(text, "m.yaml").value["operations"]
    assert [SetDecoder.model_validate(item["set_decoder"]).decoder for item in items] == [decoder, None]


def test_a_bert_normalizer_is_repeated_in_the_config(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "bert-base-uncased", {"tokenizer_config.json": {"do_lower_case": True}})
    before = model.bytes()
    model.migrate(
        "- set_normalizer: {type: BertNormalizer, clean_text: true, handle_chinese_chars: true,"
        " strip_accents: null, lowercase: false}"
    )
    assert model.json("tokenizer_config.json") == {"do_lower_case": False}
    assert model.library().normalizer.normalize_str("Ab") == "Ab"
    model.down()
    assert model.bytes() == before


def test_the_other_parts_up_and_down(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    before = model.bytes()
    end = model.library().token_to_id("<|im_end|>")
    model.migrate(
        f"""
- set_pre_tokenizer:
    acknowledge: breaking
    type: Sequence
    pretokenizers:
      - {{"type": "Digits", "individual_digits": true}}
      - {{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}}
- set_post_processor:
    type: TemplateProcessing
    single: [{{Sequence: {{id: A, type_id: 0}}}}, {{SpecialToken: {{id: "<|im_end|>", type_id: 0}}}}]
    pair: [{{Sequence: {{id: A, type_id: 0}}}}, {{Sequence: {{id: B, type_id: 1}}}}]
    special_tokens: {{"<|im_end|>": {{id: "<|im_end|>", ids: [{end}], tokens: ["<|im_end|>"]}}}}
- set_decoder: null
"""
    )
    encoding = model.library().encode("12")
    assert encoding.ids[-1] == end
    assert [token.strip("Ġ") for token in encoding.tokens[:-1] if token != "Ġ"] == ["1", "2"]
    assert model.json("tokenizer_config.json")["add_prefix_space"] is True
    assert model.json("tokenizer.json")["decoder"] is None
    model.down()
    assert model.bytes() == before


@pytest.mark.parametrize(
    ("operation", "error", "words"),
    [
        ("set_normalizer: NFKX", FileProblems, "unknown normalizer 'NFKX'"),
        ("set_normalizer: {lowercase: true}", FileProblems, "needs its `type`"),
        ("set_decoder: [1]", FileProblems, "expected a mapping"),
        ("set_normalizer: {type: Prepend, prepend: 1}", OperationError, "expected a string"),
        (
            "set_pre_tokenizer: {type: Split, pattern: {Regex: (}, behavior: Isolated, invert: false}",
            OperationError,
            "",
        ),
        ('set_post_processor: {type: RobertaProcessing, sep: ["</s>", 2], cls: ["<s>", 1]}', OperationError, "'<s>'"),
        ('set_post_processor: {type: BertProcessing, sep: ["</s>", 2], cls: ["<z>", 1]}', OperationError, "is not a"),
        (
            # The library takes a list for a mapping, as serde does.
            'set_post_processor: {type: TemplateProcessing, single: [{SpecialToken: ["</s>", 0]}], pair: [],'
            ' special_tokens: {"</s>": ["</s>", [0], ["</s>"]]}}',
            OperationError,
            "gives '</s>' the id 0, but its id is 2",
        ),
        ("set_post_processor: {type: RobertaProcesing}", OperationError, "refuses the post_processor"),
        ("set_padding: {max_length: off, pad_to_multiple_of: 8}", OperationError, "off"),
    ],
)
def test_what_is_refused(operation: str, error: Any, words: str, roberta: SharedModel) -> None:
    with pytest.raises(error) as raised:
        roberta.planned(f"- {operation}")
    assert words in str(raised.value)
    assert "0001_m.yaml:6" in str(raised.value)


def test_the_longest_text_apart_from_truncation(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-roberta")
    before = model.bytes()
    longest = model.json("tokenizer_config.json")["model_max_length"]
    model.migrate("- set_truncation: {max_length: 8, model_max_length: keep}")
    assert model.library().truncation["max_length"] == 8
    assert model.json("tokenizer_config.json")["model_max_length"] == longest
    model.migrate("- set_truncation: {model_max_length: 99}")
    assert model.library().truncation["max_length"] == 8
    assert model.json("tokenizer_config.json")["model_max_length"] == 99
    model.migrate("- set_truncation: {max_length: 6, model_max_length: none}\n- set_truncation: off")
    assert model.library().truncation is None
    assert "model_max_length" not in model.json("tokenizer_config.json")
    model.down()
    assert model.bytes() == before


def test_padding_on_one_side_without_padding_by_itself(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "mistral-chat")
    before = model.bytes()
    model.migrate("- set_padding: {token: <unk>, side: right, pad_to_multiple_of: 8}")
    assert model.library().padding["pad_id"] == 0
    model.migrate("- set_padding: {max_length: off, side: left}")
    assert model.library().padding is None
    config = model.json("tokenizer_config.json")
    assert (config["padding_side"], config["pad_token"]) == ("left", "<unk>")
    model.down()
    assert model.bytes() == before


def test_truncation_and_the_settings_beside_it(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-roberta")
    before = model.bytes()
    model.migrate("- set_truncation: {max_length: 8, direction: left, strategy: only_first, stride: 2}")
    config = model.json("tokenizer_config.json")
    assert (config["model_max_length"], config["truncation_side"]) == (8, "left")
    tokens = model.library().encode("one two three four five six seven eight nine").tokens
    assert len(tokens) == 8
    assert tokens[-2].endswith("nine")
    off = model.planned("- set_truncation: off")
    assert off.final.documents["tokenizer.json"]["truncation"] is None
    assert off.final.documents["tokenizer_config.json"]["model_max_length"] == 8
    model.down()
    assert model.bytes() == before


def test_flags_of_added_and_of_vocabulary_tokens(tmp_path: Path) -> None:
    config = {"mask_token": {"content": "[MASK]", "lstrip": False, "rstrip": False}}
    model = shared_model(tmp_path, "bert-base-uncased", {"tokenizer_config.json": config})
    before = model.bytes()
    ids = model.library().get_vocab()
    model.migrate(
        '- set_token_flags: {tokens: "[MASK]", lstrip: true}\n- set_token_flags: {tokens: ["[unused5]"], special: true}'
    )
    library = model.library()
    assert library.get_vocab() == ids
    assert library.encode("a  [MASK]", add_special_tokens=False).offsets[-1] == (1, 9)
    assert library.encode("a[unused5]", add_special_tokens=False).tokens == ["a", "[unused5]"]
    assert model.json("tokenizer_config.json")["mask_token"]["lstrip"] is True
    with pytest.raises(OperationError, match="makes it special again"):
        model.planned('- set_token_flags: {tokens: "[MASK]", special: false}')
    model.down()
    assert model.bytes() == before


def test_flags_in_the_decoder_table(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "mistral-chat")
    before = model.bytes()
    number = model.library().token_to_id("<|placeholder1|>")
    model.migrate('- set_token_flags: {tokens: "<|placeholder1|>", special: false, rstrip: false}')
    assert model.json("tokenizer_config.json")["added_tokens_decoder"][str(number)]["special"] is False
    assert "<|placeholder1|>" in model.library().decode([number])
    model.down()
    assert model.bytes() == before


def test_a_normalizer_and_rows_initialised_again(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "oromo-t5")
    before, old, library = model.bytes(), model.rows(), model.library()
    token = library.id_to_token(5)
    kept = [number for number in sorted(library.get_vocab().values()) if number != 5]
    model.migrate(
        f"""
- set_normalizer: NFKC
- reinit_tokens: {{acknowledge: breaking, tokens: {json.dumps(token)}, init: {{strategy: mean}}}}
- add_tokens: {{tokens: ['<new>'], init: {{strategy: mean}}}}
"""
    )
    assert model.json("tokenizer.json")["normalizer"] == {"type": "NFKC"}
    library = model.library()
    assert library.encode("\u2460").ids == library.encode("1").ids
    number = library.token_to_id("<new>")
    for key, values in model.rows().items():
        np.testing.assert_allclose(values[5], old[key][kept].astype(np.float64).mean(0), atol=1e-6)
        # The later token is initialised from the rows that are left, without the one initialised again.
        assert np.array_equal(values[number], values[5])
        untouched = [row for row in range(len(values)) if row not in (5, number)]
        assert np.array_equal(values[untouched], old[key][untouched])
    events = {event.token: event for event in model.events()}
    assert events["<new>"].event is TokenEventType.ADDED
    event = events[token]
    assert (event.event, event.token_id, event.old_id) == (TokenEventType.REINITIALISED, 5, 5)
    assert event.init is not None
    assert event.row_fingerprint is not None
    model.down()
    assert model.bytes() == before
