"""What is known of model types: the names of their vocabulary tensors, and what their ids mean besides.

The names are those on disk; those of transformers' modules follow from them by the conversions that it
applies on loading. The tests hold this table against the models that transformers 5 builds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tokmigrate.vocabulary.recipes import Side

_PREFIX = (
    r"(?:(?:base_model|model|language_model|text_model|llm|transformer|backbone|encoder|decoder|gpt_neox"
    r"|bert|roberta|distilbert|electra|albert|mobilebert|longformer|deberta|mpnet)\.)*"
)


@dataclass(frozen=True)
class TensorPattern:
    """Tensors of one kind that have a vocabulary axis.

    Args:
        name: A regular expression for the name without the prefixes of the modules around it.
        side: Whether the rows start like input or like output embeddings.
        axis: The axis that counts the vocabulary.
    """

    name: str
    side: Side
    axis: int = 0

    def matches(self, name: str) -> bool:
        """Return whether a tensor of that name is meant, under any prefix that language models have."""
        return re.fullmatch(_PREFIX + self.name, name) is not None

    def resembles(self, name: str) -> bool:
        """Return whether a tensor's name ends like one that is meant: enough for a proposal."""
        return re.fullmatch(r"(?:.*\.)?" + self.name, name) is not None


@dataclass(frozen=True)
class Architecture:
    """What is known of a model type.

    Args:
        patterns: Its vocabulary tensors; of tied ones the first is the one that the others follow.
        tied: What `tie_word_embeddings` is where config.json does not say.
        tied_regardless: Whether transformers ties what is stored once even if config.json says otherwise.
    """

    patterns: tuple[TensorPattern, ...]
    tied: bool
    tied_regardless: bool = False

    def pattern(self, name: str) -> TensorPattern | None:
        """Return the pattern that a tensor's name fits, None if it is no vocabulary tensor by its name."""
        return next((pattern for pattern in self.patterns if pattern.matches(name)), None)


def _input(name: str) -> TensorPattern:
    return TensorPattern(name, "input")


def _output(name: str, axis: int = 0) -> TensorPattern:
    return TensorPattern(name, "output", axis)


_WORDS = _input(r"embeddings\.word_embeddings\.weight")
_HEAD = _output(r"lm_head\.(?:weight|bias)")
_DECODER = (_input(r"embed_tokens\.weight"), _HEAD)
_GPT2 = (_input(r"wte\.weight"), _HEAD)
_GPT_NEOX = (_input(r"embed_in\.weight"), _output(r"embed_out\.weight"), _HEAD)
_BLOOM = (_input(r"word_embeddings\.weight"), _HEAD)
_MAMBA = (_input(r"embeddings?\.weight"), _HEAD)
_BERT = (_WORDS, _output(r"cls\.predictions\.bias"), _output(r"cls\.predictions\.decoder\.(?:weight|bias)"))
_MOBILEBERT = (*_BERT, _output(r"cls\.predictions\.dense\.weight", axis=1))
_ROBERTA = (_WORDS, _output(r"lm_head\.bias"), _output(r"lm_head\.decoder\.(?:weight|bias)"))
_DISTILBERT = (_WORDS, _output(r"vocab_projector\.(?:weight|bias)"))
_ELECTRA = (_WORDS, _output(r"generator_lm_head\.(?:weight|bias)"))
_ALBERT = (_WORDS, _output(r"predictions\.bias"), _output(r"predictions\.decoder\.(?:weight|bias)"))
_MODERNBERT = (_input(r"embeddings\.tok_embeddings\.weight"), _output(r"decoder\.(?:weight|bias)"))
_T5 = (_input(r"shared\.weight"), *_DECODER)
_BART = (*_T5, _output(r"final_logits_bias", axis=1))
_WHISPER = (_input(r"embed_tokens\.weight"), _output(r"proj_out\.weight"))

_UNTIED = {
    _DECODER: ("llama mistral mixtral qwen2 qwen2_moe qwen3 qwen3_moe phi phi3 olmo olmo2 stablelm granite gpt_oss"),
    _GPT2: "gptj codegen",
    _GPT_NEOX: "gpt_neox",
    _MAMBA: "mamba2",
}
_TIED = {
    _DECODER: "gemma gemma2 gemma3 gemma3_text cohere cohere2 starcoder2 opt",
    _GPT2: "gpt2 gpt_neo gpt_bigcode",
    _BLOOM: "falcon bloom",
    _MAMBA: "mamba falcon_mamba",
    _BERT: "bert deberta deberta-v2",
    _MOBILEBERT: "mobilebert",
    _ROBERTA: "roberta xlm-roberta xlm-roberta-xl roberta-prelayernorm camembert longformer mpnet",
    _DISTILBERT: "distilbert",
    _ELECTRA: "electra",
    _ALBERT: "albert",
    _MODERNBERT: "modernbert",
    _BART: "bart mbart pegasus marian m2m_100",
    _WHISPER: "whisper",
}

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {model_type: Architecture(patterns, False) for patterns, names in _UNTIED.items() for model_type in names.split()}
    | {model_type: Architecture(patterns, True) for patterns, names in _TIED.items() for model_type in names.split()}
    | {model_type: Architecture(_T5, True, tied_regardless=True) for model_type in ("t5", "mt5", "umt5")}
)
"""By the `model_type` of config.json."""

GENERIC: tuple[TensorPattern, ...] = (
    *dict.fromkeys(
        pattern
        for patterns in (*_UNTIED, *_TIED, _T5)
        for pattern in patterns
        # Names that say nothing without the model type around them.
        if patterns not in (_MAMBA, _MODERNBERT)
    ),
    _input(r"embeddings\.tok_embeddings\.weight"),
    _input(r"tokens_embed\.weight"),
    _input(r"embed_tokens_per_layer\.weight"),
    _output(r"(?:output_projection|lm_head\.out_proj)\.weight"),
    _output(r"(?:lm_loss|pred_layer\.proj|proj_out)\.(?:weight|bias)"),
)
"""Names that a model of an unknown type may use; transformers' own model or the workspace must confirm them."""

POSITION_IDS_FROM_PAD: frozenset[str] = frozenset(
    {
        "altclip_text_model",
        "bridgetower_text_model",
        "camembert",
        "clap_text_model",
        "data2vec-text",
        "esm",
        "fsmt",
        "ibert",
        "kosmos-2",
        "kosmos-2.5",
        "kosmos_2_5_text_model",
        "kosmos_2_text_model",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "m2m_100",
        "markuplm",
        "mpnet",
        "nllb-moe",
        "roberta",
        "roberta-prelayernorm",
        "seamless_m4t",
        "seamless_m4t_v2",
        "speech_to_text",
        "speecht5",
        "trocr",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Model types whose position ids begin after the pad token's id: with another pad id they read other positions.

Those whose code in transformers 5 has `create_position_ids_from_input_ids` or fairseq's `make_positions`.
"""

IDS_AFTER_THE_LAST: frozenset[str] = frozenset({"whisper"})
"""Model types in which ids after the last named token mean something: Whisper's timestamps."""
