"""Which class of transformers 5 reads the tokenizer files of a model type that are not a tokenizer.json.

From transformers' `TOKENIZER_MAPPING_NAMES` and the classes' `vocab_files_names`; a test holds the tables against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def _by_model_type(classes: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({model_type: name for name, types in classes.items() for model_type in types.split()})


VOCABULARY_AND_MERGES = _by_model_type(
    {
        "BlenderbotTokenizer": "blenderbot",
        "CLIPTokenizer": "aimv2 clip clipseg groupvit omdet-turbo oneformer owlv2 owlvit sam3 sam3_video xclip",
        "CohereTokenizer": "aya_vision cohere cohere2",
        "DebertaTokenizer": "deberta",
        "GPT2Tokenizer": "blip-2 codegen dbrx emu3 gpt2 gpt_neo gptj hyperclovax_vision_v2 instructblip"
        " instructblipvideo jais2 opt phi starcoder2",
        "GPTNeoXTokenizer": "falcon_mamba gpt_neox mamba mamba2 mpt olmo olmoe rwkv xlstm",
        "Qwen2Tokenizer": "audioflamingo3 colqwen2 cosmos3_omni dots3_note fun_asr_nano hunyuan_vl internvl"
        " lighton_ocr moss_transcribe_diarize ovis2 qianfan_ocr qwen2 qwen2_5_omni qwen2_5_vl qwen2_audio qwen2_moe"
        " qwen2_vl qwen3 qwen3_asr qwen3_moe qwen3_next qwen3_omni_moe qwen3_vl qwen3_vl_moe vibevoice",
        "RobertaTokenizer": "bart bridgetower clap data2vec-text florence2 ibert led lilt longformer mega mra mvp"
        " roberta roberta-prelayernorm",
        "WhisperTokenizer": "whisper",
    }
)
"""Classes that read vocab.json and merges.txt."""

WORD_PIECES = _by_model_type(
    {
        "BertTokenizer": "align bark bert blip bros chinese_clip convbert distilbert electra ernie flava git"
        " grounding-dino layoutlm lxmert megatron-bert mm-grounding-dino mobilebert nezha nomic_bert qdqbert realm"
        " retribert squeezebert tvp vilt visual_bert",
        "MPNetTokenizer": "mpnet",
    }
)
"""Classes that read vocab.txt."""

SENTENCE_PIECES = _by_model_type(
    {
        "AlbertTokenizer": "albert yoso",
        "BarthezTokenizer": "barthez",
        "BigBirdTokenizer": "big_bird",
        "CamembertTokenizer": "camembert",
        "DebertaV2Tokenizer": "deberta-v2",
        "MBart50Tokenizer": "mbart50",
        "MBartTokenizer": "mbart",
        "NllbTokenizer": "nllb nllb-moe",
        "PegasusTokenizer": "pegasus",
        "SeamlessM4TTokenizer": "seamless_m4t seamless_m4t_v2",
        "T5Tokenizer": "mt5 musicgen musicgen_melody switch_transformers t5",
        "XLMRobertaTokenizer": "gte jina_embeddings_v3 metaclip_2 trocr xlm-roberta xmod",
        "XLNetTokenizer": "xlnet",
    }
)
"""Classes that read a SentencePiece model and give its pieces ids, or add tokens, in a way of their own."""

CUT_AS_SENTENCEPIECE: frozenset[str] = frozenset({"CamembertTokenizer", "T5Tokenizer", "XLMRobertaTokenizer"})
"""Those of them of which a test shows that they cut text like the SentencePiece model."""

PYTHON_ONLY: frozenset[str] = frozenset(
    model_type
    for types in (
        "bartpho bert-generation bert-japanese bertweet biogpt blenderbot-small byt5 canine clvp cpm cpmant ctrl",
        "data2vec-audio dia esm flaubert fsmt gpt-sw3 gpt_neox_japanese hubert m2m_100 marian mgp-str myt5 perceiver",
        "phobert plbart prophetnet rag roc_bert siglip speech_to_text speecht5 tapas unispeech unispeech-sat vits",
        "wav2vec2 wav2vec2-bert wav2vec2-conformer wav2vec2_phoneme xlm",
    )
    for model_type in types.split()
)
"""Model types whose tokenizer is Python code."""
