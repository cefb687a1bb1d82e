"""Random models for the benchmarks: Llama with a byte-level tokenizer, written without torch.

    python benchmarks/models.py DIRECTORY NAME

numpy is imported late: what a process holds when it starts another counts as memory of that one.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LONGEST = 12
"""Letters of the longest token."""


@dataclass(frozen=True)
class Size:
    """The shape of a model.

    Args:
        vocabulary: Tokens and rows.
        hidden: The width of a row, a multiple of 128.
        layers: Transformer blocks.
        intermediate: The width inside a block.
        tied: Whether the output embedding is the input embedding.
        shard_bytes: The most that a weights file holds.
    """

    vocabulary: int
    hidden: int
    layers: int
    intermediate: int
    tied: bool = False
    shard_bytes: int = 5 * 10**9

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the tensors in the order in which transformers saves them."""
        hidden, inner, keys = self.hidden, self.intermediate, max(self.hidden // 3 // 128, 1) * 128
        yield "model.embed_tokens.weight", (self.vocabulary, hidden)
        for layer in range(self.layers):
            name = f"model.layers.{layer}"
            yield f"{name}.input_layernorm.weight", (hidden,)
            yield f"{name}.mlp.down_proj.weight", (hidden, inner)
            yield f"{name}.mlp.gate_proj.weight", (inner, hidden)
            yield f"{name}.mlp.up_proj.weight", (inner, hidden)
            yield f"{name}.post_attention_layernorm.weight", (hidden,)
            for part, rows in (("q", hidden), ("k", keys), ("v", keys)):
                yield f"{name}.self_attn.{part}_proj.weight", (rows, hidden)
            yield f"{name}.self_attn.o_proj.weight", (hidden, hidden)
        yield "model.norm.weight", (hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.vocabulary, hidden)

    def config(self) -> dict[str, Any]:
        """Return what `config.json` holds."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // 128,
            "num_key_value_heads": max(self.hidden // 3 // 128, 1),
            "head_dim": 128,
            "tie_word_embeddings": self.tied,
            "dtype": "bfloat16",
        }


SIZES = {
    "0.1 GB": Size(32_000, 512, 6, 1536),
    "0.4 GB": Size(64_000, 768, 14, 2048),
    "1.6 GB": Size(128_256, 1536, 16, 4096),
    "6 GB": Size(128_256, 3072, 22, 8192),
    "12 GB": Size(128_256, 3072, 54, 8192),
} | {f"vocabulary {count}": Size(count, 128, 1, 256, tied=True) for count in (32_000, 64_000, 128_000, 256_000)}


def make_model(directory: Path, size: Size) -> None:
    """Write a model of random bf16 numbers."""
    directory.mkdir(parents=True)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, shape in size.shapes():
        count = math.prod(shape) * 2
        if filled + count > size.shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += count
    import numpy as np  # noqa: PLC0415 - see the module's text

    noise = np.random.Generator(np.random.PCG64(0))
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(shards, 1):
        one = len(shards) == 1
        file = "model.safetensors" if one else f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map |= dict.fromkeys((name for name, _ in tensors), file)
        _write_shard(directory / file, tensors, noise)
    if len(shards) > 1:
        total = sum(math.prod(shape) * 2 for _, shape in size.shapes())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (directory / "config.json").write_text(json.dumps(size.config(), indent=2) + "\n")
    (directory / "tokenizer.json").write_text(json.dumps(make_tokenizer(size.vocabulary), indent=2, ensure_ascii=False))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def _write_shard(path: Path, tensors: list[tuple[str, tuple[int, ...]]], noise: np.random.Generator) -> None:
    import numpy as np  # noqa: PLC0415 - see the module's text

    from tokmigrate.model.formats.safetensors_header import encode_header  # noqa: PLC0415 - it imports numpy

    with path.open("wb") as out:
        out.write(encode_header([(name, "BF16", shape) for name, shape in tensors], {"format": "pt"}, 8))
        for _, shape in tensors:
            left = math.prod(shape)
            while left:
                count = min(left, 1 << 24)
                values = noise.standard_normal(count, np.float32) * np.float32(0.02)
                out.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
                left -= count


def make_tokenizer(count: int) -> dict[str, Any]:
    """Return a byte-level BPE tokenizer with that many tokens, each made of two others; `qzx` is one of the first."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    letters = [*map(chr, sorted(printable)), *(chr(256 + place) for place in range(256 - len(printable)))]
    chance = random.Random(0)  # noqa: S311 - the same tokens each time
    vocabulary = {letter: number for number, letter in enumerate(letters)} | {"qz": 256, "qzx": 257}
    merges = [["q", "z"], ["qz", "x"]]
    known = list(letters)
    while len(vocabulary) < count:
        left, right = chance.choice(known), chance.choice(known)
        if len(left) + len(right) <= LONGEST and left + right not in vocabulary:
            vocabulary[left + right] = len(vocabulary)
            merges.append([left, right])
            known.append(left + right)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": merges}
    parts = {"normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], **parts, "model": model}


if __name__ == "__main__":
    make_model(Path(sys.argv[1]), SIZES[sys.argv[2]])
