"""How often each token is in a corpus.

Request: `files`, those of the corpus, as `Corpus.request` gives them; `document`, a tokenizer.json.

Streamed answer, progress in bytes read: `counts`, `[id, count]` of each token that occurs in the texts to learn from,
as often as the weights of their files say; `text_bytes` of these texts. Every tenth text of a file is held out and not
counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.worker.corpus_files import CorpusFile, read_blocks
from tokmigrate.model.worker.token_counter import TokenCounter
from tokmigrate.model.worker.worker_main import Tell, run_streaming_worker

HELD_OUT = 10
"""One text of so many is held out."""


def answer(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    tokenizer = open_tokenizer(request["document"])
    counts: dict[int, float] = defaultdict(int)
    text_bytes = 0
    with text_alone(tokenizer):
        for file in (CorpusFile(**each) for each in request["files"]):
            of_file = TokenCounter(tokenizer)
            for block in read_blocks(file):
                texts = [text for number, text in block.texts if not is_held_out(number)]
                text_bytes += sum(len(text.encode()) for text in texts)
                of_file.add(texts)
                tell(block.read)
            for number, count in of_file.counts().items():
                counts[number] += count * file.weight
    return {"counts": sorted(counts.items()), "text_bytes": text_bytes}


def is_held_out(number: int) -> bool:
    """Return whether a text, by its number from 1, is held out to measure what was learned from the others."""
    return number % HELD_OUT == 0


if __name__ == "__main__":
    run_streaming_worker(answer)
