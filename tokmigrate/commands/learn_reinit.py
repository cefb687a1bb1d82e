"""Finds tokens whose rows were never trained, and writes the migration that initialises them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tokmigrate.commands.plan import plan
from tokmigrate.commands.row_survey import embedding_matrices
from tokmigrate.errors import UsageError, in_one_line
from tokmigrate.model.dummy_model import lacks_weights
from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.undertrained import measure_norms
from tokmigrate.operations.operation import Context
from tokmigrate.operations.padding_and_truncation import pad_token
from tokmigrate.operations.registry import operation_types
from tokmigrate.revision.new_file import file_name, write_yaml_migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.vocabulary.ids import expand


@dataclass(frozen=True)
class ShortRow:
    """A token whose input row is short: its norm, also as a share of the median norm of the baseline's rows."""

    id: int
    token: str
    norm: float
    share: float


@dataclass(frozen=True)
class UntrainedTokens:
    """Tokens whose rows were never trained, and the migration that initialises them again.

    Args:
        file: The migration; `tokens_file` beside it lists the tokens, `reasons_file` says how short each row is.
        rows: The short rows, the shortest first.
        baseline: How many tokens of the baseline were looked at.
    """

    file: Path
    tokens_file: Path
    reasons_file: Path
    rows: tuple[ShortRow, ...]
    baseline: int


def learn_reinit(workspace: Workspace, entry: ModelEntry, shorter_than: float, message: str) -> UntrainedTokens:
    """Find tokens of the baseline whose input rows are short, and write a migration that initialises their rows again.

    The padding token is left out: a row of zeros is what it may have.

    Args:
        shorter_than: The share of the median norm below which a row is short.

    Raises:
        UsageError: The model has no weights here, or no row is that short.
    """
    if lacks_weights(entry.path):
        message = "norms of rows are not known: the model has no weights here"
        raise UsageError(message, where=str(entry.path), hint="download its weights, or run this where they are")
    planned = plan(replace(workspace, drift="accept"), entry)
    state = planned.final
    texts = state.tokenizer.texts
    placed = {number: planned.edit.row(number) for number in expand(state.population) if number in texts}
    norms = _measure_input_norms(planned.snapshot, [row for row in placed.values() if isinstance(row, int)])
    median = float(np.median(norms))
    shares = norms / median if median else norms
    each = zip(placed, norms.tolist(), shares.tolist(), strict=True)
    rows = [ShortRow(number, texts[number], norm, share) for number, norm, share in each]
    rows = sorted((row for row in rows if row.token != pad_token(state)), key=lambda row: (row.share, row.id))
    short = tuple(row for row in rows if row.share < shorter_than)
    if not short or not median:
        shortest = f"the shortest, that of '{in_one_line(rows[0].token)}', has {rows[0].share:.1%}"
        hint = f"{shortest}: if that is one of a token that was never trained, give a larger --shorter-than"
        raise UsageError(f"no row has less than {shorter_than:.1%} of the median norm", where=entry.name, hint=hint)
    name, reasons = (file_name(workspace, message, suffix) for suffix in (".tokens.json", ".reasons.tsv"))
    listed = json.dumps([row.token for row in sorted(short, key=lambda row: row.id)], indent=0, ensure_ascii=False)
    fields = {"tokens_file": name, "init": {"strategy": "mean"}, "acknowledge": "breaking"}
    operation = operation_types()["reinit_tokens"].model_validate(fields)
    # Nothing is written that cannot be applied.
    operation.with_listed({name: listed.encode()}).apply(state, Context("0000"))
    remarks = [f"Input rows with less than {shorter_than:.1%} of the median norm, {median:.4g}."]
    files = {name: f"{listed}\n", reasons: _format_reasons(short)}
    models = (entry.name,) if entry.name in workspace.models else ("*",)
    path = write_yaml_migration(workspace, message, (operation,), remarks=remarks, models=models, attachments=files)
    return UntrainedTokens(path, path.parent / name, path.parent / reasons, short, len(placed))


def _format_reasons(rows: Sequence[ShortRow]) -> str:
    lines = (
        f"{row.id}\t{json.dumps(row.token, ensure_ascii=False)}\t{row.norm:.6g}\t{row.share:.6g}\n" for row in rows
    )
    return "".join(("id\ttoken\tnorm\tshare of the median\n", *lines))


def _measure_input_norms(snapshot: Snapshot, places: Sequence[int]) -> Matrix:
    """Return the norm of each of these rows, `(rows,)`; of several input matrices the largest."""
    found = np.zeros(len(places))
    for tensor in embedding_matrices(snapshot):
        if tensor.side == "input":
            with snapshot.weights.open_rows(tensor.name, tensor.axis) as rows:
                found = np.maximum(found, measure_norms(rows, places))
    return found
