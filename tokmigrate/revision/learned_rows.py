"""Rows that were learned, written as a migration: `reinit_tokens` with a safetensors file for each side beside it.

The files say in their metadata how the rows were learned, which the checksum of the migration covers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tokmigrate import __version__
from tokmigrate.init.file_strategy import KEPT, PROVENANCE
from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.model.formats.safetensors_header import encode_header
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.weights.movement import embeddings
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.operations.operation import Operation
from tokmigrate.operations.registry import operation_types
from tokmigrate.revision.new_file import file_name, write_yaml_migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.vocabulary.ids import AddedToken
from tokmigrate.vocabulary.row_edit import SIDES, Side

_ALIGNMENT = 8


def write_learned_rows(
    workspace: Workspace,
    entry: ModelEntry,
    message: str,
    tokens: Sequence[str],
    rows: Mapping[Side, Matrix],
    provenance: Mapping[str, Any],
    remarks: Sequence[str] = (),
    added: Sequence[AddedToken] = (),
    kept: Mapping[Side, Sequence[str]] = MappingProxyType({}),
) -> Path:
    """Write a migration that gives tokens of a model rows that were learned, and return its path.

    A head with a bias keeps those of the tokens as they are.

    Args:
        tokens: Their texts.
        rows: Their rows, `(tokens, hidden)`, by side; the input side alone where the model ties both.
        provenance: How they were learned, such as `{"command": "train", "steps": 60}`.
        remarks: Lines of comment above the operations.
        added: Those of the tokens that the model lacks, which the migration adds; its head has no bias then.
        kept: Those of the tokens whose rows on a side were not learned, but are the model's.
    """
    said = {side: {PROVENANCE: _format_provenance(provenance, kept.get(side, ()))} for side in SIDES}
    biases = read_biases(take_snapshot(entry), tokens)
    init, files = encode_row_files(workspace, message, tokens, rows, biases, said)
    attachments: dict[str, str | bytes] = {**files}
    new = {token.content for token in added}
    fields: dict[str, dict[str, Any]] = {
        "add_tokens": {"tokens": [asdict(token) for token in added], "init": init},
        "reinit_tokens": {
            "tokens": [token for token in tokens if token not in new],
            "init": init,
            "acknowledge": "breaking",
        },
    }
    operations: list[Operation] = []
    for name, held in fields.items():
        if held["tokens"]:
            stem = file_name(workspace, message, ".new" if name == "add_tokens" else "")
            operation, lists = operation_types()[name].model_validate(held).with_files(stem)
            operations.append(operation)
            attachments |= lists
    return write_yaml_migration(
        workspace,
        message,
        operations,
        remarks=remarks,
        models=(entry.name,),
        attachments=attachments,
    )


def encode_row_files(
    workspace: Workspace,
    message: str,
    tokens: Sequence[str],
    rows: Mapping[Side, Matrix],
    biases: Matrix | None,
    metadata: Mapping[Side, Mapping[str, str]] = MappingProxyType({}),
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the `init:` of a new migration that gives tokens these rows, and the files that it names.

    Args:
        rows: Their rows, `(tokens, hidden)`, by side; the input side alone where the model ties both.
        biases: Those of the output side, `(tokens, 1)`; None where the head has none.
        metadata: What the files of a side say of their rows.
    """
    names = {side: file_name(workspace, message, f".{side}.safetensors") for side in rows}
    files = {names[side]: _encode(tokens, matrix, metadata.get(side, {})) for side, matrix in rows.items()}
    specs: dict[str, dict[str, str]] = {side: {"strategy": "file", "path": name} for side, name in names.items()}
    if biases is not None:
        name = file_name(workspace, message, ".bias.safetensors")
        files[name] = _encode(tokens, biases, metadata.get("output", {}))
        specs["output"] = {**specs.get("output", specs["input"]), "bias": name}
    init: dict[str, Any] = {**(specs if len(specs) > 1 else specs["input"])}
    return init, files


def read_biases(snapshot: Snapshot, tokens: Sequence[str]) -> Matrix | None:
    """Return the biases of tokens on the output side, `(tokens, 1)`; None where the head has none."""
    biases = [tensor for tensor in snapshot.tensors if tensor.side == "output" and tensor.width == 1]
    return _read_rows(snapshot, biases[0], tokens) if biases else None


def read_token_rows(snapshot: Snapshot, tokens: Sequence[str]) -> dict[Side, Matrix]:
    """Return the rows of tokens, `(tokens, hidden)`, by side; the input side alone where the model ties both."""
    matrices = embeddings(snapshot.tensors)
    return {side: _read_rows(snapshot, matrices[side], tokens) for side in SIDES if side in matrices}


def _read_rows(snapshot: Snapshot, tensor: VocabularyTensor, tokens: Sequence[str]) -> Matrix:
    ids = snapshot.state.tokenizer.ids
    with snapshot.weights.open_rows(tensor.name, tensor.axis) as rows:
        return np.stack([rows.row(ids[token]) for token in tokens])


def _format_provenance(provenance: Mapping[str, Any], kept: Sequence[str]) -> str:
    said = {"version": __version__, **provenance, **({KEPT: list(kept)} if kept else {})}
    return json.dumps(said, ensure_ascii=False, sort_keys=True)


def _encode(tokens: Sequence[str], rows: Matrix, metadata: Mapping[str, str]) -> bytes:
    header = encode_header([(token, "F32", (rows.shape[1],)) for token in tokens], metadata, _ALIGNMENT)
    return header + np.ascontiguousarray(rows, "<f4").tobytes()
