"""What a model directory without tokenizer.json has instead, and the command that makes one of it.

The tables of classes are from transformers' `TOKENIZER_MAPPING_NAMES` and the classes' `vocab_files_names`; a test
holds them against transformers.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tokmigrate.errors import TokenizerError
from tokmigrate.files import entries, exists, has_file, read_file
from tokmigrate.model.documents.slow_tokenizer_files import TEKKEN_FILES, is_tiktoken
from tokmigrate.model.documents.state import CONFIG, MERGES, TOKENIZER_CONFIG, VOCAB_JSON, VOCAB_TXT
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.formats.sentencepiece import SentencePieceModel, is_sentencepiece
from tokmigrate.model.from_sentencepiece import known_differences
from tokmigrate.model.tokenizer.tokenizer_json import FILE


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

TOKENIZES_AS_SENTENCEPIECE: frozenset[str] = frozenset({"CamembertTokenizer", "T5Tokenizer", "XLMRobertaTokenizer"})
"""Those of them of which a test shows that they tokenize text like the SentencePiece model."""

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


TIKTOKEN_FILES = ("*.tiktoken", "tiktoken.model", "tokenizer.model")


@dataclass(frozen=True)
class Remedy:
    """How a directory gets its tokenizer.json.

    Args:
        has: The files that it has instead; None where there are none.
        command: What makes one; None where nothing does.
        packages: What has to be installed for it besides transformers.
        remarks: Where the result is not known to be exact, and why there is no command.
    """

    has: str | None
    command: str | None
    packages: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def no_tokenizer_json(directory: Path, documents: Mapping[str, Json]) -> TokenizerError:
    """Return the refusal of a directory without tokenizer.json; it names the command that makes one.

    Args:
        directory: The model's directory.
        documents: Its parsed files, config.json among them.
    """
    found = remedy(directory, documents)
    lines = []
    if found.command:
        lines.append(f"make one, which is then migrated with the rest:\n  {found.command}")
    if found.packages:
        lines.append(f"it needs: pip install {' '.join(found.packages)}")
    lines += found.remarks
    other = f"but {found.has}" if found.has else "and no other file that one can be made of"
    return TokenizerError(
        f"there is no tokenizer.json, {other}",
        where=str(directory),
        hint="\n".join(lines) or None,
    )


def remedy(directory: Path, documents: Mapping[str, Json]) -> Remedy:
    """Return how a directory gets its tokenizer.json.

    Args:
        directory: The model's directory.
        documents: Its parsed files, config.json among them.
    """
    model_type = str(documents[CONFIG].get("model_type", ""))
    declared = _read_class(documents)
    tekken = next((file for file in entries(directory) if file.match(TEKKEN_FILES)), None)
    sentencepiece = _first(directory, ("*.model",), is_sentencepiece)
    tiktoken = _first(directory, TIKTOKEN_FILES, is_tiktoken)
    if tekken is not None:
        return Remedy(tekken.name, _of_tekken(tekken))
    if model_type in PYTHON_ONLY:
        reason = (
            f"the tokenizer that transformers has for model type '{model_type}' is Python code, without such a file"
        )
        return Remedy("files of another kind", None, remarks=(reason,))
    if sentencepiece is not None:
        return _of_sentencepiece(sentencepiece, declared, model_type)
    if tiktoken is not None:
        return _of_tiktoken(tiktoken)
    if exists(directory / VOCAB_JSON) and exists(directory / MERGES):
        return _of_merges(directory, declared, model_type)
    if exists(directory / VOCAB_TXT):
        return _of_word_pieces(directory, declared, model_type, documents.get(TOKENIZER_CONFIG) or {})
    return Remedy(
        None,
        None,
        remarks=("copy tokenizer.json from the model that this one was trained from",),
    )


def _first(directory: Path, patterns: Iterable[str], fits: Callable[[bytes], bool]) -> Path | None:
    files = (file for pattern in patterns for file in entries(directory) if file.match(pattern) and has_file(file))
    return next((file for file in files if fits(read_file(file))), None)


def _read_class(documents: Mapping[str, Json]) -> str | None:
    """Return the class that tokenizer_config.json names, else config.json."""
    for name in (TOKENIZER_CONFIG, CONFIG):
        found = (documents.get(name) or {}).get("tokenizer_class")
        if isinstance(found, str):
            return found.removesuffix("Fast")
    return None


def _class_of(declared: str | None, model_type: str, classes: Mapping[str, str]) -> str | None:
    return declared if declared in classes.values() else classes.get(model_type)


def _of_tekken(file: Path) -> str:
    made = f"convert_tekken_tokenizer({_quote(file)}).backend_tokenizer"
    return _python(f"from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer; {made}", file)


def _of_sentencepiece(file: Path, declared: str | None, model_type: str) -> Remedy:
    name = _class_of(declared, model_type, SENTENCE_PIECES)
    if name is not None:
        exact = name in TOKENIZES_AS_SENTENCEPIECE
        remark = f"not exact: transformers' {name} tokenizes some texts differently from {file.name}"
        packages = ("sentencepiece", "protobuf")
        return Remedy(file.name, _by_class(name, file.parent), packages, () if exact else (remark,))
    model = SentencePieceModel.read(read_file(file), str(file))
    return Remedy(
        file.name,
        f"python -m tokmigrate.model.from_sentencepiece {shlex.quote(str(file.parent))}",
        remarks=(
            *(f"not exact: {text} may be tokenized differently" for text in known_differences(model)),
            "it puts tokens around a text only where tokenizer_config.json says `add_bos_token: true`"
            " or `add_eos_token: true`",
        ),
    )


def _of_tiktoken(file: Path) -> Remedy:
    remark = "not known to be exact: the file does not say how text is split first; this takes the rule of Llama 3"
    if file.suffix == ".model":
        command = _by_class("TokenizersBackend", file.parent)
        specials = "special tokens are those that tokenizer_config.json lists in added_tokens_decoder"
    else:
        code = f"from transformers.convert_slow_tokenizer import TikTokenConverter; TikTokenConverter({_quote(file)})"
        command = _python(f"{code}.converted()", file)
        specials = "special tokens are not in it; add them with a migration, in the order of their ids"
    return Remedy(file.name, f"TIKTOKEN_CACHE_DIR= {command}", ("tiktoken",), (remark, specials))


def _of_merges(directory: Path, declared: str | None, model_type: str) -> Remedy:
    name = _class_of(declared, model_type, VOCABULARY_AND_MERGES)
    remark = (
        f"not known to be exact: transformers has no class that reads these files for model type '{model_type}',"
        " and no file names one as tokenizer_class; this one splits text as GPT-2 does"
    )
    command = _by_class(name or "GPT2Tokenizer", directory)
    return Remedy(f"{VOCAB_JSON} and {MERGES}", command, remarks=() if name else (remark,))


def _of_word_pieces(directory: Path, declared: str | None, model_type: str, settings: Mapping[str, Json]) -> Remedy:
    name = _class_of(declared, model_type, WORD_PIECES)
    remarks = []
    if name is None:
        remarks.append(
            f"not known to be exact: transformers has no class that reads this file for model type '{model_type}',"
            " and no file names one as tokenizer_class; this one splits text as BERT does"
        )
    if "do_lower_case" not in settings:
        remarks.append("not exact for a cased model: it lower-cases unless tokenizer_config.json says do_lower_case")
    return Remedy(VOCAB_TXT, _by_class(name or "BertTokenizer", directory), remarks=tuple(remarks))


def _by_class(name: str, directory: Path) -> str:
    made = f"{name}.from_pretrained({_quote(directory)}).backend_tokenizer"
    return _python(f"from transformers import {name}; {made}", directory / FILE)


def _python(code: str, beside: Path) -> str:
    """Return the command that runs `code`, which ends in a tokenizer, and saves that beside a file."""
    return f"python -c {shlex.quote(f'{code}.save({_quote(beside.with_name(FILE))})')}"


def _quote(path: Path) -> str:
    """Return a path as Python's text; json's quotes stand well within those of a shell."""
    return json.dumps(str(path), ensure_ascii=False)
