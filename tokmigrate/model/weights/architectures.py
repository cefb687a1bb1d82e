"""What is known of model types: the names of their vocabulary tensors, and whether they tie them.

The tests hold this table against every language model that transformers 5 builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from tokmigrate.model.documents.config_parts import config_parts
from tokmigrate.model.documents.peculiarities import is_static
from tokmigrate.model.weights import tensor_patterns as names
from tokmigrate.model.weights.tensor_patterns import Patterns, TensorPattern


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
        """Return the pattern that a tensor's name fits, None if it is no vocabulary tensor by its name."""
        return next((pattern for pattern in self.patterns if pattern.matches(name)), None)

    def is_table(self, name: str) -> bool:
        """Return whether a tensor of that name holds integers that a token is looked up by."""
        pattern = self.pattern(name)
        return pattern is not None and pattern.table


_UNTIED = {
    names.DECODER: (
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
    names.BAILING: "bailing_hybrid",
    names.BIOGPT: "fsmt",
    names.COHERE_ASR: "cohere_asr",
    names.DEEPSEEK_V4: "deepseek_v4",
    names.ESMC: "esmc",
    names.GIT: "git",
    names.GPT2: "codegen dbrx gptj",
    names.GPT_NEOX: "gpt_neox",
    names.KYUTAI: "kyutai_speech_to_text",
    names.MAMBA: "mamba2 xlstm",
    names.MISTRAL_NATIVE: "mistral_large4",
    names.MODERNBERT: "modernvbert",
    names.MOLMO2: "molmo2",
    names.MOSHI: "moshi",
    names.NEMOTRON_H: "nemotron_h",
    names.REFORMER: "reformer",
    names.BERT: "rembert",
    names.RWKV: "rwkv",
    names.ULTRABERT: "ultrabert ultravbert",
    names.WHISPER: "moonshine_streaming",
}
_TIED = {
    names.DECODER: (
        "aya_vision cohere cohere2 cohere2_moe cohere2_vision cohere_compass_text deepseek_vl deepseek_vl_hybrid "
        "diffusion_gemma ernie4_5 ernie4_5_moe ernie4_5_vl_moe fun_asr_nano gemma gemma2 gemma3 gemma3_text "
        "gemma4_unified gemma4_unified_text glmasr got_ocr2 granite_docling granite_speech granite_speech_plus "
        "granite_swa hunyuan_vl hyperclovax_vision_v2 internvl janus jetmoe kimi_k25 kosmos-2 kosmos-2.5 lfm2 "
        "lfm2_moe lfm2_vl lfm3 lfm3_vl lighton_ocr minicpm3 minicpm_ocr mistral3 moss_transcribe_diarize opt "
        "ovis2 paddleocr_vl paligemma qwen3_asr recurrent_gemma smollm3 speech_to_text starcoder2 vaultgemma "
        "voxtral_realtime xglm youtu zamba zamba2 zaya"
    ),
    names.ALBERT: "albert",
    names.BART: (
        "bart bigbird_pegasus blenderbot blenderbot-small florence2 led m2m_100 marian mbart mvp nllb-moe pegasus "
        "pegasus_x plbart seamless_m4t seamless_m4t_v2"
    ),
    names.BERT: (
        "bert big_bird blip deberta deberta-v2 ernie fnet layoutlm megatron-bert mra nomic_bert nystromformer "
        "roc_bert roformer squeezebert tapas yoso"
    ),
    names.BIOGPT: "biogpt trocr",
    names.BLOOM: "bloom falcon prophetnet",
    names.CPMANT: "cpmant",
    names.CTRL: "ctrl",
    names.DISTILBERT: "distilbert",
    names.ELECTRA: "convbert electra",
    names.FUNNEL: "funnel",
    names.GPT: "openai-gpt",
    names.GPT2: "gpt2 gpt_bigcode gpt_neo mpt",
    names.GPT_NEOX: "gpt_neox_japanese",
    names.MAMBA: "falcon_mamba mamba",
    names.MOBILEBERT: "mobilebert",
    names.MODERNBERT: "modernbert modernbert-decoder",
    names.NEOMME: "neomme",
    names.PER_LAYER: "gemma3n gemma3n_text gemma4 gemma4_text",
    names.ROBERTA: (
        "bert-generation camembert data2vec-text esm gte jina_embeddings_v3 longformer luke mpnet roberta "
        "roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod"
    ),
    names.PERCEIVER: "perceiver",
    names.SPEECHT5: "speecht5",
    names.T5_GEMMA: "t5gemma t5gemma2",
    names.WHISPER: "canary moonshine whisper",
    names.XLM: "flaubert xlm",
    names.XLNET: "xlnet",
}
_TIED_REGARDLESS = {names.T5: "longt5 mt5 pop2piano switch_transformers t5 udop umt5"}
_AS_THE_MODEL_INSIDE = {
    names.DECODER: (
        "audioflamingo3 blip-2 encoder-decoder instructblip instructblipvideo mllama muse_glimmer muse_spark "
        "musicflamingo nemotron_h_omni pp_formulanet qwen2_audio speech-encoder-decoder step3p7 vibevoice_asr "
        "vision-encoder-decoder voxtral"
    ),
    names.INKLING: "inkling2 inkling2_text inkling_mm_model inkling_text",
    names.NEMOTRON_H: "nemo_speechlm",
    names.PI0: "pi0",
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
_STATIC = Architecture(names.STATIC, tied=False)


def architecture_of(config: Mapping[str, Any]) -> Architecture | None:
    """Return what is known of a model by its config.json; that of a language model inside counts too.

    Args:
        config: The parsed file.
    """
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
