"""How often each token is in a corpus.

Request: `files`, the paths of the corpus; `document`, a tokenizer.json; `held_out`, whether the lines that are held out
are counted, every tenth, or the others; `texts`, further texts whose tokens are wanted.

Streamed answer, progress in bytes read: `counts`, `[id, count]` of each token that occurs; `text_bytes` of the lines
that are counted; `of_texts`, the ids of the tokens of `texts`. Or `problem`, where a corpus is not text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokmigrate.errors import FileProblems
from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.worker.impact import blocks
from tokmigrate.model.worker.worker_main import Tell, run_streaming_worker

HELD_OUT = 10
"""One line of so many is held out."""


def answer(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    tokenizer = open_tokenizer(request["document"])
    counts: Counter[int] = Counter()
    text_bytes = 0
    with text_alone(tokenizer):
        try:
            for path in request["files"]:
                for block in blocks(Path(path)):
                    lines = [text for number, text in block.lines if is_held_out(number) == request["held_out"]]
                    text_bytes += sum(len(text.encode()) for text in lines)
                    for encoding in tokenizer.encode_batch_fast(lines, add_special_tokens=False):
                        counts.update(encoding.ids)
                    tell(block.read)
        except FileProblems as error:
            return {"problem": asdict(error.problems[0])}
        of_texts = [
            encoding.ids for encoding in tokenizer.encode_batch_fast(request["texts"], add_special_tokens=False)
        ]
    return {
        "counts": sorted(counts.items()),
        "text_bytes": text_bytes,
        "of_texts": sorted({number for ids in of_texts for number in ids}),
    }


def is_held_out(number: int) -> bool:
    """Return whether a line, by its number from 1, is held out to measure what was learned from the others."""
    return number % HELD_OUT == 0


if __name__ == "__main__":
    run_streaming_worker(answer)
