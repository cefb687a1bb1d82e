"""The ids that transformers takes where config.json gives none: they move too, and must then be written."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tokmigrate.model.json_text import Json

_DEFAULTS: tuple[tuple[str, Mapping[str, Json]], ...] = (
    ("albert", {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}),
    (
        "bart",
        {
            "bos_token_id": 0,
            "decoder_start_token_id": 2,
            "eos_token_id": 2,
            "forced_eos_token_id": 2,
            "pad_token_id": 1,
        },
    ),
    ("bert deberta deberta-v2 distilbert electra mobilebert", {"pad_token_id": 0}),
    ("bloom granite llama mistral mixtral phi", {"bos_token_id": 1, "eos_token_id": 2}),
    (
        "camembert mamba2 mpnet roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl",
        {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1},
    ),
    ("codegen gpt2 gpt_bigcode gpt_neo gptj starcoder2", {"bos_token_id": 50256, "eos_token_id": 50256}),
    ("cohere cohere2", {"bos_token_id": 5, "eos_token_id": 255001, "pad_token_id": 0}),
    ("falcon", {"bos_token_id": 11, "eos_token_id": 11}),
    ("falcon_mamba mamba", {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}),
    ("gemma gemma2 gemma3_text", {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}),
    ("gemma3", {"boi_token_index": 255999, "eoi_token_index": 256000, "image_token_index": 262144}),
    ("gpt_neox", {"bos_token_id": 0, "eos_token_id": 2}),
    ("longformer", {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "sep_token_id": 2}),
    ("m2m_100", {"bos_token_id": 0, "decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}),
    ("marian", {"decoder_start_token_id": 58100, "eos_token_id": 0, "forced_eos_token_id": 0, "pad_token_id": 58100}),
    ("mbart", {"bos_token_id": 0, "eos_token_id": 2, "forced_eos_token_id": 2, "pad_token_id": 1}),
    (
        "modernbert",
        {
            "bos_token_id": 50281,
            "cls_token_id": 50281,
            "eos_token_id": 50282,
            "pad_token_id": 50283,
            "sep_token_id": 50282,
        },
    ),
    ("mt5 umt5", {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}),
    ("olmo olmo2", {"eos_token_id": 50279, "pad_token_id": 1}),
    ("opt", {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}),
    ("pegasus", {"decoder_start_token_id": 0, "eos_token_id": 1, "forced_eos_token_id": 1, "pad_token_id": 0}),
    ("phi3", {"bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000}),
    ("stablelm", {"bos_token_id": 0, "eos_token_id": 0}),
    ("t5", {"eos_token_id": 1, "pad_token_id": 0}),
    (
        "whisper",
        {
            "begin_suppress_tokens": [220, 50256],
            "bos_token_id": 50256,
            "decoder_start_token_id": 50257,
            "eos_token_id": 50256,
            "pad_token_id": 50256,
        },
    ),
)

DEFAULT_IDS: Mapping[str, Mapping[str, Json]] = MappingProxyType(
    {model_type: fields for names, fields in _DEFAULTS for model_type in names.split()}
)
"""By model type and field; a test holds it against transformers' configurations."""
