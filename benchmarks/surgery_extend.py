"""Extend tokenizers by tokens of a domain: `learn extend` beside a BPE that is trained on the domain alone.

    python benchmarks/surgery_extend.py --domain FILE --old FILE [--tokens N …] TOKENIZER…

Each TOKENIZER is a directory with the files of a BPE tokenizer. Prints a Markdown table: the change of tokens in the
tenth of the domain that is held out, and in the old text; lines of both and of 10,000 random strings that have a new
boundary between tokens; new tokens that no text produces; and lines that a SentencePiece model beside tokenizer.json
tokenizes differently from it, and did not before.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokmigrate_runs import FAST, make_workspace, run_tokmigrate

from tokmigrate.model.documents.declared import state_without_weights
from tokmigrate.model.tokenizer.byte_level import is_byte_level, text_of_letters
from tokmigrate.model.tokenizer.tokenizer_json import merges_of
from tokmigrate.operations.token_checks import find_unreachable

LETTERS = "abcdefgh  \n\t.,:()_=0123'\"éß漢字🦄ÄĠ▁<|>"


def workspace(root: Path, source: Path) -> Path:
    """Make a workspace with a model of few numbers that has the tokenizer of `source`, and return the model."""
    model = make_workspace(root, {"m": root / "m"}, [], FAST) / "m"
    model.mkdir()
    for path in source.glob("tokenizer*"):
        shutil.copy(path, model)
    rows = Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab_size(with_added_tokens=True)
    save_file({"model.embed_tokens.weight": np.ones((rows, 4), np.float32)}, model / "model.safetensors")
    (model / "config.json").write_text(f'{{"model_type": "llama", "vocab_size": {rows}, "tie_word_embeddings": true}}')
    return model


def fresh_merges(document: dict[str, Any], domain: Path, count: int) -> list[tuple[str, str]]:
    """Return the first merges that a BPE trained on the domain has for tokens that the old one lacks."""
    fresh, alphabet = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel.alphabet()
    fresh.pre_tokenizer = pre_tokenizers.ByteLevel(False) if is_byte_level(document) else pre_tokenizers.Metaspace()
    fresh.train([str(domain)], trainers.BpeTrainer(vocab_size=30_000, initial_alphabet=alphabet, show_progress=False))
    known = {*document["model"]["vocab"]}
    found: list[tuple[str, str]] = []
    for left, right in merges_of(json.loads(fresh.to_str())["model"]):
        if left + right not in known and {left, right} <= known and len(found) < count:
            known.add(left + right)
            found.append((left, right))
    return found


def boundaries(tokenizer: Tokenizer, lines: Sequence[str]) -> list[set[int]]:
    """Return where the tokens of each line end, in letters of the vocabulary's spelling."""
    document = json.loads(tokenizer.to_str())
    is_bytes = is_byte_level(document)
    sizes = {number: len(token) for token, number in tokenizer.get_vocab().items()}
    for entry in document["added_tokens"]:
        sizes[entry["id"]] = len(entry["content"].encode() if is_bytes else entry["content"])
    encodings = tokenizer.encode_batch(lines, add_special_tokens=False)
    return [{*accumulate(sizes[number] for number in encoding.ids)} for encoding in encodings]


def differences(model: Path, lines: Sequence[str]) -> set[int]:
    """Return the lines that SentencePiece tokenizes differently; none where there is no such model."""
    if not (model / "tokenizer.model").exists():
        return set()
    judged = SentencePieceProcessor(model_file=str(model / "tokenizer.model")).encode(list(lines))
    encodings = Tokenizer.from_file(str(model / "tokenizer.json")).encode_batch(lines, add_special_tokens=False)
    return {place for place, ids in enumerate(judged) if encodings[place].ids != ids}


def variants(root: Path, directory: Path, domain: Path, count: int) -> Iterator[tuple[str, Path]]:
    """Yield what was done, and the model that it made."""
    model = workspace(root / "learned", directory)
    run_tokmigrate(root / "learned", "learn", "extend", str(domain), "--tokens", str(count), "-m", "Learned")
    run_tokmigrate(root / "learned", "upgrade")
    yield "`learn extend`", model
    document = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    merges = fresh_merges(document, domain, count)
    texts = [text_of_letters("".join(merge)).replace("▁", " ") for merge in merges]
    added = {entry["content"]: entry["id"] for entry in document["added_tokens"]}
    model = workspace(root / "added", directory)
    operation = {"add_tokens": [{"content": text, "normalized": False} for text in texts if text not in added]}
    migration = {"format": 1, "revision": "aaaa0001", "down_revision": None, "message": "m", "operations": [operation]}
    (root / "added" / "migrations" / "0001_m.yaml").write_text(json.dumps(migration), "utf-8")
    run_tokmigrate(root / "added", "upgrade")
    yield "fresh BPE, `add_tokens`", model
    model = workspace(root / "merged", directory)
    held = document["model"]
    held["merges"] = [list(merge) for merge in (*merges_of(held), *merges)]
    held["vocab"] |= added
    held["vocab"] |= {"".join(merge): place for place, merge in enumerate(merges, len(held["vocab"]))}
    (model / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    yield "fresh BPE, merges appended", model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenizers", nargs="+", type=Path)
    parser.add_argument("--domain", type=Path, required=True)
    parser.add_argument("--old", type=Path, required=True)
    parser.add_argument("--tokens", nargs="+", type=int, default=[256, 2_000])
    given = parser.parse_args()
    domain, old_text = (path.read_text("utf-8").split("\n") for path in (given.domain, given.old))
    cells = ("tokenizer", "how", "new tokens", "domain", "old text", "new boundaries", "unreachable", "SentencePiece")
    print("| " + " | ".join(cells) + " |\n" + "|---" * len(cells) + "|")
    for directory in given.tokenizers:
        old = Tokenizer.from_file(str(directory / "tokenizer.json"))
        source = random.Random(1)  # noqa: S311 - the same strings each time
        some = [text_of_letters(token).replace("▁", " ") for token in source.sample(sorted(old.get_vocab()), 3_000)]
        fuzz = ["".join(source.choices(some, k=source.randint(1, 8))) for _ in range(5_000)]
        fuzz += ["".join(source.choices(LETTERS, k=source.randint(1, 40))) for _ in range(5_000)]
        lines = [*domain, *old_text, *fuzz]
        before = boundaries(old, lines)
        parts = (slice(9, len(domain), 10), slice(len(domain), len(domain) + len(old_text)))
        different = differences(directory, lines)
        for count in given.tokens:
            with tempfile.TemporaryDirectory() as folder:
                for how, model in variants(Path(folder), directory, given.domain, count):
                    new = Tokenizer.from_file(str(model / "tokenizer.json"))
                    after = boundaries(new, lines)
                    changes = [sum(map(len, after[part])) / sum(map(len, before[part])) - 1 for part in parts]
                    broken = sum(not now <= was for now, was in zip(after, before, strict=True))
                    state = state_without_weights({"tokenizer.json": json.loads(new.to_str())}, 0)
                    made = new.get_vocab().keys() - old.get_vocab().keys()
                    lost = find_unreachable(state, made - state.tokenizer.added.keys())
                    other = len(differences(model, lines) - different)
                    told = f"| {directory.name} | {how} | {len(made):,} | {changes[0]:+.1%} | {changes[1]:+.1%}"
                    print(f"{told} | {broken:,} | {len(lost):,} | {other:,} |", flush=True)


if __name__ == "__main__":
    main()
