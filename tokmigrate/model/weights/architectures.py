"""What is known of model types: the names of their vocabulary tensors on disk, and whether they tie them.

transformers' own modules may have other names; it converts them on loading (its `conversion_mapping`). The tests hold
the table against every language model that transformers 5 builds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from tokmigrate.model.documents.architecture_quirks import is_static
from tokmigrate.model.documents.config_fields import config_parts
from tokmigrate.vocabulary.row_edit import Side

_AROUND = (
    "base_model model language_model text_model text_decoder text_encoder llm vlm thinker transformer backbone encoder"
    " decoder gpt_neox gpt_neox_japanese bert roberta distilbert electra albert mobilebert longformer deberta mpnet"
    " biogpt convbert cpmant data2vec_text ernie esm esmc fnet funnel git gte ibert layoutlm led luke mra nomic_bert"
    " nystromformer prophetnet reformer rembert roberta_prelayernorm roc_bert roformer rwkv squeezebert tapas ultrabert"
    " yoso"
)
# The modules that may stand around a language model's own; others, such as a vision tower, count other things.
_PREFIX = rf"(?:(?:{'|'.join(_AROUND.split())})\.)*"


@dataclass(frozen=True)
class TensorPattern:
    """Tensors of one kind that have a vocabulary axis.

    Args:
        name: A regular expression for the name without the prefixes of the modules around it.
        copies: Whether it may repeat the embeddings of its side, which is seen by its bytes.
        table: Whether it may hold integers, whose rows can only be copied.
        mapped_by: The tensor that, where it is there, gives ids their rows in this one, which then counts other things.
    """

    name: str
    side: Side
    axis: int = 0
    copies: bool = False
    table: bool = False
    mapped_by: str | None = None

    def matches(self, name: str) -> bool:
        """Return whether a tensor of that name is meant, under any prefix that language models have."""
        return re.fullmatch(_PREFIX + self.name, name) is not None

    def resembles(self, name: str) -> bool:
        """Return whether a tensor's name ends like one that is meant: enough for a proposal."""
        return re.fullmatch(r"(?:.*\.)?" + self.name, name) is not None


Patterns = tuple[TensorPattern, ...]


def _input(name: str) -> TensorPattern:
    return TensorPattern(name, "input")


def _output(name: str, axis: int = 0) -> TensorPattern:
    return TensorPattern(name, "output", axis)


_EMBED, _WORDS = _input(r"embed_tokens\.weight"), _input(r"embeddings\.word_embeddings\.weight")
_HEAD = _output(r"lm_head\.(?:weight|bias)")
_HEAD_DECODER = (_output(r"lm_head\.bias"), _output(r"lm_head\.decoder\.(?:weight|bias)"))
_CLS = (_output(r"cls\.predictions\.bias"), _output(r"cls\.predictions\.decoder\.(?:weight|bias)"))

