"""Starting a worker: on Linux the server forks it, with the libraries imported already."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

Question = Literal["tokenizer", "reachability", "impact", "transformers", "chat_template", "vocabulary_axes"]
"""The module of `tokmigrate.model.probe` that answers."""

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # Everything is on the meta device: no accelerator, no pool of threads.
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
}
_ROOT = Path(__file__).resolve().parents[3]


class Worker(Protocol):
    """A process that works on one question; leaving it ends it."""

    def wait(self) -> int:
        """Return its exit code; that of a signal is negative."""


class _Forked:
    """A worker that the server forked, known by its status socket."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status

    def wait(self) -> int:
        """Return its exit code; that of a signal is negative."""
        code = self._status.recv(16)
        # Without a word the server itself was ended, as by the kernel when memory is short.
        return int(code) if code else -signal.SIGKILL


@contextmanager
def start_worker(question: Question, environment: Mapping[str, str], streams: tuple[int, int, int]) -> Iterator[Worker]:
    """Start a worker with these descriptors as its standard streams, and kill it if it is still there at the end."""
    if sys.platform != "linux":
        # Libraries of macOS do not survive a fork.
        command, variables = _command(question), {**_environment(), **environment}
        with subprocess.Popen(command, stdin=streams[0], stdout=streams[1], stderr=streams[2], env=variables) as child:
            try:
                yield child
            finally:
                child.kill()
        return
    status, given = socket.socketpair()
    with status:
        with given:
            _SERVER.send(question, environment, [*streams, given.fileno()])
        yield _Forked(status)


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
            self._process.wait()
        self._forget()


_SERVER = _Server()
stop_server = _SERVER.stop


def _command(module: str) -> list[str]:
    return [sys.executable, "-P", "-m", f"tokmigrate.model.probe.{module}"]


def _environment() -> dict[str, str]:
    environment = {**os.environ, **_OFFLINE}
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    if _ROOT not in installed:
        # A checkout that is not installed: `-P` keeps the current directory out of the path.
        paths = [str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment
