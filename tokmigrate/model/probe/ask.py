"""The asking side: one question, one worker process, one answer."""

from __future__ import annotations

import json
import os
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from tokmigrate.errors import TokenizerError, TokmigrateError, VerificationError
from tokmigrate.model.probe.worker import Question, start_worker

SECONDS = 600.0
"""How long a child may take; a cold disk needs most of it to import torch."""


def ask(question: Question, request: Mapping[str, Any], timeout: float = SECONDS) -> dict[str, Any]:
    """Ask a worker, and return its answer.

    Args:
        question: The module of `tokmigrate.model.probe` that answers, and that documents request and answer.
        request: What the module wants to know, as JSON.
        timeout: Seconds after which the worker is ended.

    Raises:
        TokenizerError: The worker that loads a tokenizer failed.
        VerificationError: Another worker failed.
    """
    answer: dict[str, Any] | None = None
    for said in _replies(question, request, {}, timeout):
        answer = said
    if answer is None:
        raise _failed(question, request, "an answer that is not JSON")
    return answer


def ask_at_length(question: Question, request: Mapping[str, Any], told: Callable[[int], None]) -> dict[str, Any]:
    """Ask a worker whose answer takes as long as its work is large, and hear how far it is.

    It may use all processors, unless TOKENIZERS_PARALLELISM or RAYON_NUM_THREADS says otherwise.

    Args:
        question: The module of `tokmigrate.model.probe` that answers at length.
        request: What the module wants to know, as JSON.
        told: Called with how much more is done.

    Raises:
        TokenizerError: The worker failed.
    """
    answer: dict[str, Any] | None = None
    parallel = {"TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM", "true")}
    for said in _replies(question, request, parallel, None):
        answer = said.get("answer")
        if "done" in said:
            told(said["done"])
    if answer is None:
        raise _failed(question, request, "no answer")
    return answer


def _replies(
    question: Question, request: Mapping[str, Any], environment: Mapping[str, str], timeout: float | None
) -> Iterator[dict[str, Any]]:
    """Yield what a worker says, line by line, and raise where it fails."""
    deadline = None if timeout is None else time.monotonic() + timeout
    # Files, so that neither side waits for the other to read.
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as complaints:
        asked.write(json.dumps(request).encode())
        asked.seek(0)
        source, sink = os.pipe()
        with (
            os.fdopen(source, "rb", buffering=0) as said,
            os.fdopen(sink, "wb") as written,
            start_worker(question, environment, (asked.fileno(), sink, complaints.fileno())) as worker,
        ):
            written.close()
            try:
                for line in _lines(said, deadline):
                    # One that dies may leave half a line.
                    if line.endswith(b"\n"):
                        yield json.loads(line)
            except TimeoutError as error:
                raise _failed(question, request, f"no answer within {timeout:g} seconds") from error
            except ValueError as error:
                raise _failed(question, request, "an answer that is not JSON") from error
            code = worker.wait()
        if code != 0:
            complaints.seek(0)
            raise _failed(question, request, _cause(code, complaints.read().decode("utf-8", "replace")))


def _lines(file: IO[bytes], deadline: float | None) -> Iterator[bytes]:
    """Yield lines as they come; raise TimeoutError at the deadline."""
    held = b""
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([file], [], [], left)[0]:
            raise TimeoutError
        block = os.read(file.fileno(), 1 << 20)
        *whole, held = (held + block).split(b"\n")
        for line in whole:
            yield line + b"\n"
        if not block:
            if held:
                yield held
            return


def _cause(code: int, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "Exception" in line or "panicked at" in line]
    last = (telling or lines or ["it said nothing"])[-1]
    if code < 0:
        try:
            return f"ended by {signal.Signals(-code).name}: {last}"
        except ValueError:
            return f"ended by signal {-code}: {last}"
    return last


def _failed(question: Question, request: Mapping[str, Any], cause: str) -> TokmigrateError:
    where = request.get("directory") or request.get("file") or request.get("corpus")
    if question in {"tokenizer", "reachability", "impact"}:
        return TokenizerError(
            f"the tokenizers library cannot work with it: {cause}",
            where=where,
            hint="load it with tokenizers.Tokenizer.from_file to see the same fault",
        )
    return VerificationError(
        f"transformers cannot work with it: {cause}",
        where=where,
        hint="load it with transformers' AutoConfig and AutoTokenizer to see the same fault",
    )
