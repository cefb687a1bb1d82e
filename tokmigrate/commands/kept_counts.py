"""Counts of the last corpus, kept in the workspace: another choice of tokens is made without counting again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from blake3 import blake3

from tokmigrate.apply.durable import write_durably
from tokmigrate.errors import StorageError
from tokmigrate.files import read_if_present, storage_errors
from tokmigrate.model.worker.corpus_files import STDIN, Corpus
from tokmigrate.settings import Workspace

_RACY_NS = 2_000_000_000
"""A file that was changed less long ago may be changed again without another time."""


def describe_counting(corpus: Corpus, document: Mapping[str, Any]) -> str | None:
    """Return the digest of what counts follow from: the tokenizer.json, and each file by its inode, size and times.

    None where the files cannot be distinguished from later ones: standard input, and files that were changed only just
    now.
    """
    files: list[Any] = []
    for file in corpus.files:
        with storage_errors("look at the file", Path(file.path)):
            held = os.stat(file.path)  # noqa: PTH116 - a file of the corpus may be a link
        times = (held.st_mtime_ns, held.st_ctime_ns)
        if file.name == STDIN or time.time_ns() - max(times) < _RACY_NS:
            return None
        files.append([file.path, file.field, file.weight, held.st_dev, held.st_ino, held.st_size, *times])
    # The order of a vocabulary and of settings may matter to the library, so that the text counts.
    return blake3(json.dumps([files, document]).encode()).hexdigest()


def read_counts(workspace: Workspace, digest: str) -> dict[str, Any] | None:
    """Return the answer of the counting that this is the digest of; None where it is not the one that is kept."""
    with suppress(StorageError, ValueError):
        held = json.loads(read_if_present(_path(workspace)) or b"null")
        if isinstance(held, dict) and held.get("digest") == digest and isinstance(held.get("answer"), dict):
            return dict(held["answer"])
    return None


def keep_counts(workspace: Workspace, digest: str, answer: Mapping[str, Any]) -> None:
    """Keep the answer of a counting in place of the one before."""
    path = _path(workspace)
    # Without it the next command counts again.
    with suppress(StorageError), storage_errors("write the file", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, json.dumps({"digest": digest, "answer": answer}).encode())


def _path(workspace: Workspace) -> Path:
    return workspace.root / ".tokmigrate" / "counts.json"
