"""What a worker runs: it reads a request from standard input and writes an answer to standard output."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from tokmigrate.errors import FileProblems

SHOWN = 20
"""How many differences an answer lists; all are counted."""

_MIB = 2**20

Request = Mapping[str, Any]
Answer = Mapping[str, Any]
Tell = Callable[[int], None]
"""Says that so much more is done."""


def run_worker(answer: Callable[[Request], Answer]) -> None:
    """Read one request, and write what `answer` makes of it, both JSON objects."""
    with _open_answers() as say:
        say(answer(_apply_limits(_request())))


def run_streaming_worker(answer: Callable[[Request, Tell], Answer]) -> None:
    """Read one request, and write how far `answer` is, as `{"done": n}` each time, and at last `{"answer": …}`.

    Where a file is not what it has to be, it is `{"problem": …}`, the first of FileProblems.
    """
    with _open_answers() as say:
        request = _apply_limits(_request())

        def tell(done: int) -> None:
            _limit_cpu(request)
            say({"done": done})

        try:
            say({"answer": answer(request, tell)})
        except FileProblems as error:
            say({"problem": asdict(error.problems[0])})


def _request() -> Request:
    request: Request = json.loads(sys.stdin.buffer.read())
    return request


def _apply_limits(request: Request) -> Request:
    """Return the request, after this process can use no more than its `limits`."""
    if limits := request.get("limits"):
        if taken := _address_space():
            _limit(resource.RLIMIT_AS, taken + limits["memory_mib"] * _MIB)
        _limit(resource.RLIMIT_FSIZE, limits["output_mib"] * _MIB)
        _limit(resource.RLIMIT_CORE, 0)
        _limit_cpu(request)
    return request


def _limit_cpu(request: Request) -> None:
    """Limit the CPU time of this process to that of the request's `limits`; SIGXCPU ends it then."""
    if limits := request.get("limits"):
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + limits["cpu_seconds"]))


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _address_space() -> int | None:
    """Return the bytes of address space that this process has, its libraries included; None where it is not known."""
    sizes = Path("/proc/self/statm")
    return int(sizes.read_text("ascii").split()[0]) * resource.getpagesize() if sizes.exists() else None


@contextmanager
def _open_answers() -> Iterator[Callable[[Answer], None]]:
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
    """Return how the ids of tokens in a library differ from what is expected.

    Returns:
        `count`; and up to 20 of them as `examples`, `{token: [expected or null, found or null]}`.
    """
    if expected == found:
        return {"count": 0, "examples": {}}
    wrong = [(text, [number, found.get(text)]) for text, number in expected.items() if found.get(text) != number] + [
        (text, [None, number]) for text, number in found.items() if text not in expected
    ]
    return {"count": len(wrong), "examples": dict(islice(sorted(wrong), SHOWN))}
