"""Computes how rows for another model's tokenizer are sums of a model's own, and writes the migration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from blake3 import blake3

from tokmigrate import __version__
from tokmigrate.commands.diff import Side as TokenizerSide
from tokmigrate.commands.diff import side_of
from tokmigrate.commands.models import open_model_or_dummy
from tokmigrate.commands.plan import plan
from tokmigrate.errors import UsageError, in_one_line
from tokmigrate.events import OnProgress, no_progress, report_activity
from tokmigrate.files import has_file
from tokmigrate.init.coefficients import Sum, Terms, write_coefficients
from tokmigrate.init.matching_pursuit import approximate
from tokmigrate.model.documents.declared import Documents, state_without_weights
from tokmigrate.model.documents.reading import read_tokenizer_files
from tokmigrate.model.documents.state import CONFIG
from tokmigrate.model.dummy_model import lacks_weights
from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.tokenizer.token_meaning import Spelling
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer, view
from tokmigrate.model.weights.undertrained import find_undertrained
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.operations.operation import Context
from tokmigrate.operations.registry import operation_types
from tokmigrate.operations.transplant import find_pieces, match_documents
from tokmigrate.revision.new_file import file_name, write_yaml_migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.vocabulary.ids import runs
from tokmigrate.vocabulary.row_edit import SIDES, WHOLE, Side

Method = Literal["omp", "subtokens"]


@dataclass(frozen=True)
class LearnedTransplant:
    """Coefficients for the tokens of another tokenizer, and the migration that takes it.

    Args:
        path: The migration; `coefficients`, of `size` bytes, and the directory `tokenizer` are beside it; without new
            rows there are no coefficients.
        kept: How many tokens keep a row; `copied` how many are second spellings of one.
        new: How many get a row that is a sum.
        left_out: How many shared tokens are under-trained, and in no sum; None where the method asks nothing of that.
        error: The mean share of the length of the other model's rows that the sums leave over, by the side.
    """

    path: Path
    coefficients: Path | None
    size: int
    tokenizer: Path
    kept: int
    copied: int
    new: int
    left_out: int | None
    error: Mapping[Side, float]


def learn_transplant(
    workspace: Workspace,
    side: TokenizerSide,
    entry: ModelEntry,
    donor: Path,
    method: Method,
    most: int,
    message: str,
    *,
    template: Literal["keep", "donor"] = "keep",
    on_progress: OnProgress = no_progress,
) -> LearnedTransplant:
    """Compute the rows of another model's tokenizer as sums of a model's own, and write a migration that takes it.

    It is planned on the tokenizer's files before it is written. Nothing of the other model's weights is written.

    Args:
        side: The tokenizer of the model `entry` at the head.
        donor: The other model, of which `subtokens` needs the tokenizer only.
        method: `omp` writes the other model's row of a new token as a sum of its rows of shared tokens; `subtokens`
            takes the mean of the tokens that the new one's text is made of.
        most: How many rows `omp` adds up at most.

    Raises:
        UsageError: The other model has no weights for `omp`, or the two have no token in common that is trained.
        ModelError: The other model cannot be read.
        OperationError: The model cannot have that tokenizer.
    """
    files, documents = _read_donor(donor, method)
    state, new = state_without_weights(side.documents, 0), view(documents[FILE]).check()
    folder, name = (file_name(workspace, message, suffix) for suffix in (".tokenizer", ".safetensors"))
    attached = {f"{folder}/{file}": data for file, data in files.items()}
    kind = operation_types()["transplant"]
    fields = {"tokenizer": folder, "acknowledge": "breaking"} | ({"template": template} if template != "keep" else {})
    # What the model cannot have is known before anything is computed.
    kind.model_validate(fields).with_listed(attached).apply(state, Context("0000"))
    match = match_documents(state, documents)
    rows = {number: row for row, number in match.kept.items()}
    left = [number for number in sorted(new.texts) if number not in rows and number not in match.copied]
    said: dict[str, Any] = {"method": method, "tokmigrate": __version__, "donor": new.fingerprint}
    sides: dict[Side, Terms] = {}
    error: dict[Side, float] = {}
    left_out: int | None = None
    with report_activity(on_progress, side.name, "computing rows") as count_bytes:
        if method == "subtokens":
            sides["input"] = _join_pieces(state.tokenizer, new, left)
        else:
            snapshot = take_snapshot(ModelEntry(str(donor), donor))
            there, here = _find_undertrained(snapshot, new), _find_undertrained_rows(workspace, entry)
            shared = {number: row for number, row in rows.items() if number not in there and row not in here}
            if not shared:
                raise UsageError("the models have no trained token in common", where=str(donor))
            left_out = len(rows) - len(shared)
            said |= {"k": most, "numpy": np.__version__}
            # Of equal products the lowest row counts.
            in_order = sorted(shared, key=shared.__getitem__)
            for which in SIDES:
                matrix = _find_matrix(snapshot, which)
                if matrix is not None:
                    atoms, targets = (_read_rows(snapshot, matrix, numbers) for numbers in (in_order, left))
                    said[f"{which}_rows"] = _digest(atoms, targets)
                    found = _approximate(atoms, targets, most, count_bytes)
                    source = np.array([shared[number] for number in in_order])
                    sides[which] = {n: (source[places], held) for n, (places, held) in zip(left, found, strict=True)}
                    error[which] = _measure_error(atoms, targets, found)
    copies: Terms = {number: ([row], [1.0]) for number, row in match.copied.items()}
    if left or copies:
        terms = {which: {**held, **copies} for which, held in sides.items()}
        attached[name] = write_coefficients(terms, state.tokenizer.texts, said)
        fields["coefficients"] = name
    operation = kind.model_validate(fields)
    operation.with_listed(attached).apply(state, Context("0000"))
    remarks = [
        f"The tokenizer of another model: {len(rows):,} tokens keep their rows, {len(match.copied):,} copy one, and"
        f" {len(left):,} get a sum of rows by {method}."
    ]
    path = write_yaml_migration(
        workspace, message, (operation,), remarks=remarks, models=side.models, attachments=attached
    )
    coefficients = path.parent / name if name in attached else None
    size = len(attached.get(name, b""))
    return LearnedTransplant(
        path, coefficients, size, path.parent / folder, len(rows), len(copies), len(left), left_out, error
    )


def _read_donor(donor: Path, method: Method) -> tuple[dict[str, bytes], Documents]:
    """Return the bytes of the files of the other model's tokenizer, and what they hold."""
    files = read_tokenizer_files(donor)
    documents = {name: held for name, held in side_of(donor).documents.items() if name in files}
    if method == "omp" and (not has_file(donor / CONFIG) or lacks_weights(donor)):
        hint = "choose --method subtokens, which needs its tokenizer only"
        raise UsageError("the other model has no weights here", where=str(donor), hint=hint)
    return files, documents


