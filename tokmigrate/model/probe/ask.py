"""The asking side: one question, one child process, one answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tokmigrate.errors import TokenizerError, TokmigrateError, VerificationError

Question = Literal["tokenizer", "transformers", "vocabulary_axes"]

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
    command = [sys.executable, "-P", "-m", f"tokmigrate.model.probe.{question}"]
    text = json.dumps(request).encode()
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, env=_environment(), timeout=timeout, check=False
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
    where = request.get("directory") or request.get("file")
    if question == "tokenizer":
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
