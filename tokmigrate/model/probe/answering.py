"""The answering side's frame: a request from standard input, an answer to standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

SHOWN = 20
"""How many differences an answer lists; all are counted."""


Request = Mapping[str, Any]
Answer = Mapping[str, Any]
Tell = Callable[[int], None]
"""Says that so much more is done."""


def answering(answer: Callable[[Request], Answer]) -> None:
    """Read one request, and write what `answer` makes of it.

    Args:
        answer: From a request to an answer, both JSON objects.
    """
    with _speaking() as say:
        say(answer(_request()))


def answering_at_length(answer: Callable[[Request, Tell], Answer]) -> None:
    """Read one request, and write how far `answer` is, as `{"done": n}` each time, and at last `{"answer": …}`.

    Args:
        answer: From a request, and what it tells its progress to, to an answer.
    """
    with _speaking() as say:
        say({"answer": answer(_request(), lambda done: say({"done": done}))})


def _request() -> Request:
    request: Request = json.loads(sys.stdin.buffer.read())
    return request


@contextmanager
def _speaking() -> Iterator[Callable[[Answer], None]]:
    """Give a function that writes a line of JSON to standard output."""
    # What a library prints must not get into the answer.
    out = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(out, "wb") as file:

        def say(said: Answer) -> None:
            file.write(json.dumps(said).encode() + b"\n")
            file.flush()

        yield say


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
