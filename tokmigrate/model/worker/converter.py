"""What llama.cpp's converter asks transformers about a tokenizer.

Request: `directory`; `text`; `added`, texts of added tokens.

Answer: `ids` of the text, with special tokens; `decoded`, what each added token is once it is tokenized and decoded;
`specials`, the tokens that transformers takes for special.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokmigrate.model.worker.worker_main import run_worker


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load the tokenizer and answer."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(request["directory"], local_files_only=True, trust_remote_code=False)
    return {
        "ids": tokenizer.encode(request["text"]),
        "decoded": [tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) for text in request["added"]],
        "specials": tokenizer.all_special_tokens,
    }


if __name__ == "__main__":
    run_worker(answer)
