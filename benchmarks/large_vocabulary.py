"""Compact a vocabulary of 256,000 tokens and take it back; print CPU seconds and peak memory of each command.

    python benchmarks/large_vocabulary.py DIRECTORY [TOKENS]

One of the first tokens is removed, so that nearly all others move. Child processes count: CPU time is the sum of all,
memory is that of the largest. Each step shall need less than 10 seconds and 500 MB.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

TOKENS, WIDTH, LONGEST = 256_000, 64, 12
GONE = "qzx"
SETTINGS = "format: 1\nverify: fast\nmodels:\n  large: {path: model}\n"
MIGRATION = f"""\
format: 1
revision: 0123456789ab
message: Remove a word
operations:
  - remove_tokens: {{tokens: [{GONE}], ids: compact, acknowledge: breaking}}
"""
COMMANDS = (("plan",), ("upgrade",), ("downgrade", "base"))


def alphabet() -> list[str]:
    """Return the letters that a byte-level tokenizer writes for bytes."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    return [*map(chr, sorted(printable)), *(chr(256 + place) for place in range(256 - len(printable)))]


def tokenizer(count: int) -> dict[str, Any]:
    """Return a byte-level BPE tokenizer with that many tokens, each made of two others."""
    chance = random.Random(0)  # noqa: S311 - the same tokens each time
    letters = alphabet()
    vocabulary = {letter: number for number, letter in enumerate(letters)} | {"qz": 256, GONE: 257}
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


def make_workspace(directory: Path, count: int) -> None:
    """Write a workspace with one model and one migration."""
    import torch  # noqa: PLC0415 - only the process that makes it
    from safetensors.torch import save_file  # noqa: PLC0415
    from transformers import LlamaConfig  # noqa: PLC0415

    shutil.rmtree(directory, ignore_errors=True)
    model = directory / "model"
    model.mkdir(parents=True)
    (directory / "migrations").mkdir()
    (directory / "tokmigrate.yaml").write_text(SETTINGS, "utf-8")
    (directory / "migrations" / "0001_remove.yaml").write_text(MIGRATION, "utf-8")
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4}
    LlamaConfig(vocab_size=count, tie_word_embeddings=True, **sizes).save_pretrained(model)
    (model / "tokenizer.json").write_text(json.dumps(tokenizer(count), indent=2, ensure_ascii=False), "utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048}
    (model / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), "utf-8")
    rows = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    save_file({"model.embed_tokens.weight": rows}, model / "model.safetensors", metadata={"format": "pt"})


def measured(directory: Path, *words: str) -> tuple[float, float]:
    """Run tokmigrate in a workspace; return its CPU seconds and its peak memory in MB, child processes included."""
    with subprocess.Popen(
        [sys.executable, "-m", "tokmigrate.cli.app", *words],
        cwd=directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as child:
        said = child.stderr.read() if child.stderr else b""
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(words)} failed: {said.decode()}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Print a line for each command."""
    directory = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else TOKENS
    # In a process of its own: what this one holds would count as memory of those that it starts.
    making = f"from large_vocabulary import *; make_workspace(Path({str(directory)!r}), {count})"
    subprocess.run([sys.executable, "-c", making], cwd=Path(__file__).parent, check=True)
    for words in COMMANDS:
        seconds, memory = measured(directory, *words)
        print(f"{count} tokens: {words[0]:10} {seconds:7.1f} CPU s {memory:7.0f} MB")


if __name__ == "__main__":
    main()
