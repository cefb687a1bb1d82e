"""A tiny model of every class of transformers that has a language-model head, derived from its default config."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto

from tokmigrate.model.documents.config_fields import NESTED, SIZES, UNPADDED, shape_of

MAPPINGS = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "sequence to sequence": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "image and text": modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    "speech": modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
}
OTHER_VOCABULARY = 211
"""The size that vocabularies of other things get: that of nothing else."""
SMALL = 30_000_000
"""The numbers in a model that is small enough for a test."""

_LAYERS = re.compile(
    r"n_layers?|layers|depth|\w*_depth|\w*num_layers|num_block\w*|\w*_num_hidden_layers|[en]_layers?"
    r"|(?:num|n|encoder|decoder|e|d)_(?:\w*_)?(?:layers?|blocks)"
)
_EXPERTS = re.compile(r"\w*experts(?!_per)\w*")
# What stays: it is no width, or others are computed from it.
_KEPT = re.compile(
    r"\w*(?:vocab|image_size|patch|position|_id|_ids|_index|kernel|stride|mel|window|max_|heads|groups|channels|rate"
    r"|chunk|context|frames|time|offset|length|size_per|hop|eps|theta|beta|bins|seq|num_labels|labels|nfft|per_tok"
    r"|topk|frequency|interval|scale)\w*"
)


@dataclass(frozen=True)
class LanguageModel:
    """A class of transformers with a language-model head.

    Args:
        name: The class.
        kind: The mapping that lists it.
        model_type: The model type that the mapping has it for.
    """

    name: str
    kind: str
    model_type: str

    @property
    def config(self) -> Any:
        """The class of the config that goes with that model type."""
        return transformers.CONFIG_MAPPING[self.model_type]

    @property
    def model(self) -> Any:
        """The class itself."""
        return getattr(transformers, self.name)


@cache
def language_models() -> Mapping[str, LanguageModel]:
    """Return every class in transformers' language-model mappings, by its name."""
    found: dict[str, LanguageModel] = {}
    for kind, mapping in MAPPINGS.items():
        for model_type, classes in mapping.items():
            for name in classes if isinstance(classes, tuple) else (classes,):
                found.setdefault(name, LanguageModel(name, kind, model_type))
    return dict(sorted(found.items()))


@cache
def whole_models() -> Mapping[str, LanguageModel]:
    """Return every class that generates and is in none of these mappings, such as one with a talker, by its name."""
    found: dict[str, LanguageModel] = {}
    for name in sorted(dir(transformers)):
        each = getattr(transformers, name) if re.match("[A-Z]", name) else None
        is_model = isinstance(each, type) and issubclass(each, transformers.PreTrainedModel)
        if is_model and issubclass(each, transformers.GenerationMixin) and name not in language_models():
            found[name] = LanguageModel(name, "whole", each.config_class.model_type if each.config_class else "")
    return found


def builds_by_default(model: LanguageModel) -> bool:
    """Return whether transformers builds the class with its default config, on the meta device."""
    try:
        with torch.device("meta"):
            model.model(_eager(model.config()))
    except Exception:
        return False
    return True


def tiny_config(model: LanguageModel, rows: int) -> Any | None:
    """Return a config of a small model, None where no way was found to make one that can be built.

    Args:
        model: The class.
        rows: The size of its text vocabulary.
    """
    own = model.model.config_class or model.config
    for config_class in dict.fromkeys((own, model.config)):
        for layers in (2, 4, 100):
            for divisor in (32, 16, 8, 4, 2, 1):
                config = _tried(model, config_class, rows, layers, divisor)
                if config is not None:
                    return config
    return None


def _tried(model: LanguageModel, config_class: Any, rows: int, layers: int, divisor: int) -> Any | None:
    try:
        settings = _merged(_shrunk(config_class(), rows, layers, divisor, in_text=True), OPTIONS.get(model.name, {}))
        config = _eager(config_class(**copy.deepcopy(settings)))
        with torch.device("meta"):
            built = model.model(copy.deepcopy(config))
    except Exception:
        return None
    return config if sum(parameter.numel() for parameter in built.parameters()) < SMALL else None