DECODER: Patterns = (
    _EMBED,
    _HEAD,
    TensorPattern(r"layers\.\d+\.embed_tokens\.weight", "input", copies=True),
    TensorPattern(r"layers\.\d+\.shared_head\.head\.weight", "output", copies=True),
)
"""Layers for multi-token prediction may carry copies of the embeddings, which transformers does not load."""
PER_LAYER: Patterns = (*DECODER, _input(r"embed_tokens_per_layer\.weight"))
DEEPSEEK_V4: Patterns = (
    *DECODER,
    _input(r"embed\.weight"),
    _output(r"head\.weight"),
    TensorPattern(r"layers\.\d+\.(?:mlp|ffn)\.gate\.tid2eid", "input", table=True),
)
STATIC: Patterns = (
    TensorPattern(r"embeddings", "input", table=True, mapped_by="mapping"),
    TensorPattern(r"mapping", "input", table=True),
    _input(r"weights"),
)
"""model2vec's. A quantized vocabulary has a row of `embeddings` for each cluster, and `mapping` from ids to them."""
GPT2: Patterns = (_input(r"wte\.weight"), _HEAD)
GPT: Patterns = (_input(r"tokens_embed\.weight"), _HEAD)
GPT_NEOX: Patterns = (_input(r"embed_in\.weight"), _output(r"embed_out\.weight"), _HEAD)
BLOOM: Patterns = (_input(r"word_embeddings\.weight"), _HEAD)
MAMBA: Patterns = (_input(r"embeddings?\.weight"), _HEAD)
NEMOTRON_H: Patterns = (*MAMBA, _EMBED)
INKLING: Patterns = (_EMBED, _input(r"embed\.weight"), _HEAD, _output(r"unembed\.weight"))
PI0: Patterns = (
    _EMBED,
    _input(r"dit\.embed_tokens\.weight"),
    _input(r"paligemma_with_expert\.paligemma\.model\.language_model\.(?:model\.)?embed_tokens\.weight"),
    _input(r"paligemma_with_expert\.gemma_expert\.lm_head\.weight"),
)
BERT: Patterns = (_WORDS, *_CLS)
MOBILEBERT: Patterns = (*BERT, _output(r"cls\.predictions\.dense\.weight", axis=1))
ROBERTA: Patterns = (_WORDS, *_HEAD_DECODER)
ALBERT: Patterns = (_WORDS, _output(r"predictions\.bias"), _output(r"predictions\.decoder\.(?:weight|bias)"))
DISTILBERT: Patterns = (_WORDS, _output(r"vocab_projector\.(?:weight|bias)"))
ELECTRA: Patterns = (_WORDS, _output(r"generator_lm_head\.(?:weight|bias)"))
MODERNBERT: Patterns = (_input(r"embeddings\.tok_embeddings\.weight"), _output(r"decoder\.(?:weight|bias)"), _HEAD)
PERCEIVER: Patterns = (
    _input(r"perceiver\.input_preprocessor\.embeddings\.weight"),
    _output(r"embedding_decoder\.bias"),
)
T5: Patterns = (_input(r"shared\.weight"), *DECODER)
T5_GEMMA: Patterns = (_EMBED, _output(r"lm_head\.out_proj\.weight"))
BART: Patterns = (*T5, _output(r"final_logits_bias", axis=1))
BIOGPT: Patterns = (_EMBED, _output(r"output_projection\.weight"))
WHISPER: Patterns = (_EMBED, _output(r"proj_out\.(?:weight|bias)"))
COHERE_ASR: Patterns = (
    *WHISPER,
    _input(r"transf_decoder\._embedding\.token_embedding\.weight"),
    _output(r"log_softmax\.mlp\.layer0\.(?:weight|bias)"),
)
SPEECHT5: Patterns = (
    _input(r"speecht5\.decoder\.prenet\.embed_tokens\.weight"),
    _output(r"text_decoder_postnet\.lm_head\.weight"),
)

_GENERIC = (PER_LAYER, GPT2, GPT_NEOX, BLOOM, MOBILEBERT, ROBERTA, DISTILBERT, ELECTRA, ALBERT, BART, GPT)
GENERIC: Patterns = (
    *dict.fromkeys(pattern for patterns in (*_GENERIC, T5_GEMMA, BIOGPT, WHISPER) for pattern in patterns),
    MODERNBERT[0],
    _output(r"(?:lm_loss|pred_layer\.proj)\.(?:weight|bias)"),
)
"""Names that a model of an unknown type may use; transformers' own model or the workspace must confirm them."""


@dataclass(frozen=True)
class Architecture:
    """What is known of a model type.

    Args:
        patterns: Its vocabulary tensors; of tied ones the first is the one that the others follow.
        tied: What `tie_word_embeddings` is where config.json does not say.
        tied_regardless: Whether transformers ties what is stored once even if config.json says otherwise.
        tied_inside: Whether it is the language model inside that says it.
    """

    patterns: Patterns
    tied: bool
    tied_regardless: bool = False
    tied_inside: bool = False

    def pattern(self, name: str) -> TensorPattern | None:
        """Return the pattern that a tensor's name fits, None if it is not a vocabulary tensor by its name."""
        return next((pattern for pattern in self.patterns if pattern.matches(name)), None)

    def is_table(self, name: str) -> bool:
        """Return whether a tensor of that name holds integers that a token is looked up by."""
        pattern = self.pattern(name)
        return pattern is not None and pattern.table


