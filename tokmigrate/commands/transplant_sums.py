"""How the rows of the new tokens of a transplant are sums of a model's own rows, by three methods."""

from __future__ import annotations

import base64
import importlib.util
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from blake3 import blake3

from tokmigrate.commands.models import open_model_or_dummy
from tokmigrate.commands.plan import plan
from tokmigrate.errors import UsageError, in_one_line
from tokmigrate.events import OnProgress, report_activity
from tokmigrate.init.coefficients import Sum, Terms
from tokmigrate.init.vector_sums import approximate, weigh_similar
from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.tokenizer.token_meaning import Spelling
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.model.weights.undertrained import find_undertrained
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.model.worker.corpora import Corpus
from tokmigrate.model.worker.embed_tokens import PASSES
from tokmigrate.model.worker.worker import stream_worker
from tokmigrate.operations.transplant import find_pieces
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.vocabulary.ids import runs
from tokmigrate.vocabulary.row_edit import SIDES, WHOLE, Side

Method = Literal["omp", "focus", "subtokens"]

MIN_COUNT = 10
"""How often a token must occur in the corpus of `focus` to be compared with others."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of another tokenizer.

    Args:
        rows: The old row of each token that keeps one, by its new id.
        left: The ids of those that get a sum.
    """

    old: Tokenizer
    new: Tokenizer
    rows: Mapping[int, int]
    left: Sequence[int]


@dataclass(frozen=True)
class RowSums:
    """The sums of old rows, with `said`, how they were computed, for their file; figures as in LearnedTransplant.

    The output side is missing where it is like the input side.
    """

    sides: Mapping[Side, Terms]
    said: Mapping[str, Any] = field(default_factory=dict)
    left_out: int | None = None
    rare: int | None = None
    error: Mapping[Side, float] = field(default_factory=dict)


def check_method(method: Method, corpus: Corpus | None) -> None:
    """Raise UsageError where a method lacks its corpus or library, or has a corpus that it does not read."""
    if (method == "focus") != (corpus is not None):
        if corpus is None:
            raise UsageError("--method focus learns from a corpus", hint="name its files: --corpus FILE")
        raise UsageError(f"--method {method} reads no corpus", hint="leave out --corpus, or choose --method focus")
    if corpus is not None and importlib.util.find_spec("gensim") is None:
        raise UsageError("gensim is needed for --method focus", hint='pip install "tokmigrate[focus]"')


def compute_sums(
    workspace: Workspace,
    entry: ModelEntry,
    donor: Path,
    tokens: Tokens,
    method: Method,
    most: int,
    corpus: Corpus | None,
    on_progress: OnProgress,
) -> RowSums:
    """Return the rows of new tokens as sums of old ones; arguments and errors are those of `learn_transplant`."""
    if corpus is not None:
        return _weigh_similar(workspace, entry, tokens, most, corpus, on_progress)
    with report_activity(on_progress, entry.name, "computing rows") as count_bytes:
        if method == "subtokens":
            return RowSums({"input": _join_pieces(tokens, tokens.left)})
        return _pursue(workspace, entry, donor, tokens, most, count_bytes)


def _pursue(
    workspace: Workspace,
    entry: ModelEntry,
    donor: Path,
    tokens: Tokens,
    most: int,
    count_bytes: Callable[[int], None],
) -> RowSums:
    """Return the sums of old rows that give the other model's rows, if its rows of shared tokens are added up."""
    snapshot = take_snapshot(ModelEntry(str(donor), donor))
    there, here = _find_undertrained(snapshot, tokens.new), _find_undertrained_rows(workspace, entry)
    shared = {number: row for number, row in tokens.rows.items() if number not in there and row not in here}
    if not shared:
        hint = "choose `--method subtokens`, which needs no token in common"
        raise UsageError("the models have no trained token in common", where=str(donor), hint=hint)
    said: dict[str, Any] = {"k": most, "numpy": np.__version__}
    sides: dict[Side, Terms] = {}
    error: dict[Side, float] = {}
    # Of equal products the lowest row counts.
    in_order = sorted(shared, key=shared.__getitem__)
    source = np.array([shared[number] for number in in_order])
    for side in SIDES:
        matrix = _find_matrix(snapshot, side)
        if matrix is not None:
            atoms, targets = (_read_rows(snapshot, matrix, numbers) for numbers in (in_order, tokens.left))
            said[f"{side}_rows"] = _digest(atoms, targets)
            found = _approximate(atoms, targets, most, count_bytes)
            sides[side] = {n: (source[places], held) for n, (places, held) in zip(tokens.left, found, strict=True)}
            error[side] = _measure_error(atoms, targets, found)
    return RowSums(sides, said, len(tokens.rows) - len(shared), error=error)


def _weigh_similar(
    workspace: Workspace, entry: ModelEntry, tokens: Tokens, most: int, corpus: Corpus, on_progress: OnProgress
) -> RowSums:
    """Return for each new token the shared tokens that occur in like places of the corpus; both sides have these."""
    here = _find_undertrained_rows(workspace, entry)
    trained = {number: row for number, row in tokens.rows.items() if row not in here}
    request = {"files": corpus.request(), "document": tokens.new.document, "min_count": MIN_COUNT}
    with report_activity(on_progress, entry.name, "learning from the corpus", PASSES * corpus.size) as count_bytes:
        answer = stream_worker("embed_tokens", request, count_bytes)
    places = {number: place for place, number in enumerate(answer["tokens"])}
    shared = sorted((number for number in trained if number in places), key=trained.__getitem__)
    if not shared:
        what = f"no token that both models have, and that is trained, occurs {MIN_COUNT} times in the corpus"
        raise UsageError(what, where=corpus.name, hint="give more text")
    vectors = np.frombuffer(base64.b64decode(answer["vectors"]), "<f4").reshape(len(places), -1)
    found = [number for number in tokens.left if number in places]
    rare = [number for number in tokens.left if number not in places]
    source = np.array([trained[number] for number in shared])
    with report_activity(on_progress, entry.name, "computing rows"):
        others, targets = (vectors[[places[n] for n in numbers]].astype(np.float64) for numbers in (shared, found))
        sums = zip(found, weigh_similar(targets, others, most), strict=True)
        terms: Terms = {number: (source[held], weights) for number, (held, weights) in sums}
        terms |= _join_pieces(tokens, rare)
    said = {"k": most, "numpy": np.__version__, "gensim": answer["gensim"], "vectors": _digest(others, targets)}
    return RowSums({"input": terms}, said, len(tokens.rows) - len(trained), len(rare))


def _digest(*arrays: Matrix) -> str:
    hasher = blake3()
    for array in arrays:
        hasher.update(array.reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()[:32]


def _join_pieces(tokens: Tokens, numbers: Sequence[int]) -> Terms:
    """Return the mean of the rows of the old tokens that the text of each new one is made of."""
    before, after, texts = Spelling(tokens.old), Spelling(tokens.new), tokens.new.texts
    found: Terms = {}
    for number in numbers:
        pieces = Counter(find_pieces(before, after, texts[number]))
        if not pieces:
            raise UsageError(
                f"the old tokenizer has no token for '{in_one_line(texts[number])}'", hint="choose --method omp"
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
