"""How many tokens texts have with two tokenizers, by file and by script.

Request: `files`, those of the corpus, as `Corpus.request` gives them; `before` and `after`, each a tokenizer.json;
`held_out_alone`, whether only the texts that are held out are compared.

Streamed answer, progress in bytes read: `groups`, each a file, a main script of its texts, and what `Growth` holds of
these; `unexpected`, the file and the number of the first text that holds no removed token and becomes more tokens, or
as many others, null without one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.worker.corpus_files import CorpusFile, read_blocks
from tokmigrate.model.worker.count_tokens import is_held_out
from tokmigrate.model.worker.worker_main import Tell, run_streaming_worker
from tokmigrate.vocabulary.scripts import find_main_script

_COUNTS = ("texts", "bytes", "tokens_before", "tokens_after", "tokenized_differently", "with_removed_tokens")


def answer(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    before, after = (open_tokenizer(request[side]) for side in ("before", "after"))
    ids = after.get_vocab(with_added_tokens=True)
    new = {number: ids.get(token) for token, number in before.get_vocab(with_added_tokens=True).items()}
    groups: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(_COUNTS, 0))
    unexpected: tuple[str, int] | None = None
    held_out_alone = request["held_out_alone"]
    with text_alone(before), text_alone(after):
        for file in (CorpusFile(**each) for each in request["files"]):
            for block in read_blocks(file):
                texts = [each for each in block.texts if not held_out_alone or is_held_out(each[0])]
                old, made = (
                    side.encode_batch_fast([text for _, text in texts], add_special_tokens=False)
                    for side in (before, after)
                )
                for (number, text), was, now in zip(texts, old, made, strict=True):
                    expected, reached = [new[token] for token in was.ids], now.ids
                    group = groups[file.name, find_main_script(text)]
                    group["texts"] += 1
                    group["bytes"] += len(text.encode())
                    group["tokens_before"] += len(expected)
                    group["tokens_after"] += len(reached)
                    if expected != reached:
                        group["tokenized_differently"] += 1
                        if None in expected:
                            group["with_removed_tokens"] += 1
                        elif len(reached) >= len(expected) and unexpected is None:
                            unexpected = file.name, number
                tell(block.read)
    return {"groups": [[*names, counts] for names, counts in groups.items()], "unexpected": unexpected}


if __name__ == "__main__":
    run_streaming_worker(answer)
