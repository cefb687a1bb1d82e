"""What an id means to some models besides its row, and what can therefore not be done to their vocabulary.

Read off the sources of transformers 5; the tests hold the lists against them where that can be done.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_AUDIO_CODES = "its ids are an audio codec's, no tokens of a text"
_TWO = "encoder and decoder have a vocabulary each; only models with one vocabulary can be migrated"
_BEHIND = "ids right behind its vocabulary are {}"

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "blt": "its ids are bytes, and rows are found by a hash of several of them",
        "dia": _AUDIO_CODES,
        "encoder-decoder": _TWO,
        "fsmt": _TWO,
        "gemma4_assistant": "its tensor `token_ordering` holds ids, sorted into clusters of a fixed size",
        "gemma4_unified_assistant": "its tensor `token_ordering` holds ids, sorted into clusters of a fixed size",
        "ibert": "it keeps a quantized copy of its embeddings, in which a new row cannot be computed",
        "musicgen": _AUDIO_CODES,
        "musicgen_decoder": _AUDIO_CODES,
        "musicgen_melody": _AUDIO_CODES,
        "musicgen_melody_decoder": _AUDIO_CODES,
    }
)
"""Model types that are refused as a whole, with the reason."""

FIXED_SIZE: Mapping[str, str] = MappingProxyType(
    {
        "gemma3n": _BEHIND.format("taken for sounds"),
        "kyutai_speech_to_text": _BEHIND.format("an audio codec's"),
        "molmo2": _BEHIND.format("those of images, in a second matrix"),
        "qwen4_exp": "the hash by which it finds rows for several tokens depends on the size of its vocabulary",
        "qwen4_exp_text": "the hash by which it finds rows for several tokens depends on the size of its vocabulary",
    }
)
"""Model types whose number of rows cannot change, with the reason."""

FIXED_IDS: Mapping[str, str] = MappingProxyType(
    {
        "qwen4_exp": "finds rows by a hash of the ids of several tokens",
        "qwen4_exp_text": "finds rows by a hash of the ids of several tokens",
    }
)
"""Model types in which no id can change, with what they do with ids."""

_FROM_PAD = (
    "altclip_text_model bridgetower_text_model camembert clap_text_model data2vec-text esm fsmt ibert kosmos-2"
    " kosmos-2.5 kosmos_2_5_text_model kosmos_2_text_model layoutlmv3 lilt longformer luke m2m_100 markuplm mpnet"
    " nllb-moe roberta roberta-prelayernorm seamless_m4t seamless_m4t_v2 speech_to_text speecht5 trocr xlm-roberta"
    " xlm-roberta-xl xmod"
)
POSITION_IDS_FROM_PAD: frozenset[str] = frozenset(_FROM_PAD.split())
"""Model types whose position ids begin after the pad token's id: with another pad id they read other positions.

Those whose code in transformers 5 has `create_position_ids_from_input_ids` or fairseq's `make_positions`.
"""

IDS_AFTER_THE_LAST: frozenset[str] = frozenset({"whisper"})
"""Model types in which ids after the last named token mean something: Whisper's timestamps."""


def refusal(config: Mapping[str, Any], tensors: frozenset[str]) -> str | None:
    """Return why a model's vocabulary cannot be changed at all, None where it can.

    Args:
        config: config.json.
        tensors: The names of its tensors.
    """
    reason = REFUSED.get(str(config.get("model_type")))
    if reason is not None:
        return reason
    # Marian's and FSMT's own words for it.
    if config.get("share_encoder_decoder_embeddings") is False or {"src_vocab_size", "tgt_vocab_size"} <= set(config):
        return _TWO
    draft = sorted(name for name in tensors if name.rpartition(".")[2] in {"d2t", "t2d"})
    if draft:
        return f"its tensor '{draft[0]}' maps ids of a draft model's vocabulary to those of another model"
    return None


def fixed_size(config: Mapping[str, Any]) -> str | None:
    """Return why the number of rows cannot change, None where it can."""
    if config.get("model_type") == "idefics" and config.get("additional_vocab_size"):
        return _BEHIND.format("those of a second, additional vocabulary")
    return FIXED_SIZE.get(str(config.get("model_type")))
