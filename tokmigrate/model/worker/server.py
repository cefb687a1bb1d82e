"""A server that imports the libraries once, and forks a worker for each question.

transformers takes seconds to import. The server pays for that once; each worker starts as a copy of it, answers one
question as `python -m tokmigrate.model.worker.QUESTION` would, and ends. A crash or a panic ends the worker only.

`worker.py` starts the server with a socket as standard input. A message on it is JSON: the `question`, the `libraries`
that are imported before a worker is forked for it, the worker's `directory`, and the variables that it has to `set` and
`unset`. With it come four descriptors: standard input, output and error of the worker, and a status socket. On that one
the exit code comes back; closing it kills the worker. Without descriptors the libraries are imported, and no worker is
forked. Closing the first socket ends the server.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


def serve() -> None:
    """Fork a worker for each message on standard input, until it is closed."""
    # Ctrl-C reaches the whole group: the asking process decides what it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Imports leave no garbage, and the collections would take a fifth of their time.
    gc.disable()
    # Someone may remove the directory of the first question, and without a current directory MKL does not load.
    os.chdir("/")
    control = socket.socket(fileno=os.dup(0))
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 4)
        if not message:
            break
        asked = json.loads(message)
        for library in asked["libraries"]:
            # The worker meets the same error, and tells it.
            with suppress(Exception):
                importlib.import_module(library)
        # A worker looks at its own objects alone, and the memory of the others stays shared.
        gc.freeze()
        if descriptors and os.fork() == 0:
            control.close()
            _watch(asked, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
    with suppress(ChildProcessError):
        while True:
            os.wait()
    # Taking the libraries down would need as long as a tenth of their import.
    os._exit(0)


def _watch(asked: Mapping[str, Any], descriptors: list[int]) -> None:
    """Fork the worker, and send its exit code when it ends, or kill it when no process waits for it any more."""
    *streams, status = descriptors
    worker = os.fork()
    if worker == 0:
        os.close(status)
        _work(asked, streams)
    for descriptor in (0, *streams):
        os.close(descriptor)
    ended = os.pidfd_open(worker)
    ready, _, _ = select.select([ended, status], [], [])
    if ended not in ready:
        os.kill(worker, signal.SIGKILL)
    _, code = os.waitpid(worker, 0)
    with suppress(OSError):
        os.write(status, str(os.waitstatus_to_exitcode(code)).encode())
    os._exit(0)


def _work(asked: Mapping[str, Any], streams: list[int]) -> None:
    """Run the question's module as a process of its own would, and end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.enable()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.update(asked["set"])
    for name in asked["unset"]:
        del os.environ[name]
    code = 0
    try:
        os.chdir(asked["directory"])
        runpy.run_module(f"tokmigrate.model.worker.{asked['question']}", run_name="__main__", alter_sys=True)
    # A panic of tokenizers is not an Exception.
    except BaseException:
        traceback.print_exc()
        code = 1
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
