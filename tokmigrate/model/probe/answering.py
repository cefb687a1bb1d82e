"""The answering side's frame: a request from standard input, an answer to standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

SHOWN = 20
"""How many differences an answer lists; all are counted."""


def answering(answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Read one request, and write what `answer` makes of it.

    Args:
        answer: From a request to an answer, both JSON objects.
    """
    # What a library prints must not get into the answer.
    out = os.dup(1)
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.read())
    answered = json.dumps(answer(request)).encode()
    with os.fdopen(out, "wb") as file:
        file.write(answered)


def id_differences(expected: Mapping[str, int], found: Mapping[str, int]) -> dict[str, Any]:
    """Return how the ids of tokens differ from what is expected.

    Args:
        expected: Ids by the texts of tokens.
        found: The same, as a library has it.

    Returns:
        `count`; and up to 20 of them as `examples`, `{token: [expected or null, found or null]}`.
    """
    wrong = [(text, [number, found.get(text)]) for text, number in expected.items() if found.get(text) != number] + [
        (text, [None, number]) for text, number in found.items() if text not in expected
    ]
    return {"count": len(wrong), "examples": dict(islice(sorted(wrong), SHOWN))}
