"""Places that hold ids follow a change of ids, and those that count something else stay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pinned import with_pinned_transformers

from tokmigrate.errors import OperationError, OutOfStepError
from tokmigrate.model.documents.config_fields import may_hold_ids, shape_of
from tokmigrate.model.documents.pipeline_overrides import default_ids
from tokmigrate.model.references.config_references import suspects, with_ids_of_config
from tokmigrate.model.weights.architectures import ARCHITECTURES
from tokmigrate.vocabulary.ids import Renumbering

ROWS = 100
UP = Renumbering({number: (number + 10) % ROWS for number in range(ROWS)})

KNOWN = (
    "pad_token_id bos_token_id eos_token_id decoder_start_token_id forced_bos_token_id image_token_id"
    " image_token_index video_token_id vision_start_token_id audio_bos_token_id boi_token_index eoa_token_id"
    " user_token_id im_start_token_id tts_bos_token_id yes_token_index no_timestamps_token_id pad_index"
)
OTHERS = (
    "type_vocab_size codebook_pad_token_id t2u_eos_token_id num_image_tokens max_new_tokens out_indices"
    " tts_codec_pad_token_id semantic_loss_ignore_index local_layer_ids entity_pad_id pad_token_type_id vocab_size"
    " extra_ids prompt_lookup_num_tokens audio_ms_per_token cls_token_type_id num_protected_tokens"
)


@pytest.mark.parametrize("name", KNOWN.split())
def test_known_names_follow_as_number_and_list_at_any_depth(name: str) -> None:
    before = {name: 3, "text_config": {name: [3, 4]}, "list": [{name: None}, {name: -1}, {name: 99}]}
    after = {name: 13, "text_config": {name: [13, 14]}, "list": [{name: None}, {name: -1}, {name: 9}]}
    assert with_ids_of_config(before, UP, "config.json", ROWS) == after


@pytest.mark.parametrize("name", OTHERS.split())
def test_other_ids_stay(name: str) -> None:
    before = {"nested": {name: 3}}
    assert with_ids_of_config(before, UP, "config.json", ROWS) == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"lang_to_id": {"<|en|>": 3}}, {"lang_to_id": {"<|en|>": 13}}),
        ({"forced_decoder_ids": [[1, 3], [2, None]]}, {"forced_decoder_ids": [[1, 13], [2, None]]}),
        ({"sequence_bias": {"(3, 4)": 0.5}}, {"sequence_bias": {"(13, 14)": 0.5}}),
        ({"sequence_bias": [[[3, 4], 5]]}, {"sequence_bias": [[[13, 14], 5]]}),
        ({"bad_words_ids": [[3], [4, 5]]}, {"bad_words_ids": [[13], [14, 15]]}),
        ({"force_words_ids": [[[3], [4]]]}, {"force_words_ids": [[[13], [14]]]}),
        ({"talker": {"vocab_size": 7, "bos_token_id": 3}}, {"talker": {"vocab_size": 7, "bos_token_id": 3}}),
    ],
)
def test_shapes(before: Any, after: Any) -> None:
    assert with_ids_of_config(before, UP, "config.json", ROWS) == after


def test_an_id_that_goes() -> None:
    gone = Renumbering.close_gaps(frozenset({4}), ROWS)
    lists = {"suppress_tokens": [3, 4, 5], "bad_words_ids": [[4], [5, 6], [3, 4]]}
    assert with_ids_of_config(lists, gone, "f", ROWS) == {"suppress_tokens": [3, 4], "bad_words_ids": [[4, 5]]}
    assert with_ids_of_config({"bad_words_ids": [5, [4], [6]]}, gone, "f", ROWS) == {"bad_words_ids": [4, [5]]}
    with pytest.raises(OperationError, match=r"f: 'a\.eos_token_id'"):
        with_ids_of_config({"a": {"eos_token_id": [3, 4]}}, gone, "f", ROWS)


def test_a_talker_with_a_codec_of_its_own_names_ids_of_the_text_beyond_it() -> None:
    config = {
        "vocab_size": ROWS,
        "talker_config": {
            "vocab_size": 5,
            "tts_text_start_token_id": 8,
            "tts_codec_start_token_id": 4,
            "eos_token_id": 3,
            "inner": {"audio_token_index": 9, "pad_token_id": 2},
        },
    }
    moves = Renumbering({8: 9, 9: 8, 3: 2, 2: 3, 4: 1, 1: 4})
    after = with_ids_of_config(config, moves, "f", ROWS)
    talker = {"tts_text_start_token_id": 9, "inner": {"audio_token_index": 8, "pad_token_id": 2}}
    assert after == {**config, "talker_config": {**config["talker_config"], **talker}}
    foreign = {"talker_config": {"vocab_size": 5, "whistle_token": 3, "bell_token": 8}}
    assert list(suspects(foreign, ROWS)) == [("talker_config.bell_token", 8)]


def test_a_field_that_is_not_known() -> None:
    config = {"deep": [{"whistle_token": 3}]}
    assert list(suspects(config, ROWS)) == [("deep.whistle_token", 3)]
    assert with_ids_of_config(config, Renumbering({5: 6, 6: 5}), "f", ROWS) == config
    with pytest.raises(OutOfStepError, match=r"f: 'deep\.whistle_token'"):
        with_ids_of_config(config, UP, "f", ROWS)


@given(st.dictionaries(st.integers(0, 20), st.integers(0, 20), max_size=12).map(lambda m: {v: k for k, v in m.items()}))
def test_a_swap_is_a_permutation(moves: dict[int, int]) -> None:
    moves = {old: new for old, new in moves.items() if list(moves.values()).count(new) == 1}
    found = Renumbering.swap(moves)
    assert sorted(found.new(number) or 0 for number in range(21)) == list(range(21))
    assert all(found.new(old) == new for old, new in moves.items())


@given(st.sets(st.integers(0, 19)), st.just(20))
def test_closed_gaps_keep_the_order(gone: set[int], size: int) -> None:
    found = Renumbering.close_gaps(frozenset(gone), size)
    assert [new for number in range(size) if (new := found.new(number)) is not None] == list(range(size - len(gone)))
    assert all(found.new(number) is None for number in gone)


@with_pinned_transformers
def test_defaults_are_those_of_transformers() -> None:
    from transformers import CONFIG_MAPPING

    for model_type in ARCHITECTURES:
        for name, value in CONFIG_MAPPING[model_type]().to_dict().items():
            if shape_of(name) in ("ids", "list") and value not in (None, [], -1):
                assert default_ids(model_type)[name] == value, (model_type, name)


@with_pinned_transformers
def test_no_default_configuration_seems_to_hold_unknown_ids() -> None:
    from transformers import CONFIG_MAPPING, GenerationConfig

    assert not [name for name in GenerationConfig().to_dict() if may_hold_ids(name)]
    for model_type in ARCHITECTURES:
        assert not [name for name in CONFIG_MAPPING[model_type]().to_dict() if may_hold_ids(str(name))], model_type
