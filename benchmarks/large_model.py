"""Upgrade a random Llama of 6 GB by two tokens; print peak memory, time, and which shards were written.

    python benchmarks/large_model.py DIRECTORY

DIRECTORY needs about 20 GB of free space. The model is made there once and kept.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

VOCABULARY, HIDDEN, LAYERS, INTERMEDIATE, SHARD_BYTES = 128_256, 3072, 22, 8192, 5 * 10**9
MIGRATION = """format: 1
revision: 0123456789ab
message: Two tokens
operations:
  - add_tokens: {tokens: [{content: "<|planner|>", special: true}, {content: "<|critic|>", special: true}]}
"""


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors of the model in the order in which transformers saves them."""
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        yield f"{name}.input_layernorm.weight", (HIDDEN,)
        yield f"{name}.mlp.down_proj.weight", (HIDDEN, INTERMEDIATE)
        yield f"{name}.mlp.gate_proj.weight", (INTERMEDIATE, HIDDEN)
        yield f"{name}.mlp.up_proj.weight", (INTERMEDIATE, HIDDEN)
        yield f"{name}.post_attention_layernorm.weight", (HIDDEN,)
        for part, rows in (("q", HIDDEN), ("k", 1024), ("v", 1024)):
            yield f"{name}.self_attn.{part}_proj.weight", (rows, HIDDEN)
        yield f"{name}.self_attn.o_proj.weight", (HIDDEN, HIDDEN)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)


def make(directory: Path) -> None:
    """Write the model: random bf16 numbers, a byte-level vocabulary filled up with tokens that nothing reaches."""
    directory.mkdir(parents=True)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    size = 0
    for name, shape in shapes():
        if size + math.prod(shape) * 2 > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += math.prod(shape) * 2
    weight_map: dict[str, str] = {}
    total = 0
    noise = np.random.Generator(np.random.PCG64(0))
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        position = 0
        for name, shape in tensors:
            end = position + math.prod(shape) * 2
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
            weight_map[name] = file
            position = end
        total += position
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with (directory / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for _, shape in tensors:
                left = math.prod(shape)
                while left:
                    count = min(left, 1 << 24)
                    values = noise.standard_normal(count, np.float32) * np.float32(0.02)
                    out.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
                    left -= count
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(alphabet)}
    vocabulary |= {f"<filler {number}>": number for number in range(len(alphabet), VOCABULARY)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}\n')


def timed(workspace: Path, *words: str) -> None:
    """Run tokmigrate and print its time and the peak memory of its largest process."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "tokmigrate.cli.app", *words], cwd=workspace)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{words}: exit status {status}")
    seconds = time.monotonic() - started
    cpu = usage.ru_utime + usage.ru_stime
    print(f"{' '.join(words)}: {seconds:.1f} s, {cpu:.1f} s of CPU, peak {usage.ru_maxrss // 1024} MB of the process")


def main() -> None:
    """Make the model where it is missing, then upgrade and downgrade it."""
    workspace = Path(sys.argv[1])
    model = workspace / "big"
    if not model.exists():
        make(model)
    (workspace / "migrations").mkdir(exist_ok=True)
    (workspace / "migrations" / "0001_two_tokens.yaml").write_text(MIGRATION)
    (workspace / "tokmigrate.yaml").write_text("format: 1\nmodels:\n  big: {path: big}\n")
    inodes = {path.name: path.stat().st_ino for path in model.iterdir()}
    timed(workspace, "upgrade")
    for path in sorted(model.iterdir()):
        fate = "kept" if inodes.get(path.name) == path.stat().st_ino else "written"
        print(f"  {path.name}: {fate}, {path.stat().st_size:,} bytes")
    timed(workspace, "downgrade", "base")


if __name__ == "__main__":
    main()
