"""Vectors of tokens, alike for those that occur in like places of a corpus: fastText's, as FOCUS trains them.

Request: `files`, those of the corpus, as `Corpus.request` gives them; `document`, a tokenizer.json; `min_count`, how
often a token must occur to have a vector.

Streamed answer, progress in bytes read, `PASSES` times the corpus: `tokens`, the ids of those with a vector; `vectors`,
theirs, float32 in base64; `gensim`, its version.

A word of fastText is a token, a sentence a text. The parameters are those of the implementation of FOCUS (deepfocus
1.0), but for fewer buckets of letter groups: 200 MB instead of 800. Their order and the random numbers follow from the
corpus alone: one thread trains, and no hash differs between two processes.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.worker.corpus_files import CorpusFile, read_blocks
from tokmigrate.model.worker.worker_main import Tell, run_streaming_worker

_EPOCHS = 3
PASSES = 1 + _EPOCHS
"""How often the corpus is read."""

_TOGETHER = 256
"""How many texts are tokenized at a time."""

_LONGEST = 10_000
"""gensim passes over what a longer sentence has behind so many words."""


def answer(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    import gensim  # noqa: PLC0415 - an extra
    from gensim.models import FastText  # noqa: PLC0415

    tokenizer = open_tokenizer(request["document"])
    ids = tokenizer.get_vocab(with_added_tokens=True)
    sentences = _Sentences(tokenizer, {number: text for text, number in ids.items()}, request["files"], tell)
    model = FastText(
        vector_size=100,
        window=5,
        negative=10,
        alpha=0.05,
        sample=1e-4,
        min_count=request["min_count"],
        epochs=_EPOCHS,
        bucket=2**19,
        seed=1,
        workers=1,
        hashfxn=lambda text: zlib.crc32(text.encode()),
    )
    with text_alone(tokenizer):
        model.build_vocab(sentences)
        if model.wv.index_to_key:
            model.train(sentences, total_examples=model.corpus_count, epochs=_EPOCHS)
    return {
        "tokens": [ids[text] for text in model.wv.index_to_key],
        "vectors": base64.b64encode(model.wv.vectors.astype("<f4").tobytes()).decode(),
        "gensim": gensim.__version__,
    }


@dataclass(frozen=True)
class _Sentences:
    """The texts of a corpus as lists of tokens; they can be gone through again."""

    tokenizer: Any
    texts: Mapping[int, str]
    files: Sequence[Mapping[str, Any]]
    tell: Tell

    def __iter__(self) -> Iterator[list[str]]:
        for file in (CorpusFile(**each) for each in self.files):
            for block in read_blocks(file):
                lines = [text for _, text in block.texts]
                for start in range(0, len(lines), _TOGETHER):
                    some = lines[start : start + _TOGETHER]
                    for encoding in self.tokenizer.encode_batch_fast(some, add_special_tokens=False):
                        tokens = [self.texts[number] for number in encoding.ids]
                        yield from (tokens[place : place + _LONGEST] for place in range(0, len(tokens), _LONGEST))
                self.tell(block.read)


if __name__ == "__main__":
    run_streaming_worker(answer)
