"""The asking side: one question, one child process, one answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from tokmigrate.errors import TokenizerError, TokmigrateError, VerificationError

Question = Literal["tokenizer", "impact", "transformers", "vocabulary_axes"]

SECONDS = 600.0
"""How long a child may take; a cold disk needs most of it to import torch."""

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


def ask(question: Question, request: Mapping[str, Any], timeout: float = SECONDS) -> dict[str, Any]:
    """Ask a child process, and return its answer.

    Args:
        question: The module of `tokmigrate.model.probe` that answers, and that documents request and answer.
        request: What the module wants to know, as JSON.
        timeout: Seconds after which the child is ended.

    Raises:
        TokenizerError: The child that loads a tokenizer failed.
        VerificationError: Another child failed.
    """
    text = json.dumps(request).encode()
    try:
        done = subprocess.run(
            _command(question), input=text, capture_output=True, env=_environment(), timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(question, request, f"no answer within {timeout:g} seconds") from error
    if done.returncode != 0:
        raise _failed(question, request, _cause(done.returncode, done.stderr.decode("utf-8", "replace")))
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise _failed(question, request, "an answer that is not JSON") from error
    return dict(answer)


def ask_at_length(question: Question, request: Mapping[str, Any], told: Callable[[int], None]) -> dict[str, Any]:
    """Ask a child process whose answer takes as long as its work is large, and hear how far it is.

    It may use all processors, unless TOKENIZERS_PARALLELISM or RAYON_NUM_THREADS says otherwise.

    Args:
        question: The module of `tokmigrate.model.probe` that answers at length.
        request: What the module wants to know, as JSON.
        told: Called with how much more is done.

    Raises:
        TokenizerError: The child failed.
    """
    environment = {**_environment(), "TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM", "true")}
    answer: dict[str, Any] | None = None
    # Files, so that neither side waits for the other to read.
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as complaints:
        asked.write(json.dumps(request).encode())
        asked.seek(0)
        with subprocess.Popen(
            _command(question), stdin=asked, stdout=subprocess.PIPE, stderr=complaints, env=environment
        ) as child:
            try:
                for line in child.stdout or ():
                    # One that dies may leave half a line.
                    said = json.loads(line) if line.endswith(b"\n") else {}
                    answer = said.get("answer")
                    if "done" in said:
                        told(said["done"])
            except BaseException:
                child.kill()
                child.wait()
                raise
        if child.returncode != 0 or answer is None:
            complaints.seek(0)
            raise _failed(question, request, _cause(child.returncode, complaints.read().decode("utf-8", "replace")))
    return answer


def _command(question: Question) -> list[str]:
    return [sys.executable, "-P", "-m", f"tokmigrate.model.probe.{question}"]


def _environment() -> dict[str, str]:
    environment = {**os.environ, **_OFFLINE}
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    if _ROOT not in installed:
        # A checkout that is not installed: `-P` keeps the current directory out of the path.
        paths = [str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


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
    if question in {"tokenizer", "impact"}:
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
