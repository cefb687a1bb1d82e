"""Which tensors have a vocabulary axis, held against models that transformers itself builds and saves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tokmigrate.errors import ModelError, OutOfStepError, UnexplainedTensorError, UnknownNameError
from tokmigrate.model.documents.architecture_quirks import POSITION_IDS_FROM_PAD
from tokmigrate.model.weights.architectures import ARCHITECTURES, GENERIC
from tokmigrate.model.weights.vocabulary_tensors import VocabularyTensors, find_vocabulary_tensors
from tokmigrate.model.weights.weights import read_weights

ROWS = 99
MORE_ROWS = 106

_LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}
_BERT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
}
_BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "bos_token_id": 0,
    "decoder_start_token_id": 2,
}
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
Case = tuple[str, str, Mapping[str, Any], bool]
CASES: list[Case] = [
    ("llama", "LlamaForCausalLM", _LLAMA, False),
    ("llama", "LlamaForCausalLM", _LLAMA | {"tie_word_embeddings": True}, True),
    ("llama", "LlamaModel", _LLAMA, False),
    (
        "gemma3",
        "Gemma3ForConditionalGeneration",
        {
            "text_config": _LLAMA,
            "vision_config": _VISION,
            "mm_tokens_per_image": 4,
            "image_token_index": 7,
            "boi_token_index": 8,
            "eoi_token_index": 9,
        },
        True,
    ),
    ("bert", "BertForPreTraining", _BERT | {"tie_word_embeddings": False}, False),
    ("bert", "BertModel", _BERT, True),
    (
        "mobilebert",
        "MobileBertForMaskedLM",
        _BERT | {"hidden_size": 24, "embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16},
        True,
    ),
    ("bart", "BartForConditionalGeneration", _BART, True),
]
"""`test_every_architecture.py` has all classes with a language-model head."""


def save_model(directory: Path, model_type: str, model_class: str, sizes: Mapping[str, Any], rows: int) -> Path:
    import torch
    import transformers

    nested = {name: dict(value) for name, value in sizes.items() if isinstance(value, dict)}
    nested.get("text_config", {})["vocab_size"] = rows
    flat = {name: value for name, value in sizes.items() if not isinstance(value, dict)}
    if not nested:
        flat["vocab_size"] = rows
    config_class = type(transformers.AutoConfig.for_model(model_type))
    special = {} if nested else {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    torch.manual_seed(1)
    model = getattr(transformers, model_class)(config_class(**special | flat | nested))
    model.save_pretrained(directory)
    return directory


def found(directory: Path, overrides: Mapping[str, Any] | None = None) -> VocabularyTensors:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return find_vocabulary_tensors(read_weights(directory), config, overrides or {})


def shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    return {entry.name: entry.shape for _, entry in read_weights(directory).tensors()}


def change(directory: Path, with_tensors: Callable[[dict[str, Any]], None]) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    with_tensors(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def state(directory: Path, **values: Any) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}), encoding="utf-8")


def llama(directory: Path, **sizes: Any) -> Path:
    return save_model(directory, "llama", "LlamaForCausalLM", _LLAMA | sizes, ROWS)


@pytest.mark.parametrize(
    ("model_type", "model_class", "sizes", "tied"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_found_is_what_follows_the_size(
    tmp_path: Path, model_type: str, model_class: str, sizes: Mapping[str, Any], tied: bool
) -> None:
    directory = save_model(tmp_path / "model", model_type, model_class, sizes, ROWS)
    larger = shapes(save_model(tmp_path / "larger", model_type, model_class, sizes, MORE_ROWS))
    following = {
        name: next(axis for axis, size in enumerate(shape) if larger[name][axis] != size)
        for name, shape in shapes(directory).items()
        if larger[name] != shape
    }

    result = found(directory)

    assert {tensor.name: tensor.axis for tensor in result.tensors} == following
    assert result.ids == ROWS
    assert result.tied is tied
    assert all(tensor.shape[tensor.axis] == ROWS for tensor in result.tensors)
    for tensor in result.tensors:
        is_embedding = (
            any(word in tensor.name for word in ("embed", "wte", "shared")) and "embed_out" not in tensor.name
        )
        assert tensor.side == ("input" if is_embedding else "output")
        assert tensor.canonical == tensor.name
    assert len(result.notes) == (model_class == "LlamaModel")


def test_the_registry_says_what_transformers_does_without_a_word_on_tying() -> None:
    import transformers

    # An older version knows fewer model types, and builds some configurations from those of their parts only.
    known = {
        name: each
        for name, each in ARCHITECTURES.items()
        if name in transformers.CONFIG_MAPPING
        and not getattr(transformers.CONFIG_MAPPING[name], "has_no_defaults_at_init", False)
    }
    assert len(known) > len(ARCHITECTURES) * 0.9
    for model_type, architecture in known.items():
        told = transformers.AutoConfig.for_model(model_type).to_dict().get("tie_word_embeddings")
        if told is not None:
            assert (told, False) == (architecture.tied, architecture.tied_inside), model_type


def test_model_types_whose_positions_depend_on_the_pad_token_are_those_of_the_sources() -> None:
    import transformers

    models = Path(transformers.__file__).parent / "models"
    telling = ("create_position_ids_from_input_ids", "make_positions(input")
    folders = {
        path.parent.name
        for path in models.glob("*/modeling_*.py")
        if any(t in path.read_text("utf-8") for t in telling)
    }
    # A protein's tokens and a page's layout: no text vocabulary of the model depends on them.
    folders -= {"evolla", "pp_doclayout_v2"}
    listed = {name.replace("-", "_").replace(".", "_").replace("_text_model", "") for name in POSITION_IDS_FROM_PAD}
    listed = {{"kosmos_2": "kosmos2", "kosmos_2_5": "kosmos2_5", "data2vec_text": "data2vec"}.get(n, n) for n in listed}

    assert folders == listed


@given(
    prefix=st.sampled_from(["", "model.", "language_model.model.", "model.language_model.", "model.decoder."]),
    name=st.sampled_from(["embed_tokens.weight", "lm_head.weight", "wte.weight"]),
)
@settings(max_examples=15)
def test_a_name_is_known_under_every_prefix_of_a_language_model(prefix: str, name: str) -> None:
    assert any(pattern.matches(prefix + name) for pattern in GENERIC)
    assert not any(pattern.matches(f"vision_tower.{prefix}{name}") for pattern in GENERIC)
    assert not any(pattern.matches(f"{prefix}not_{name}") for pattern in GENERIC)


def test_a_tied_head_that_is_stored_twice_starts_like_the_input(tmp_path: Path) -> None:
    directory = llama(tmp_path, tie_word_embeddings=True)
    change(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))

    result = found(directory)

    assert result.tied
    assert result.notes == ()
    assert {(tensor.name, tensor.side, tensor.canonical) for tensor in result.tensors} == {
        ("model.embed_tokens.weight", "input", "model.embed_tokens.weight"),
        ("lm_head.weight", "input", "model.embed_tokens.weight"),
    }


def test_a_tied_head_that_is_the_only_one_stored_starts_like_the_input(tmp_path: Path) -> None:
    directory = llama(tmp_path, tie_word_embeddings=True)
    change(directory, lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")}))

    result = found(directory)

    assert result.tied
    assert [(tensor.name, tensor.side) for tensor in result.tensors] == [("lm_head.weight", "input")]


def test_a_tie_that_the_bytes_deny_is_reported(tmp_path: Path) -> None:
    directory = llama(tmp_path)
    state(directory, tie_word_embeddings=True)

    result = found(directory)

    assert not result.tied
    assert {tensor.side for tensor in result.tensors} == {"input", "output"}
    assert all(tensor.canonical == tensor.name for tensor in result.tensors)
    assert "stored with different values" in result.notes[0]
    assert "lm_head.weight" in result.notes[0]


def test_equal_bytes_that_nobody_ties_stay_two_matrices(tmp_path: Path) -> None:
    directory = llama(tmp_path)
    change(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))

    result = found(directory)

    assert not result.tied
    assert {tensor.canonical for tensor in result.tensors} == {"model.embed_tokens.weight", "lm_head.weight"}


def test_t5_with_every_copy_stored_has_one_matrix(tmp_path: Path) -> None:
    directory = save_model(tmp_path, "t5", "T5ForConditionalGeneration", _T5, ROWS)
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    change(directory, lambda t: t.update({name: t["shared.weight"].copy() for name in copies}))

    result = found(directory)

    assert result.tied
    assert {tensor.name for tensor in result.tensors} == {"shared.weight", *copies}
    assert {tensor.canonical for tensor in result.tensors} == {"shared.weight"}


def test_t5_with_a_head_of_its_own_is_not_tied_and_not_worth_a_note(tmp_path: Path) -> None:
    directory = save_model(tmp_path, "t5", "T5ForConditionalGeneration", _T5, ROWS)
    change(directory, lambda t: t.update({"lm_head.weight": t["shared.weight"] + 1}))
    state(directory, tie_word_embeddings=False)

    result = found(directory)

    assert (result.tied, result.notes) == (False, ())
    assert {tensor.side for tensor in result.tensors} == {"input", "output"}


def test_berts_two_biases_are_one(tmp_path: Path) -> None:
    directory = save_model(tmp_path, "bert", "BertForMaskedLM", _BERT, ROWS)
    change(directory, lambda t: t.update({"cls.predictions.decoder.bias": t["cls.predictions.bias"].copy()}))

    biases = {t.name: (t.side, t.canonical) for t in found(directory).tensors if t.name.endswith("bias")}

    assert biases == {
        "cls.predictions.bias": ("output", "cls.predictions.bias"),
        "cls.predictions.decoder.bias": ("output", "cls.predictions.bias"),
    }


def test_an_untied_model_without_head_is_noted(tmp_path: Path) -> None:
    directory = llama(tmp_path)
    change(directory, lambda t: t.pop("lm_head.weight"))

    result = found(directory)

    assert not result.tied
    assert "without a head" in result.notes[0]


def test_a_tensor_of_unknown_name_is_named_with_the_setting(tmp_path: Path) -> None:
    directory = llama(tmp_path)
    change(directory, lambda t: t.update({"model.extra.table": np.zeros((ROWS, 3), np.float32)}))

    with pytest.raises(UnexplainedTensorError) as raised:
        found(directory)

    assert "'model.extra.table' [99, 3]" in raised.value.message
    assert raised.value.hint is not None
    assert raised.value.hint.endswith(
        'vocab_tensors:\n  "model.extra.table": ignore  # [99, 3]; or: {axis: 0, side: input}, or side: output'
    )
    assert len(found(directory, {"model.extra.table": None}).tensors) == 2
    claimed = found(directory, {"model.extra.table": (0, "output")})
    assert {tensor.name: tensor.side for tensor in claimed.tensors}["model.extra.table"] == "output"


def test_a_dimension_that_is_as_long_by_chance_is_not_claimed(tmp_path: Path) -> None:
    directory = llama(tmp_path, intermediate_size=ROWS)

    assert {tensor.name for tensor in found(directory).tensors} == {"model.embed_tokens.weight", "lm_head.weight"}


def test_a_model_type_that_only_transformers_knows(tmp_path: Path) -> None:
    directory = save_model(tmp_path, "lilt", "LiltForTokenClassification", _BERT, ROWS)
    assert "lilt" not in ARCHITECTURES

    result = found(directory)

    assert [(tensor.name, tensor.axis, tensor.side) for tensor in result.tensors] == [
        ("lilt.embeddings.word_embeddings.weight", 0, "input")
    ]


def test_a_model_type_that_nobody_knows_is_settled_by_the_workspace(tmp_path: Path) -> None:
    directory = llama(tmp_path)
    state(directory, model_type="homemade", architectures=["HomemadeForCausalLM"])

    with pytest.raises(UnexplainedTensorError) as raised:
        found(directory)
    assert "no code of its own" in raised.value.message
    assert raised.value.hint is not None
    assert '"model.embed_tokens.weight": {axis: 0, side: input}  # [99, 16]; or: ignore' in raised.value.hint
    assert '"lm_head.weight": {axis: 0, side: output}' in raised.value.hint

    settled = found(directory, {"model.embed_tokens.weight": (0, "input"), "lm_head.weight": (0, "output")})
    assert (len(settled.tensors), settled.tied) == (2, False)


def test_a_config_with_another_size_is_out_of_step(tmp_path: Path) -> None:
    directory = llama(tmp_path)
    state(directory, vocab_size=ROWS + 1)

    with pytest.raises(OutOfStepError) as raised:
        found(directory)

    assert "[99, 16] has 99 rows on axis 0, but config.json says vocab_size: 100" in raised.value.message


def test_a_head_with_other_rows_is_out_of_step(tmp_path: Path) -> None:
    directory = llama(tmp_path)
    change(directory, lambda t: t.update({"lm_head.weight": t["lm_head.weight"][:-1].copy()}))

    with pytest.raises(OutOfStepError, match=r"'lm_head.weight' \[98, 16\] has 98 rows"):
        found(directory)


def test_without_a_size_the_embeddings_count_and_a_note_says_so(tmp_path: Path) -> None:
    directory = llama(tmp_path)
    state(directory, vocab_size=...)

    result = found(directory)

    assert result.ids == ROWS
    assert "states no vocab_size" in result.notes[0]


def test_two_sizes_are_noted(tmp_path: Path) -> None:
    sizes = next(case[2] for case in CASES if case[0] == "gemma3")
    directory = save_model(tmp_path, "gemma3", "Gemma3ForConditionalGeneration", sizes, ROWS)
    state(directory, vocab_size=120)

    result = found(directory)

    assert result.ids == ROWS
    assert "text_config.vocab_size: 99, which counts, and vocab_size: 120" in result.notes[0]


@pytest.mark.parametrize(
    "companion",
    [
        "model.embed_tokens.weight_scale",
        "model.embed_tokens.weight.absmax",
        "model.embed_tokens.weight.quant_state.bitsandbytes__nf4",
        "lm_head.SCB",
        "lm_head.weight_scale_inv",
        "lm_head.qweight",
    ],
)
def test_a_quantized_head_or_embedding_is_refused(tmp_path: Path, companion: str) -> None:
    directory = llama(tmp_path)
    change(directory, lambda t: t.update({companion: np.ones(3, np.float32)}))

    with pytest.raises(ModelError, match="is quantized"):
        found(directory)


def test_integers_are_refused(tmp_path: Path) -> None:
    directory = llama(tmp_path)
    change(directory, lambda t: t.update({"lm_head.weight": np.zeros((ROWS, 16), np.int8)}))

    with pytest.raises(ModelError, match="holds integers \\(I8\\)"):
        found(directory)


def test_two_vocabularies_are_refused(tmp_path: Path) -> None:
    directory = llama(tmp_path)
    state(directory, share_encoder_decoder_embeddings=False, decoder_vocab_size=ROWS + 1)

    with pytest.raises(ModelError, match=f"a vocabulary each, of {ROWS} and {ROWS + 1} tokens") as raised:
        found(directory)
    assert "only models with one vocabulary" in str(raised.value.hint)


_OMNI_ROPE = {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"}


def omni(directory: Path) -> Path:
    """Save a Qwen2.5-Omni as published: thinker, talker and token2wav."""
    import torch
    import transformers

    text = {**_LLAMA, "hidden_size": 32, "vocab_size": ROWS, "num_key_value_heads": 2, "rope_scaling": _OMNI_ROPE}
    audio = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    dit = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "ff_mult": 1, "enc_emb_dim": 16}
    dit |= {"enc_dim": 16, "enc_channels": [16] * 4 + [48], "enc_attention_channels": 16, "enc_se_channels": 16}
    config = transformers.Qwen2_5OmniConfig(
        thinker_config={
            "text_config": text,
            "audio_config": {**audio, "output_dim": 32, "num_mel_bins": 16},
            "vision_config": vision,
            "pad_token_id": 0,
        },
        talker_config={**text, "vocab_size": 60, "embedding_size": 32},
        token2wav_config={
            "dit_config": {**dit, "head_dim": 16, "num_embeds": 100},
            "bigvgan_config": {"upsample_initial_channel": 32},
        },
    )
    torch.manual_seed(1)
    transformers.Qwen2_5OmniForConditionalGeneration(config).save_pretrained(directory)
    return directory


def test_a_class_that_does_not_name_its_embeddings(tmp_path: Path) -> None:
    result = found(omni(tmp_path))

    assert {(tensor.name, tensor.side) for tensor in result.tensors} == {
        ("thinker.model.embed_tokens.weight", "input"),
        ("thinker.lm_head.weight", "output"),
    }


def test_a_class_that_transformers_cannot_build_is_settled_by_the_setting(tmp_path: Path) -> None:
    directory = omni(tmp_path)
    config = json.loads((directory / "config.json").read_text("utf-8"))
    config["thinker_config"]["vision_config"]["num_heads"] = 0
    state(directory, **config)

    with pytest.raises(UnexplainedTensorError, match="transformers cannot build the model: ZeroDivision") as raised:
        found(directory)

    lines = str(raised.value.hint).partition("\n")[2]
    assert '"thinker.lm_head.weight": {axis: 0, side: output}  # [99, 32]; or: ignore' in lines
    said = yaml.safe_load(lines)["vocab_tensors"]
    overrides = {name: (setting["axis"], setting["side"]) for name, setting in said.items()}
    assert {tensor.name for tensor in found(directory, overrides).tensors} == {
        "thinker.model.embed_tokens.weight",
        "thinker.lm_head.weight",
    }


def test_a_head_that_is_a_convolution(tmp_path: Path) -> None:
    import transformers

    encoder = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    encoder |= {"subsampling_conv_channels": 8, "num_mel_bins": 16}
    config = transformers.ParakeetCTCConfig(vocab_size=ROWS, pad_token_id=0, encoder_config=encoder)
    transformers.ParakeetForCTC(config).save_pretrained(tmp_path)

    assert {(tensor.name, tensor.axis, tensor.side) for tensor in found(tmp_path).tensors} == {
        ("ctc_head.weight", 0, "output"),
        ("ctc_head.bias", 0, "output"),
    }


def test_a_matrix_that_has_other_rows_in_transformers_too_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    import transformers

    config = transformers.ImageGPTConfig(vocab_size=ROWS, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    transformers.ImageGPTForCausalImageModeling(config).save_pretrained(tmp_path)

    with pytest.raises(ModelError, match="98 rows for 99 ids in transformers' own model too") as raised:
        found(tmp_path)
    assert "restore" not in str(raised.value.hint)


def test_two_sides_whose_embeddings_are_equal_have_one_vocabulary(tmp_path: Path) -> None:
    directory = llama(tmp_path)
    state(directory, share_encoder_decoder_embeddings=False)
    encoder, decoder = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"
    rows = np.random.default_rng(3).random((ROWS, 16), np.float32)

    def two_sides(tensors: dict[str, Any]) -> None:
        del tensors["model.embed_tokens.weight"]
        tensors |= {encoder: rows, decoder: rows.copy()}

    change(directory, two_sides)
    assert {encoder, decoder} <= {tensor.name for tensor in found(directory).tensors}

    change(directory, lambda tensors: tensors.update({decoder: rows[::-1].copy()}))
    with pytest.raises(UnexplainedTensorError, match="one vocabulary is not known") as raised:
        found(directory)
    said = yaml.safe_load(str(raised.value.hint).partition("\n")[2])["vocab_tensors"]
    overrides = {name: (setting["axis"], setting["side"]) for name, setting in said.items()}
    assert {encoder, decoder} <= {tensor.name for tensor in found(directory, overrides).tensors}


def test_a_setting_for_a_tensor_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    directory = llama(tmp_path)

    with pytest.raises(UnknownNameError) as raised:
        found(directory, {"lm_haed.weight": None})
    assert raised.value.hint == "did you mean 'lm_head.weight'?"
    with pytest.raises(OutOfStepError, match="gives it axis 2"):
        found(directory, {"lm_head.weight": (2, "output")})


@pytest.mark.parametrize(
    "copies",
    [
        ("model.layers.61.embed_tokens.weight", "model.layers.61.shared_head.head.weight"),
        ("mtp.emb.tok_emb.weight", "model.mtp_layers.0.head.weight"),
    ],
)
def test_copies_in_a_layer_that_predicts_ahead_are_the_matrices_that_they_repeat(
    tmp_path: Path, copies: tuple[str, str]
) -> None:
    directory = llama(tmp_path)
    own = ("model.embed_tokens.weight", "lm_head.weight")
    change(directory, lambda t: t.update({copy: t[name].copy() for copy, name in zip(copies, own, strict=True)}))

    assert {tensor.name: tensor.canonical for tensor in found(directory).tensors} == dict(
        zip((*own, *copies), (*own, *own), strict=True)
    )


def test_a_matrix_of_its_own_in_a_layer_that_predicts_ahead_has_its_own_rows(tmp_path: Path) -> None:
    directory = llama(tmp_path)
    other = "model.layers.61.embed_tokens.weight"
    change(directory, lambda t: t.update({other: t["model.embed_tokens.weight"] + 1}))

    assert {tensor.name: (tensor.side, tensor.canonical) for tensor in found(directory).tensors}[other] == (
        "input",
        other,
    )