def _shrunk(config: Any, rows: int, layers: int, divisor: int, *, in_text: bool) -> dict[str, Any]:
    """Return settings that make a config of the same class smaller in proportion."""
    settings: dict[str, Any] = {}
    parts = getattr(type(config), "sub_configs", None) or {}
    for name, value in config.to_dict().items():
        inner = getattr(config, name, None) if name in parts else None
        if hasattr(inner, "to_dict"):
            inside = _shrunk(inner, rows, layers, divisor, in_text=in_text and name in NESTED)
            # A part's class may have other defaults than the whole gives it.
            given = {key: held for key, held in inner.to_dict().items() if isinstance(held, bool | int | float | str)}
            settings[name] = {**given, **inside}
        elif name == "vocab_size" and value is None and in_text:
            settings[name] = rows
        elif isinstance(value, bool) or value is None:
            continue
        elif isinstance(value, int) and "vocab_size" in name and not name.startswith("type_"):
            is_text = in_text and name in {*SIZES, UNPADDED, "src_vocab_size", "tgt_vocab_size"}
            settings[name] = rows if is_text else min(value, OTHER_VOCABULARY)
        elif isinstance(value, int) and shape_of(name):
            settings[name] = value if value < rows - 8 else 3
        elif isinstance(value, int) and _LAYERS.fullmatch(name):
            settings[name] = min(value, layers)
        elif isinstance(value, int) and _EXPERTS.fullmatch(name):
            settings[name] = min(value, 4)
        elif divides(value, divisor) and not _KEPT.fullmatch(name):
            settings[name] = [size // divisor for size in value] if isinstance(value, list) else value // divisor
    return settings


def divides(value: Any, divisor: int) -> bool:
    """Return whether a value is a width, or a list of widths, that can be divided."""
    sizes = value if isinstance(value, list) else [value]
    return (
        divisor > 1 and bool(sizes) and all(type(size) is int and size >= 64 and size % divisor == 0 for size in sizes)
    )


def _merged(settings: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for name, value in options.items():
        held = merged.get(name)
        merged[name] = _merged(held, value) if isinstance(value, dict) and isinstance(held, dict) else value
    return merged


def _eager(config: Any) -> Any:
    for part in config_and_parts(config):
        part._attn_implementation = "eager"
    return config


def config_and_parts(config: Any) -> Iterator[Any]:
    """Yield a config and all that it nests."""
    yield config
    for value in list(vars(config).values()):
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from config_and_parts(value)


def build(model: LanguageModel, config: Any) -> Any:
    """Return a model of random numbers, none of them left as it starts."""
    torch.manual_seed(1)
    built = model.model(copy.deepcopy(config))
    # What starts as zeros, biases above all, would not show that it moved.
    with torch.no_grad():
        for tensor in (*built.parameters(), *built.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(std=0.05)
    return built.eval()


_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_BY_LAYER = {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
_IMAGE = {"vocabulary_map": {"<image>": 4}}

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "BltForCausalLM": {"encoder_hash_byte_group_vocab": 64},
    "AyaVisionForConditionalGeneration": {"vision_config": {"num_attention_heads": 4}},
    "ChameleonForConditionalGeneration": {**_IMAGE, "vq_config": {"base_channels": 32}},
    "CohereCompassForCausalLM": _BY_LAYER,
    "CohereCompassForConditionalGeneration": {"text_config": _BY_LAYER},
    "Cosmos3EdgeForConditionalGeneration": {
        "text_config": {"head_dim": 16, "rope_parameters": {**_ROPE, "mrope_section": [4, 2, 2]}}
    },
    "DbrxForCausalLM": {"attn_config": {"rope_theta": 10000.0}},
    "DeepseekOcr2ForConditionalGeneration": {"text_config": {"mlp_layer_types": ["dense", "sparse"]}},
    "DiffusionGemmaForBlockDiffusion": {
        "text_config": {"top_k_experts": 2, "num_experts": 4, "moe_intermediate_size": 8}
    },
    "Dots1ForCausalLM": {"n_routed_experts": 4, "n_shared_experts": 1},
    "Dots3NoteForConditionalGeneration": {
        "text_config": {"layer_types": ["indexed_attention"] * 2},
        "vision_config": {"num_hidden_layers": 42},
    },
    "Emu3ForConditionalGeneration": {"text_config": {}, **_IMAGE, "vq_config": {"base_channels": 32}},
    "Ernie4_5_VLMoeForConditionalGeneration": {
        "text_config": {
            "hidden_size": 128,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "rope_parameters": {**_ROPE, "mrope_section": [22, 22, 20]},
        }
    },
    "EsmForMaskedLM": {"pad_token_id": 1, "mask_token_id": 2},
    "HunYuanDenseV1ForCausalLM": _HEADS,
    "HunYuanMoEV1ForCausalLM": _HEADS,
    "HunYuanVLForConditionalGeneration": {"text_config": _HEADS},
    "InklingForConditionalGeneration": {
        "text_config": {"n_routed_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2},
        "vision_config": {"n_layers": 24, "hidden_size": 64, "num_attention_heads": 2, "patch_size": 2},
    },
    "JanusForConditionalGeneration": {"vq_config": {"base_channels": 32}},
    "Kimi_K25ForConditionalGeneration": {"vision_config": {"num_attention_heads": 2}},
    "KyutaiSpeechToTextForConditionalGeneration": {
        "codec_config": {"upsample_groups": 16, "num_quantizers": 4, "num_filters": 4},
        "num_codebooks": 4,
        "audio_pad_token_id": 5,
    },
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"]},
    "MinistralForCausalLM": {"head_dim": 8},
    "MoonshineStreamingForConditionalGeneration": {"num_key_value_heads": 8},
    "NemotronForCausalLM": {"num_key_value_heads": 4, "head_dim": 8},
    "Qwen4ExpForCausalLM": {"num_experts_per_tok": 2},
    "Qwen4ExpForConditionalGeneration": {"text_config": {"num_experts_per_tok": 2}},
    "ReformerModelWithLMHead": {"is_decoder": True},
    "Step3p7ForConditionalGeneration": {"vision_config": {"num_attention_heads": 2}},
    "VibeVoiceAsrForConditionalGeneration": {
        "acoustic_tokenizer_encoder_config": {"num_filters": 1, "depths": [1] * 7},
        "semantic_tokenizer_encoder_config": {"num_filters": 1, "depths": [1] * 7},
    },
    "VibeVoiceForConditionalGeneration": {
        "audio_config": {"num_filters": 4},
        "semantic_model_config": {"num_filters": 4},
    },
}
"""What a class needs besides, because its default config is not a model that can be built, or cannot be shrunk."""
