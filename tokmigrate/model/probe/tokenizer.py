"""What the tokenizers library makes of a tokenizer.json.

Request: `file`, the path, or `document`, the parsed file; `expected`, the id of every token by its text (optional);
`encode`, texts; `decode`, lists of ids (optional); `normalise`, texts (optional).

Answer: `size` with added tokens; `differences` from `expected` as `id_differences` gives them; `encodings`,
`{ids, tokens}` for each text without special tokens added; `encodings_with_special`, the ids with them;
`decodings`, texts with special tokens; `normalised`, what the normalizer makes of texts; `padding` and `truncation` as
the file sets them, or null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokmigrate.model.probe.answering import answering, id_differences


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load the tokenizer and answer."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - only the child pays for it

    is_file = "file" in request
    tokenizer = Tokenizer.from_file(request["file"]) if is_file else Tokenizer.from_str(json.dumps(request["document"]))
    padding, truncation = tokenizer.padding, tokenizer.truncation
    found: dict[str, Any] = {
        "size": tokenizer.get_vocab_size(with_added_tokens=True),
        "padding": padding,
        "truncation": truncation,
    }
    if "expected" in request:
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        found["differences"] = id_differences(request["expected"], vocabulary)
    # A fixed length would fill and cut the examples.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = request.get("encode", [])
    plain = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    found["encodings"] = [{"ids": encoding.ids, "tokens": encoding.tokens} for encoding in plain]
    found["encodings_with_special"] = [tokenizer.encode(text, add_special_tokens=True).ids for text in texts]
    found["decodings"] = [tokenizer.decode(ids, skip_special_tokens=False) for ids in request.get("decode", [])]
    normalizer = tokenizer.normalizer
    texts = request.get("normalise", [])
    found["normalised"] = [normalizer.normalize_str(text) for text in texts] if normalizer else texts
    return found


if __name__ == "__main__":
    answering(answer)
