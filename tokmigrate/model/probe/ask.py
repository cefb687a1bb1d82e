"""The asking side: one question, one worker process, one answer."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import IO, Any, Literal

from tokmigrate.errors import LimitError, TokenizerError, TokmigrateError, VerificationError
from tokmigrate.formatting import format_count
from tokmigrate.model.probe.worker import Question, start_worker
from tokmigrate.settings import WorkerLimits

DEFAULT_LIMITS = WorkerLimits()

SECONDS = 600.0
"""How long a child may take; a cold disk needs most of it to import torch."""


def ask(
    question: Question,
    request: Mapping[str, Any],
    limits: WorkerLimits = DEFAULT_LIMITS,
    timeout: float = SECONDS,
) -> dict[str, Any]:
    """Ask a worker, and return its answer.

    Args:
        question: The module of `tokmigrate.model.probe` that answers, and that documents request and answer.
        request: What the module wants to know, as JSON.
        limits: What the worker may use.
        timeout: Seconds after which the worker is ended.

    Raises:
        TokenizerError: The worker that loads a tokenizer failed.
        VerificationError: Another worker failed.
        LimitError: It needs more than `limits`.
    """
    answer: dict[str, Any] | None = None
    for said in _replies(question, request, limits, {}, timeout):
        answer = said
    if answer is None:
        raise _failed(question, request, "an answer that is not JSON")
    return answer


def ask_at_length(
    question: Question,
    request: Mapping[str, Any],
    told: Callable[[int], None],
    limits: WorkerLimits = DEFAULT_LIMITS,
) -> dict[str, Any]:
    """Ask a worker whose answer takes as long as its work is large, and hear how far it is.

    It may use all processors, unless TOKENIZERS_PARALLELISM or RAYON_NUM_THREADS says otherwise.

    Args:
        question: The module of `tokmigrate.model.probe` that answers at length.
        request: What the module wants to know, as JSON.
        told: Called with how much more is done.
        limits: What the worker may use; each processor may use that much memory.

    Raises:
        TokenizerError: The worker failed.
        LimitError: It needs more than `limits`.
    """
    answer: dict[str, Any] | None = None
    parallel = {"TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM", "true")}
    limits = replace(limits, memory_mib=limits.memory_mib * (os.cpu_count() or 1))
    for said in _replies(question, request, limits, parallel, None):
        answer = said.get("answer")
        if "done" in said:
            told(said["done"])
    if answer is None:
        raise _failed(question, request, "no answer")
    return answer


def _replies(
    question: Question,
    request: Mapping[str, Any],
    limits: WorkerLimits,
    environment: Mapping[str, str],
    timeout: float | None,
) -> Iterator[dict[str, Any]]:
    """Yield what a worker says, line by line, and raise where it fails."""
    deadline = None if timeout is None else time.monotonic() + timeout
    # Files, so that neither side waits for the other to read.
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as complaints:
        asked.write(json.dumps({**request, "limits": asdict(limits)}).encode())
        asked.seek(0)
        source, sink = os.pipe()
        with (
            os.fdopen(source, "rb", buffering=0) as said,
            os.fdopen(sink, "wb") as written,
            start_worker(question, environment, (asked.fileno(), sink, complaints.fileno())) as worker,
        ):
            written.close()
            try:
                for line in _lines(said, deadline, limits.output_mib * 2**20):
                    # One that dies may leave half a line.
                    if line.endswith(b"\n"):
                        yield json.loads(line)
            except _AnswerTooLongError as error:
                raise _exceeded(question, request, "output_mib", limits) from error
            except TimeoutError as error:
                raise _failed(question, request, f"no answer within {timeout:g} seconds") from error
            except ValueError as error:
                raise _failed(question, request, "an answer that is not JSON") from error
            code = worker.wait()
        if code != 0:
            complaints.seek(0)
            stderr = complaints.read().decode("utf-8", "replace")
            limit = _limit_in(code, stderr)
            raise (
                _exceeded(question, request, limit, limits)
                if limit
                else _failed(question, request, _cause(code, stderr))
            )


class _AnswerTooLongError(Exception):
    """A worker says more than it may."""


def _lines(file: IO[bytes], deadline: float | None, longest: int) -> Iterator[bytes]:
    """Yield lines as they come; raise TimeoutError at the deadline."""
    held = b""
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([file], [], [], left)[0]:
            raise TimeoutError
        block = os.read(file.fileno(), 1 << 20)
        *whole, held = (held + block).split(b"\n")
        if len(held) > longest:
            raise _AnswerTooLongError
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


_OUT_OF_MEMORY = ("MemoryError", "memory allocation of", "bad_alloc", "allocate memory")
"""What Python, Rust, C++ and torch say where they get no memory."""


def _limit_in(code: int, stderr: str) -> Literal["memory_mib", "cpu_seconds", "output_mib"] | None:
    """Return the limit that ended a worker, None where something else did."""
    if code == -signal.SIGXCPU:
        return "cpu_seconds"
    if code == -signal.SIGXFSZ or os.strerror(errno.EFBIG) in stderr:
        return "output_mib"
    return "memory_mib" if any(words in stderr for words in _OUT_OF_MEMORY) else None


def _exceeded(
    question: Question,
    request: Mapping[str, Any],
    limit: Literal["memory_mib", "cpu_seconds", "output_mib"],
    limits: WorkerLimits,
) -> LimitError:
    most = getattr(limits, limit)
    needed = {
        "memory_mib": f"{most} MiB of memory",
        "cpu_seconds": f"{format_count(most, 'second')} of CPU time",
        "output_mib": f"{most} MiB of output",
    }[limit]
    allow = f"allow it in tokmigrate.yaml: worker: {{{limit}: {2 * most}}}"
    # transformers also renders the chat template.
    hint = f"if `tokmigrate lint` shows that the chat template is the cause, correct it; if not, {allow}"
    return LimitError(
        f"the libraries need more than {needed} for it",
        where=_where(request),
        hint=hint if question == "transformers" else allow,
    )


def _where(request: Mapping[str, Any]) -> str | None:
    return request.get("directory") or request.get("file") or request.get("corpus")


def _failed(question: Question, request: Mapping[str, Any], cause: str) -> TokmigrateError:
    where = _where(request)
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
