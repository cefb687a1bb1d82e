"""Calling a worker: one request, one process, one answer. On Linux the server forks it, with the libraries imported."""

from __future__ import annotations

import atexit
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from tokmigrate.errors import FileProblems, LimitError, Problem, TokenizerError, TokmigrateError, VerificationError
from tokmigrate.formatting import format_count
from tokmigrate.parallel import count_cores, is_stopped
from tokmigrate.settings import WorkerLimits

Question = Literal[
    "tokenizer",
    "reachability",
    "impact",
    "count_tokens",
    "compare_tokens",
    "learn_merges",
    "embed_tokens",
    "transformers",
    "chat_template",
    "converter",
    "vocabulary_axes",
]
"""The module of `tokmigrate.model.worker` that answers."""

_META_MODEL = (
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    # Every config imports it, and it imports half of torch.
    "transformers.utils.type_validators",
)
_LIBRARIES: Mapping[Question, tuple[str, ...]] = {
    "transformers": ("tokenizers", *_META_MODEL),
    "chat_template": ("transformers.utils.chat_template_utils",),
    "converter": ("tokenizers", "transformers.models.auto.tokenization_auto"),
    "vocabulary_axes": _META_MODEL,
}
"""What is imported for a question to transformers: nothing that starts a thread. Others are for tokenizers alone."""

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # Everything is on the meta device: no accelerator, no pool of threads.
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    # Some versions of transformers import pyarrow where it is installed, and its allocator starts a thread.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
_ROOT = Path(__file__).resolve().parents[3]
_GRACE_S = 0.2
"""How long a server that is idle may take to end."""
_FORKS = sys.platform == "linux"
"""Libraries of macOS do not survive a fork."""


@contextmanager
def start_worker(
    question: Question, environment: Mapping[str, str], streams: tuple[int, int, int]
) -> Iterator[Callable[[], int]]:
    """Start a worker with these descriptors as its standard streams, and kill it if it is still there at the end.

    It gives a function that waits for the exit code of the worker; that of a signal is negative.
    """
    if not _FORKS:
        command, variables = _command(question), {**_environment(), **environment}
        with subprocess.Popen(command, stdin=streams[0], stdout=streams[1], stderr=streams[2], env=variables) as child:
            try:
                yield child.wait
            finally:
                child.kill()
        return
    status, given = socket.socketpair()
    with status:
        with given:
            _SERVER.send(question, environment, [*streams, given.fileno()])
        yield lambda: _receive_code(status)


def _receive_code(status: socket.socket) -> int:
    code = status.recv(16)
    # Without a word the server itself was ended, as by the kernel when memory is short.
    return int(code) if code else -signal.SIGKILL


class _Server:
    """The process that forks workers, started with the first question, ended with this process."""

    def __init__(self) -> None:
        self._forget()
        atexit.register(self.stop)
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._environment: dict[str, str] = {}

    def send(self, question: Question, environment: Mapping[str, str], descriptors: list[int]) -> None:
        """Have a worker forked that answers a question, in the environment and directory of this moment."""
        with self._lock:
            wanted = {**_environment(), **environment}
            control = self._control
            if control is None or self._process is None or self._process.poll() is not None:
                control = self._start()
            message = {
                "question": question,
                "libraries": _LIBRARIES.get(question, ("tokenizers",)),
                "directory": str(Path.cwd()),
                "set": dict(wanted.items() - self._environment.items()),
                "unset": sorted(self._environment.keys() - wanted.keys()),
            }
            try:
                socket.send_fds(control, [json.dumps(message).encode()], descriptors)
            except BrokenPipeError:
                # It was ended just now, as by the kernel when memory is short.
                socket.send_fds(self._start(), [json.dumps(message).encode()], descriptors)

    def _start(self) -> socket.socket:
        control, given = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._environment = _environment()
        with given:
            self._process = subprocess.Popen(
                _command("server"),
                stdin=given.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self._environment,
            )
        self._control = control
        return control

    def stop(self) -> None:
        """End the server; the next question starts another."""
        if self._process is not None and self._control is not None:
            self._control.close()
            ended = os.pidfd_open(self._process.pid)
            if not select.select([ended], [], [], _GRACE_S)[0]:
                # It imports the libraries, and nobody waits for them.
                self._process.kill()
            os.close(ended)
            self._process.wait()
        self._forget()


_SERVER = _Server()
stop_server = _SERVER.stop


def prepare_worker(question: Question) -> None:
    """Have the libraries for a question imported in the background, so that its answer comes sooner."""
    if _FORKS:
        _SERVER.send(question, {}, [])


def _command(module: str) -> list[str]:
    return [sys.executable, "-P", "-m", f"tokmigrate.model.worker.{module}"]


