"""Is the candidate what the plan says? Asked of the bytes, and of the libraries that will load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tokmigrate.change.candidate import Candidate
from tokmigrate.change.digests import read_shard_digest
from tokmigrate.errors import VerificationError
from tokmigrate.model.probe.ask import ask
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.stamp import FILE as STAMP
from tokmigrate.model.weights import read_weights
from tokmigrate.plan.conditions import broken
from tokmigrate.revision.conditions import Check

Thoroughness = Literal["fast", "full"]


def verify_candidate(
    directory: Path,
    snapshot: Snapshot,
    candidate: Candidate,
    checks: Sequence[Check],
    thoroughness: Thoroughness,
) -> None:
    """Raise VerificationError where a staged directory is not what was planned.

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
    verify_directory(directory, candidate.tokens, checks, thoroughness)


def verify_directory(
    directory: Path, tokens: Mapping[str, int], checks: Sequence[Check], thoroughness: Thoroughness
) -> None:
    """Raise VerificationError where the libraries load something else than the documents say.

    Args:
        directory: A model directory.
        tokens: The id that every token must have.
        checks: What migrations say under `verify:`.
        thoroughness: `full` also loads it with transformers.
    """
    texts = [check.text for check in checks]
    answer = ask("tokenizer", {"directory": str(directory), "expected": dict(tokens), "encode": texts})
    _no_mismatch(answer, directory, "tokenizers")
    for check, encoding in zip(checks, answer["encodings"], strict=True):
        reason = broken(check, tuple(encoding["tokens"]))
        if reason is not None:
            raise VerificationError(f"a `verify:` case does not hold: {reason}", where=str(directory))
    if thoroughness == "full":
        _no_mismatch(
            ask("transformers", {"directory": str(directory), "expected": dict(tokens)}), directory, "transformers"
        )


def _no_mismatch(answer: Mapping[str, Any], directory: Path, library: str) -> None:
    problems = answer.get("problems") or []
    if problems:
        shown = "; ".join(str(problem) for problem in problems[:5])
        raise VerificationError(
            f"{library} loads something else than planned: {shown}", where=str(directory), hint="nothing was changed"
        )


def _check_files(directory: Path, candidate: Candidate) -> None:
    for name, data in candidate.files.items():
        path = directory / name
        if name == STAMP:
            continue
        if data is None and path.exists():
            raise VerificationError("a file that was to go is still there", where=str(path))
        if data is not None and path.read_bytes() != data:
            raise VerificationError("the file has other bytes than were written", where=str(path))


def _check_shards(directory: Path, snapshot: Snapshot, candidate: Candidate) -> None:
    tensors = {tensor.name: tensor for tensor in snapshot.tensors}
    for name, image in candidate.shards.items():
        found = read_shard_digest(directory / name, tensors, candidate.edit.new_rows)
        if found != image.digest:
            raise VerificationError(
                "the bytes are not those that were planned: the model was changed meanwhile, or since it was migrated",
                where=name,
                hint="nothing was changed; look with `tokmigrate verify`",
            )
