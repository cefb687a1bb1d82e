"""Is the candidate what the plan says? Asked of the bytes, and of the libraries that will load it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tokmigrate.change.candidate import Candidate
from tokmigrate.change.digests import read_shard_digest
from tokmigrate.errors import DriftError, VerificationError
from tokmigrate.files import exists, read_file
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.probe.ask import ask
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE as TOKENIZER
from tokmigrate.model.weights.weights import read_adapter_weights, read_weights
from tokmigrate.plan.conditions import broken
from tokmigrate.revision.conditions import Check
from tokmigrate.settings import WorkerLimits

Thoroughness = Literal["fast", "full"]


def verify_candidate(
    directory: Path,
    snapshot: Snapshot,
    candidate: Candidate,
    checks: Sequence[Check],
    thoroughness: Thoroughness,
) -> None:
    """Raise VerificationError where a staged directory is not what was planned, DriftError where the model is to blame.

    Args:
        directory: The staged directory.
        snapshot: The model before.
        candidate: What the directory shall be.
        checks: What migrations say under `verify:`.
        thoroughness: `full` also loads it with transformers.
    """
    _check_files(directory, candidate)
    _check_shards(directory, snapshot, candidate)
    read_weights(directory)
    verify_directory(directory, candidate.tokens, checks, thoroughness, snapshot.state.traits.worker)


def verify_adapter(directory: Path, snapshot: Snapshot, candidate: Candidate) -> None:
    """Raise VerificationError where a staged adapter is not what was planned, DriftError where itself is to blame.

    Args:
        directory: The staged directory.
        snapshot: The adapter before.
        candidate: What the directory shall be.
    """
    _check_files(directory, candidate)
    _check_shards(directory, snapshot, candidate)
    read_adapter_weights(directory)
    if exists(directory / TOKENIZER):
        request = {"file": str(directory / TOKENIZER), "expected": dict(candidate.tokens)}
        answer = ask("tokenizer", request, snapshot.state.traits.worker)
        _check_ids(answer["differences"], directory, "tokenizers")


def verify_directory(
    directory: Path,
    tokens: Mapping[str, int],
    checks: Sequence[Check],
    thoroughness: Thoroughness,
    limits: WorkerLimits,
) -> None:
    """Raise VerificationError where the libraries load something else than the documents say.

    Args:
        directory: A model directory.
        tokens: The id that every token must have.
        checks: What migrations say under `verify:`.
        thoroughness: `full` also loads it with transformers.
        limits: What the libraries may use.
    """
    texts = [check.text for check in checks]
    request = {"file": str(directory / TOKENIZER), "expected": dict(tokens), "encode": texts}
    answer = ask("tokenizer", request, limits)
    _check_ids(answer["differences"], directory, "tokenizers")
    for check, encoding in zip(checks, answer["encodings"], strict=True):
        failure = f"'{check.text}' cannot be tokenized: {encoding['error']}" if "error" in encoding else None
        reason = failure or broken(check, tuple(encoding["tokens"]))
        if reason is not None:
            raise VerificationError(f"a `verify:` case does not hold: {reason}", where=str(directory))
    if thoroughness == "full":
        encoded = [encoding["ids"] for encoding in answer["encodings"]]
        _check_with_transformers(directory, tokens, texts, encoded, limits)


def _check_with_transformers(
    directory: Path,
    tokens: Mapping[str, int],
    texts: Sequence[str],
    encoded: Sequence[Sequence[int]],
    limits: WorkerLimits,
) -> None:
    shapes = {entry.name: list(entry.shape) for _, entry in read_weights(directory).tensors()}
    request = {"directory": str(directory), "expected": dict(tokens), "shapes": shapes, "encode": texts}
    answer = ask("transformers", request, limits)
    model, tokenizer = answer["model"], answer["tokenizer"]
    if model.get("mismatched"):
        raise _other("transformers expects other shapes", model["mismatched"], directory)
    if "unknown" in tokenizer:
        return
    _check_ids(tokenizer["differences"], directory, "transformers")
    if "chat_error" in tokenizer:
        raise _other("the chat template cannot be rendered", tokenizer["chat_error"], directory)
    for text, found, wanted in zip(texts, tokenizer["encodings"], encoded, strict=True):
        if list(found) != list(wanted):
            raise _other(f"transformers cuts '{text}' otherwise than tokenizers", found, directory)


def _check_ids(differences: Mapping[str, Any], directory: Path, library: str) -> None:
    if differences["count"]:
        raise _other(f"{library} gives {differences['count']} tokens other ids", differences["examples"], directory)


def _other(what: str, examples: object, directory: Path) -> VerificationError:
    return VerificationError(f"{what}: {examples}", where=str(directory), hint="nothing was changed")


def _check_files(directory: Path, candidate: Candidate) -> None:
    for name, data in candidate.files.items():
        path = directory / name
        if name == STAMP:
            continue
        if data is None and os.path.lexists(path):
            raise VerificationError("a file that was to go is still there", where=str(path))
        if data is not None and read_file(path) != data:
            raise VerificationError("the file has other bytes than were written", where=str(path))


def _check_shards(directory: Path, snapshot: Snapshot, candidate: Candidate) -> None:
    tensors = {tensor.name: tensor for tensor in snapshot.tensors}
    for name, image in candidate.shards.items():
        found = read_shard_digest(directory / name, tensors, candidate.edit.new_rows)
        if found != image.digest:
            _check_untouched(snapshot, name)
            raise VerificationError(
                "the bytes are not those that were planned: the model was changed meanwhile, or since it was migrated",
                where=name,
                hint="nothing was changed; look with `tokmigrate verify`",
            )


def _check_untouched(snapshot: Snapshot, shard: str) -> None:
    """Raise DriftError where the model's own shard is not the one that the stamp tells of."""
    recorded = snapshot.stamp.shards.get(shard) if snapshot.stamp else None
    tensors = {tensor.name: tensor for tensor in snapshot.tensors}
    path = snapshot.directory / shard
    if recorded and read_shard_digest(path, tensors, snapshot.state.rows) != recorded.digest:
        raise DriftError(
            "the weights were changed since they were migrated, and going back would not give what was there before",
            where=str(path),
            hint="put the file back as tokmigrate wrote it; `tokmigrate verify` lists what differs",
        )
