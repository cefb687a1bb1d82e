"""What another model's tokenizer costs a small trained model, in nats per byte, with each way to make the new rows.

    python benchmarks/transplant.py DIRECTORY --body TOKENIZER --donor TOKENIZER [--text FOLDER] [--seconds 120]

It trains two small models on the Python sources below a folder, one with each tokenizer, gives the donor's tokenizer to
the body with `tokmigrate`, and prints a table in Markdown. Models that were trained before are used again. `focus`
reads the files that the models were trained on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokmigrate_runs import copy_into_workspace, run_tokmigrate
from transformers import LlamaConfig, LlamaForCausalLM

from tokmigrate.model.tokenizer.library import open_tokenizer

HELD_OUT = 40
"""Every so many files are held out."""
CONTEXT, BATCH = 64, 24
FILES = ("tokenizer.json", "tokenizer_config.json")
MEAN = "{strategy: mean}"
CORPUS = "corpus.jsonl"
METHODS = ["omp 64", "omp 16", "omp 4", "focus 64", "focus 16", "focus 4", "subtokens", "mean"]


def read_text(folder: Path, most: int) -> tuple[list[str], list[str]]:
    """Return the files to learn from, of `most` bytes together, and a thirtieth of that from those held out."""
    learnt: list[str] = []
    held: list[str] = []
    room = {True: most // 30, False: most}
    for number, path in enumerate(sorted(folder.rglob("*.py"))):
        is_held = number % HELD_OUT == 0
        text = path.read_text("utf-8", "replace")
        if 2_000 < len(text) < 60_000 and room[is_held] > 0:
            (held if is_held else learnt).append(text)
            room[is_held] -= len(text.encode())
    return learnt, held


def encode(directory: Path, texts: list[str]) -> torch.Tensor:
    """Return the ids of texts, one after the other."""
    encodings = open_tokenizer(directory / "tokenizer.json").encode_batch(texts, add_special_tokens=False)
    return torch.tensor([number for each in encodings for number in each.ids])


def train(directory: Path, source: Path, texts: list[str], seconds: float, seed: int) -> None:
    """Train a small model with the tokenizer of `source` for so many seconds of CPU time, and save it."""
    directory.mkdir(parents=True)
    for file in FILES:
        if (source / file).exists():
            shutil.copy(source / file, directory)
    ids = encode(directory, texts)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    roles = json.loads((directory / "tokenizer_config.json").read_text("utf-8"))
    ends = {
        f"{role}_token_id": tokenizer.token_to_id(roles.get(f"{role}_token") or "") for role in ("bos", "eos", "pad")
    }
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(with_added_tokens=True),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        **ends,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    start, steps = time.process_time(), 0
    while (spent := time.process_time() - start) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (steps + 1) / 40) * max(0.05, 1.0 - spent / seconds)
        places = torch.randint(len(ids) - CONTEXT, (BATCH,))
        batch = torch.stack([ids[place : place + CONTEXT] for place in places])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    print(f"{directory.name}: {steps} steps, last loss {loss.item():.2f} nats per token", file=sys.stderr)
    model.save_pretrained(directory)


def nats_per_byte(directory: Path, texts: list[str]) -> tuple[float, float]:
    """Return the loss of a model on texts, and how many bytes a token has there, with its own tokenizer."""
    model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    ids, nats = encode(directory, texts), 0.0
    size = sum(len(text.encode()) for text in texts)
    with torch.no_grad():
        for batch in ids[: len(ids) // CONTEXT * CONTEXT].reshape(-1, CONTEXT).split(64):
            nats += model(input_ids=batch, labels=batch).loss.item() * batch.numel()
    return nats / size, size / len(ids)


def rows(directory: Path, held: list[str], methods: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table."""
    body, donor = directory / "body", directory / "donor"
    for name, model in (("the body, before", body), ("the donor, which gives the tokenizer", donor)):
        loss, size = nats_per_byte(model, held)
        yield name, "", "", f"{loss:.3f}", f"{size:.2f}"
    for method in methods:
        root = directory / "workspace"
        model = copy_into_workspace(root, body)
        kind, _, most = method.partition(" ")
        words = ["--method", "subtokens" if kind == "mean" else kind, *(["-k", most] if most else [])]
        words += ["--corpus", str(directory / CORPUS)] if kind == "focus" else []
        common = ["learn", "transplant", "--donor", str(donor), "--template", "donor", "-m", "m", "--json"]
        told, cpu = run_tokmigrate(root, *common, *words)
        learned: dict[str, Any] = json.loads(told)
        file = f"{learned['bytes_of_coefficients'] / 2**20:.2f} MiB"
        if kind == "mean":
            path = root / learned["file"]
            line = next(line for line in path.read_text("utf-8").splitlines() if "coefficients:" in line)
            path.write_text(
                path.read_text("utf-8").replace(line, f"{line.split('coefficients')[0]}init: {MEAN}"), "utf-8"
            )
            (root / "migrations" / "tokmigrate.lock").unlink(missing_ok=True)
            file, cpu = "none", 0.0
        run_tokmigrate(root, "upgrade")
        loss, size = nats_per_byte(model, held)
        if method == methods[0]:
            counts = {key: f"{value:,}" for key, value in learned["tokens"].items()}
            print(f"tokens: {counts}, left out of sums: {learned['left_out_as_undertrained']}", file=sys.stderr)
        yield method, file, f"{cpu:.0f}" if cpu else "", f"{loss:.3f}", f"{size:.2f}"


def main() -> None:
    """Train what is not there, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--body", type=Path, required=True)
    parser.add_argument("--donor", type=Path, required=True)
    parser.add_argument("--text", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--method", nargs="*", default=METHODS)
    given = parser.parse_args()
    learnt, held = read_text(given.text, 4 << 20)
    given.directory.mkdir(parents=True, exist_ok=True)
    (given.directory / CORPUS).write_text("".join(f"{json.dumps({'text': text})}\n" for text in learnt), "utf-8")
    # Each on one core, at the same time.
    with ProcessPoolExecutor(2) as processes:
        for seed, name in enumerate(("body", "donor")):
            if not (given.directory / name / "config.json").exists():
                shutil.rmtree(given.directory / name, ignore_errors=True)
                processes.submit(train, given.directory / name, getattr(given, name), learnt, given.seconds, seed)
    print("| new rows | coefficients | CPU s of `learn` | nats per byte | bytes per token |\n|---|---|---|---|---|")
    for row in rows(given.directory, held, given.method):
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
