"""How rows were learned: what the files of a migration say of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from blake3 import blake3

from tokmigrate.files import open_for_reading
from tokmigrate.model.worker.corpus_files import Corpus

_LIBRARIES = ("torch", "transformers", "peft")
_NAMED = 20
"""How many files of the data the provenance names; its digest is of all."""


def build_provenance(command: str, data: Corpus | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known before a run: its data by name and digest, if any, its settings, and the libraries."""
    files = data.files if data else ()
    return {
        "command": command,
        "data": [Path(file.name).name for file in files[:_NAMED]],
        "data_digest": _digest_data(data) if data else None,
        **{name: value for name, value in settings.items() if name != "tokens"},
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _digest_data(data: Corpus) -> str:
    digest = blake3()
    for file in data.files:
        with open_for_reading(Path(file.path)) as held:
            while block := held.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