def _digest(*arrays: Matrix) -> str:
    hasher = blake3()
    for array in arrays:
        hasher.update(array.reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()[:32]


def _join_pieces(old: Tokenizer, new: Tokenizer, left: Sequence[int]) -> Terms:
    """Return the mean of the rows of the old tokens that the text of each new one is made of."""
    before, after = Spelling(old), Spelling(new)
    found: Terms = {}
    for number in left:
        pieces = Counter(find_pieces(before, after, new.texts[number]))
        if not pieces:
            raise UsageError(
                f"the old tokenizer has no token for '{in_one_line(new.texts[number])}'", hint="choose --method omp"
            )
        found[number] = ([*pieces], [times / pieces.total() for times in pieces.values()])
    return found


def _approximate(atoms: Matrix, targets: Matrix, most: int, count_bytes: Callable[[int], None]) -> list[Sum]:
    found: list[Sum] = []
    for each in approximate(targets, atoms, most):
        found.append(each)
        count_bytes(targets.itemsize * targets.shape[1])
    return found


def _measure_error(atoms: Matrix, targets: Matrix, found: Sequence[Sum]) -> float:
    """Return the mean share of the length of a target that its sum leaves over."""
    pairs = zip(targets, found, strict=True)
    lengths = np.linalg.norm(targets, axis=1)
    left = np.array([np.linalg.norm(target - weights @ atoms[places]) for target, (places, weights) in pairs])
    return float(np.mean(left[lengths > 0.0] / lengths[lengths > 0.0])) if lengths.any() else 0.0


def _find_matrix(snapshot: Snapshot, side: Side) -> VocabularyTensor | None:
    """Return the embeddings of a side, None where the input side's are its own."""
    alike = (
        tensor
        for tensor in snapshot.tensors
        if tensor.side == side and len(tensor.shape) == 2 and not tensor.is_table and tensor.window == WHOLE
    )
    return next(alike, None)


def _read_rows(snapshot: Snapshot, tensor: VocabularyTensor, numbers: Sequence[int]) -> Matrix:
    with snapshot.weights.open_rows(tensor.name, tensor.axis) as rows:
        return np.concatenate([np.zeros((0, rows.width)), *rows.float_rows(runs(numbers))])


def _find_undertrained(snapshot: Snapshot, tokenizer: Tokenizer) -> frozenset[int]:
    matrix = _find_matrix(snapshot, "input")
    if matrix is None:
        return frozenset()
    with snapshot.weights.open_rows(matrix.name, matrix.axis) as rows:
        return find_undertrained(rows, tokenizer, are_tied=snapshot.state.traits.tied)


def _find_undertrained_rows(workspace: Workspace, entry: ModelEntry) -> frozenset[int]:
    """Return the rows of a model at the head that are under-trained, or that pending migrations make."""
    with open_model_or_dummy(entry) as here:
        planned = plan(replace(workspace, drift="accept"), here)
        bad = _find_undertrained(planned.snapshot, planned.snapshot.state.tokenizer)
    rows = (planned.edit.row(number) for number in range(planned.edit.new_rows))
    return frozenset(number for number, row in enumerate(rows) if not isinstance(row, int) or row in bad)
