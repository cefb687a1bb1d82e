"""What the tokenizers library makes of a tokenizer.json.

Request: `file`, the path, or `document`, the parsed file; `expected`, the id of every token by its text (optional);
`encode` and `normalise`, texts (optional); `count`, lists of texts (optional); `samples`, whether it is tried on texts
of our own.

Answer: `size` with added tokens; `differences` from `expected` as `id_differences` gives them; `encodings`,
`{ids, tokens}` for each text without special tokens added, or `{error}` where the tokenizer cannot tokenize it;
`counts`, `{tokens, bytes}` for each list of texts, or `{error}`;
`normalised`, what the normalizer makes of texts; `samples`, as `samples.py` describes it. The padding, truncation and
dropout of the file have no part in it, and its post-processor only in the samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.worker.samples import describe_library
from tokmigrate.model.worker.worker_main import id_differences, run_worker


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    tokenizer = open_tokenizer(Path(request["file"]) if "file" in request else request["document"])
    found: dict[str, Any] = {"size": tokenizer.get_vocab_size(with_added_tokens=True)}
    if "expected" in request:
        found["differences"] = id_differences(request["expected"], tokenizer.get_vocab(with_added_tokens=True))
    with text_alone(tokenizer):
        found["encodings"] = [_encode(tokenizer, text) for text in request.get("encode", [])]
        found["counts"] = [_count(tokenizer, texts) for texts in request.get("count", [])]
    normalizer = tokenizer.normalizer
    texts = request.get("normalise", [])
    found["normalised"] = [normalizer.normalize_str(text) for text in texts] if normalizer else texts
    if request.get("samples"):
        found["samples"] = describe_library(tokenizer)
    return found


def _encode(tokenizer: Any, text: str) -> dict[str, Any]:
    try:
        encoding = tokenizer.encode(text, add_special_tokens=False)
    except Exception as error:
        # It has a letter that the model does not know, and there is no token for what is unknown.
        return {"error": str(error)}
    return {"ids": encoding.ids, "tokens": encoding.tokens}


def _count(tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    try:
        tokens = sum(len(each.ids) for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    except Exception as error:
        return {"error": str(error)}
    return {"tokens": tokens, "bytes": sum(len(text.encode()) for text in texts)}


if __name__ == "__main__":
    run_worker(answer)