_UNTIED = {
    DECODER: (
        "afmoe apertus arcee aria aria_text axk1 axk2 bamba beam bitnet chameleon cohere_compass cosmos3_edge "
        "cosmos3_omni cwm deepseek_ocr2 deepseek_v2 deepseek_v3 deepseek_v32 diffllama doge dots1 dots3_note emu3 "
        "emu3_text_model eurobert evolla exaone4 exaone4_5 exaone_moe falcon_h1 fast_vlm flex_olmo flint fuyu glm "
        "glm4 glm46v glm4_moe glm4_moe_lite glm4v glm4v_moe glm5_next glm_moe_dsa glm_ocr gpt_oss granite "
        "granite4_vision granitemoe granitemoe_swa granitemoehybrid granitemoeshared helium hrm_text "
        "hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4 hyperclovax idefics idefics2 idefics3 internlm3 jais2 jamba "
        "kimi_linear kolibri1 laguna llama llama4 llama4_text llava llava_next llava_next_video llava_onevision "
        "longcat_flash mellum mimo_v2_flash minicpmv4_6 minicpmv4_7 minimax minimax_m2 minimax_m3_vl "
        "minimax_m3_vl_text ministral ministral3 mistral mistral4 mixtral mllama_text_model nanochat nemotron "
        "olmo olmo2 olmo3 olmo_hybrid olmoe perception_lm persimmon phi phi3 phi4_multimodal phimoe pix2struct "
        "qianfan_ocr qwen2 qwen2_5_omni_thinker qwen2_5_vl qwen2_moe qwen2_vl qwen3 qwen3_5 qwen3_5_moe "
        "qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe "
        "qwen4_exp qwen4_exp_text seed_oss smolvlm solar_open stablelm unlimited_ocr vibevoice video_llama_3 "
        "video_llava vipllava"
    ),
    (*BLOOM, *DECODER): "bailing_hybrid",
    BIOGPT: "fsmt",
    COHERE_ASR: "cohere_asr",
    DEEPSEEK_V4: "deepseek_v4",
    (_EMBED, *_HEAD_DECODER): "esmc",
    (_WORDS, _output(r"output\.(?:weight|bias)")): "git",
    GPT2: "codegen dbrx gptj",
    GPT_NEOX: "gpt_neox",
    (_input(r"embed_tokens\.embed_tokens\.weight"), _HEAD): "kyutai_speech_to_text",
    MAMBA: "mamba2 xlstm",
    (_EMBED, _input(r"tok_embeddings\.weight"), _HEAD, _output(r"output\.weight")): "mistral_large4",
    MODERNBERT: "modernvbert",
    (_EMBED, _input(r"wte\.embedding"), _HEAD): "molmo2",
    (*DECODER, _input(r"depth_decoder\.text_embed_tokens\.weight")): "moshi",
    NEMOTRON_H: "nemotron_h",
    (*ROBERTA, _output(r"lm_head\.weight")): "reformer",
    BERT: "rembert",
    (_input(r"embeddings\.weight"), _output(r"head\.weight")): "rwkv",
    (_EMBED, _output(r"head\.decoder\.weight"), _output(r"cls\.weight"), _HEAD): "ultrabert ultravbert",
    WHISPER: "moonshine_streaming",
}
_TIED = {
    DECODER: (
        "aya_vision cohere cohere2 cohere2_moe cohere2_vision cohere_compass_text deepseek_vl deepseek_vl_hybrid "
        "diffusion_gemma ernie4_5 ernie4_5_moe ernie4_5_vl_moe fun_asr_nano gemma gemma2 gemma3 gemma3_text "
        "gemma4_unified gemma4_unified_text glmasr got_ocr2 granite_docling granite_speech granite_speech_plus "
        "granite_swa hunyuan_vl hyperclovax_vision_v2 internvl janus jetmoe kimi_k25 kosmos-2 kosmos-2.5 lfm2 "
        "lfm2_moe lfm2_vl lfm3 lfm3_vl lighton_ocr minicpm3 minicpm_ocr mistral3 moss_transcribe_diarize opt "
        "ovis2 paddleocr_vl paligemma qwen3_asr recurrent_gemma smollm3 speech_to_text starcoder2 vaultgemma "
        "voxtral_realtime xglm youtu zamba zamba2 zaya"
    ),
    ALBERT: "albert",
    BART: (
        "bart bigbird_pegasus blenderbot blenderbot-small florence2 led m2m_100 marian mbart mvp nllb-moe pegasus "
        "pegasus_x plbart seamless_m4t seamless_m4t_v2"
    ),
    BERT: (
        "bert big_bird blip deberta deberta-v2 ernie fnet layoutlm megatron-bert mra nomic_bert nystromformer "
        "roc_bert roformer squeezebert tapas yoso"
    ),
    BIOGPT: "biogpt trocr",
    BLOOM: "bloom falcon prophetnet",
    (_input(r"input_embedding\.weight"), _HEAD): "cpmant",
    (_input(r"w\.weight"), _HEAD): "ctrl",
    DISTILBERT: "distilbert",
    ELECTRA: "convbert electra",
    (_WORDS, _HEAD): "funnel",
    GPT: "openai-gpt",
    GPT2: "gpt2 gpt_bigcode gpt_neo mpt",
    GPT_NEOX: "gpt_neox_japanese",
    MAMBA: "falcon_mamba mamba",
    MOBILEBERT: "mobilebert",
    MODERNBERT: "modernbert modernbert-decoder",
    (_input(r"embed_tokens\.word_embeddings\.weight"), _input(r"value_embeddings\.weight"), _HEAD): "neomme",
    PER_LAYER: "gemma3n gemma3n_text gemma4 gemma4_text",
    ROBERTA: (
        "bert-generation camembert data2vec-text esm gte jina_embeddings_v3 longformer luke mpnet roberta "
        "roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod"
    ),
    PERCEIVER: "perceiver",
    SPEECHT5: "speecht5",
    T5_GEMMA: "t5gemma t5gemma2",
    WHISPER: "canary moonshine whisper",
    (_input(r"embeddings\.weight"), _output(r"pred_layer\.proj\.(?:weight|bias)")): "flaubert xlm",
    (_input(r"word_embedding\.weight"), _output(r"lm_loss\.(?:weight|bias)")): "xlnet",
}
_TIED_REGARDLESS = {T5: "longt5 mt5 pop2piano switch_transformers t5 udop umt5"}
_AS_THE_MODEL_INSIDE = {
    DECODER: (
        "audioflamingo3 blip-2 encoder-decoder instructblip instructblipvideo mllama muse_glimmer muse_spark "
        "musicflamingo nemotron_h_omni pp_formulanet qwen2_audio speech-encoder-decoder step3p7 vibevoice_asr "
        "vision-encoder-decoder voxtral"
    ),
    INKLING: "inkling2 inkling2_text inkling_mm_model inkling_text",
    NEMOTRON_H: "nemo_speechlm",
    PI0: "pi0",
}


def _table() -> dict[str, Architecture]:
    found: dict[str, Architecture] = {}
    for families, tied, regardless, inside in (
        (_UNTIED, False, False, False),
        (_TIED, True, False, False),
        (_TIED_REGARDLESS, True, True, False),
        (_AS_THE_MODEL_INSIDE, False, False, True),
    ):
        for patterns, types in families.items():
            known = Architecture(patterns, tied, regardless, inside)
            found |= dict.fromkeys(types.split(), known)
    return found


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(_table())
"""By the `model_type` of config.json."""
_STATIC = Architecture(STATIC, tied=False)


def architecture_of(config: Mapping[str, Any]) -> Architecture | None:
    """Return what is known of a model by its config.json; that of a language model inside counts too."""
    if is_static(config):
        return _STATIC
    known = ARCHITECTURES.get(str(config.get("model_type")))
    if known is None:
        return None
    models = [ARCHITECTURES.get(str(part.get("model_type"))) for path, part in config_parts(config) if path]
    inner = [architecture for architecture in models if architecture]
    if not inner:
        return known
    patterns = tuple(dict.fromkeys(pattern for each in (*inner, known) for pattern in each.patterns))
    return replace(known, patterns=patterns, tied=inner[0].tied if known.tied_inside else known.tied)
