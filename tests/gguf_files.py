"""GGUF files, made from model directories and read with the `gguf` package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import TokenType as Type
from making import tensors_of
from test_llama_cpp import converted, document, looks_special

from tokmigrate.model.tokenizer.byte_level import text_of_letters

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "lm_head.weight": "output.weight",
    "lm_head.bias": "output.bias",
    "model.norm.weight": "output_norm.weight",
}
OWN = ("tokmigrate.revision", "tokmigrate.lineage", "tokmigrate.padding")
KINDS = ("F32", "F16", "BF16", "Q8_0")


def listed(model: Path) -> list[tuple[str, Type]]:
    """Return text and type of each id of a byte-level model, as the converter reads them.

    It is the reading of `TextModel.get_vocab_base` of convert_hf_to_gguf.py in ggml-org/llama.cpp, commit
    a458664fc83b6513baea7adafcb0ef0626b006f8, said again.
    """
    tokenizer = document(model, "tokenizer.json")
    found = [(f"[PAD{number}]", Type.UNUSED) for number in range(document(model, "config.json")["vocab_size"])]
    for text, number in tokenizer["model"]["vocab"].items():
        found[number] = (text, Type.NORMAL)
    for entry in tokenizer["added_tokens"]:
        # The converter encodes and decodes one that is not looked for in the normalised text.
        text = entry["content"] if entry["normalized"] else text_of_letters(entry["content"])
        if entry["special"] or looks_special(text):
            found[entry["id"]] = (text, Type.CONTROL)
        else:
            found[entry["id"]] = (text.replace("\u2581", " "), Type.USER_DEFINED)
    return found


def convert(model: Path, path: Path, kind: str = "F16", *, alignment: int | None = None, **more: Any) -> Path:
    """Write the GGUF of a model, as the converter does it for what matters here.

    Args:
        kind: How matrices are stored.
        more: Further values, by keys with `__` for dots.
    """
    config = document(model, "config.json")
    has_pieces = (model / "tokenizer.model").exists()
    writer = gguf.GGUFWriter(path, config["model_type"])
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    writer.add_vocab_size(config["vocab_size"])
    tokens = converted(model) if has_pieces else listed(model)
    writer.add_tokenizer_model("llama" if has_pieces else "gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _ in tokens])
    if has_pieces:
        writer.add_token_scores(scores(model, tokens))
    writer.add_token_types([int(type_) for _, type_ in tokens])
    gguf.SpecialVocab(model, load_merges=not has_pieces, n_vocab=len(tokens)).add_to_gguf(writer, quiet=True)
    for key, value in more.items():
        add = {list: writer.add_array, str: writer.add_string}.get(type(value), writer.add_uint32)
        add(key.replace("__", "."), value)
    for name, tensor in tensors_of(model).items():
        add_tensor(writer, NAMES.get(name, name.replace("model.layers", "blk")), tensor, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tensor(writer: gguf.GGUFWriter, name: str, tensor: torch.Tensor, kind: str) -> None:
    values = tensor.to(torch.float32).numpy()
    if values.ndim == 1:
        writer.add_tensor(name, values)
        return
    stored = gguf.GGMLQuantizationType["F16" if "_" in kind and values.shape[1] % 32 else kind]
    writer.add_tensor(name, gguf.quants.quantize(values, stored), raw_dtype=stored)


def scores(model: Path, tokens: list[tuple[str, Type]]) -> list[float]:
    """Return the scores that `TextModel._create_vocab_sentencepiece` gives."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model / "tokenizer.model"))
    found = [-10000.0] * len(tokens)
    for number in range(min(len(pieces), len(tokens))):
        found[number] = pieces.get_score(number)
    for key in document(model, "tokenizer_config.json").get("added_tokens_decoder", {}):
        found[int(key)] = -1000.0
    return found


def values(path: Path) -> dict[str, Any]:
    """Return the values of a GGUF by their keys, without tokmigrate's own, as the `gguf` package reads them."""
    fields = gguf.GGUFReader(path).fields
    return {
        key: (field.types, field.contents())
        for key, field in fields.items()
        if key not in OWN and not key.startswith("GGUF.")
    }


def tensors(path: Path) -> Mapping[str, tuple[str, tuple[int, ...], bytes]]:
    """Return kind, dimensions and bytes of the tensors of a GGUF, as the `gguf` package reads them."""
    read = gguf.GGUFReader(path).tensors
    return {each.name: (each.tensor_type.name, tuple(map(int, each.shape)), each.data.tobytes()) for each in read}


def quantized(row: npt.NDArray[np.float32]) -> bytes:
    """Return a row as Q8_0 of the `gguf` package."""
    return bytes(gguf.quants.quantize(row, gguf.GGMLQuantizationType.Q8_0).tobytes())