def _environment() -> dict[str, str]:
    environment = {**os.environ, **_OFFLINE}
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    if _ROOT not in installed:
        # A checkout that is not installed: `-P` keeps the current directory out of the path.
        paths = [str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


# What the tokenizers library reads as no (`utils/parallelism.rs`).
_OFF = ("", "off", "false", "f", "no", "n", "0")

DEFAULT_LIMITS = WorkerLimits()

SECONDS = 600.0
"""How long a child may take; a cold disk needs most of it to import torch."""

_POLL_S = 0.1
"""How often it is asked whether the answer is still wanted."""


def call_worker(
    question: Question,
    request: Mapping[str, Any],
    limits: WorkerLimits = DEFAULT_LIMITS,
    timeout: float = SECONDS,
) -> dict[str, Any]:
    """Ask a worker, whose module documents request and answer, and return its answer.

    Raises:
        TokenizerError: The worker that loads a tokenizer failed.
        VerificationError: Another worker failed, or took longer than `timeout` seconds.
        LimitError: It needs more than `limits`.
        CancelledError: The call in the background that asked was stopped, and the worker with it.
    """
    answer: dict[str, Any] | None = None
    for said in _replies(question, request, limits, {}, timeout):
        answer = said
    if answer is None:
        raise _failure(question, request, "an answer that is not JSON")
    return answer


def count_threads() -> int:
    """Return how many threads the tokenizers library may use: all cores, unless its variables say otherwise."""
    if os.environ.get("TOKENIZERS_PARALLELISM", "true").lower() in _OFF:
        return 1
    wanted = os.environ.get("RAYON_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else count_cores()


def stream_worker(
    question: Question,
    request: Mapping[str, Any],
    on_progress: Callable[[int], None],
    limits: WorkerLimits = DEFAULT_LIMITS,
    *,
    threads: int | None = None,
) -> dict[str, Any]:
    """Ask a worker whose answer takes as long as its work is large, and hear how much more is done.

    It may use all processors, or so many `threads`, unless TOKENIZERS_PARALLELISM or RAYON_NUM_THREADS says otherwise,
    and the memory of `limits` for each processor. Raises what `call_worker` raises, and FileProblems where a file that
    it reads is no text.
    """
    answer: dict[str, Any] | None = None
    parallel = {"TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM", "true")}
    if threads is not None:
        parallel["RAYON_NUM_THREADS"] = str(threads)
    limits = limits.model_copy(update={"memory_mib": limits.memory_mib * (os.cpu_count() or 1)})
    for said in _replies(question, request, limits, parallel, None):
        answer = said.get("answer")
        if "done" in said:
            on_progress(said["done"])
        if "problem" in said:
            raise FileProblems([Problem(**said["problem"])])
    if answer is None:
        raise _failure(question, request, "no answer")
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
        asked.write(json.dumps({**request, "limits": limits.model_dump()}).encode())
        asked.seek(0)
        source, sink = os.pipe()
        with (
            os.fdopen(source, "rb", buffering=0) as said,
            os.fdopen(sink, "wb") as written,
            start_worker(question, environment, (asked.fileno(), sink, complaints.fileno())) as wait,
        ):
            written.close()
            try:
                for line in _lines(said, deadline, limits.output_mib * 2**20):
                    # One that dies may leave half a line.
                    if line.endswith(b"\n"):
                        yield json.loads(line)
            except _AnswerTooLongError as error:
                raise _limit_error(question, request, "output_mib", limits) from error
            except TimeoutError as error:
                raise _failure(question, request, f"no answer within {timeout:g} seconds") from error
            except ValueError as error:
                raise _failure(question, request, "an answer that is not JSON") from error
            code = wait()
        if code != 0:
            complaints.seek(0)
            stderr = complaints.read().decode("utf-8", "replace")
            limit = _limit_in(code, stderr)
            raise (
                _limit_error(question, request, limit, limits)
                if limit
                else _failure(question, request, _cause(code, stderr))
            )


class _AnswerTooLongError(Exception):
    """A worker says more than it may."""


def _lines(file: IO[bytes], deadline: float | None, longest: int) -> Iterator[bytes]:
    """Yield lines as they come; raise TimeoutError at the deadline, CancelledError where they are not wanted."""
    held = b""
    while True:
        if is_stopped():
            raise CancelledError
        if not select.select([file], [], [], _POLL_S)[0]:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError
            continue
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


_Limit = Literal["memory_mib", "cpu_seconds", "output_mib"]


def _limit_in(code: int, stderr: str) -> _Limit | None:
    """Return the limit that ended a worker, None where something else did."""
    if code == -signal.SIGXCPU:
        return "cpu_seconds"
    if code == -signal.SIGXFSZ or os.strerror(errno.EFBIG) in stderr:
        return "output_mib"
    return "memory_mib" if any(words in stderr for words in _OUT_OF_MEMORY) else None


def _limit_error(question: Question, request: Mapping[str, Any], limit: _Limit, limits: WorkerLimits) -> LimitError:
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


def _failure(question: Question, request: Mapping[str, Any], cause: str) -> TokmigrateError:
    where = _where(request)
    if question not in _LIBRARIES:
        return TokenizerError(
            f"the tokenizers library cannot work with it: {cause}",
            where=where,
            hint="if tokenizers.Tokenizer.from_file refuses the model's own tokenizer.json too, restore that from a"
            " copy of the model; if not, correct the migration",
        )
    hint = "if transformers' AutoConfig and AutoTokenizer refuse the model as it is too, correct that first"
    if question != "converter":
        hint += ", or leave transformers out with `verify: fast` in tokmigrate.yaml; if not, correct the migration"
    return VerificationError(f"transformers cannot work with it: {cause}", where=where, hint=hint)
