"""Whether rows were trained, or only moved as rows of tokens that no text had.

- A row of untied input embeddings gets a gradient only where its token occurs. Otherwise weight decay alone moves it,
  and that never takes a number away from zero, but for one so small that a step of an optimizer goes beyond zero.
- The softmax moves every row of an output or tied matrix in each step. Rows without occurrences go nearly the same way,
  those of tokens that occur go elsewhere; two rows with one init and no occurrence stay equal.

Where the comparison does not decide, the answer is unknown. That a row is still as it was initialised its fingerprint
shows, digest and dtype: as text `input BF16 <BLAKE3 of the row's bytes>; output BF16 <…>`, of a tied model the input.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from blake3 import blake3

from tokmigrate.model.formats.dtype import Matrix, from_float64, to_float64
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.vocabulary.row_edit import Side

if TYPE_CHECKING:
    import numpy.typing as npt

Mask: TypeAlias = "npt.NDArray[np.bool_]"

NO_REFERENCE = "there is no row of a token known to be absent whose movement it could be compared with"
NOT_CLEAR = "its movement is neither that of rows without occurrences nor clearly another"
NOT_FINITE = "it holds an infinity or a NaN"

_FEWEST = 16
"""So many numbers that all went towards zero are no coincidence; of fewer it is not known."""
_MARGIN = 2.0
"""How many times the longest step of a decay a number has to be, so that decay does not take it beyond zero."""
_EQUAL, _APART = 0.01, 0.1
"""How far two rows with one init may part, as a share of their movement, and from where on they did."""
_COHERENT = 0.5
"""The least cosine with their common direction at which rows count as moving together."""
_ROWS = 4
"""So few rows have no common direction."""


@dataclass(frozen=True)
class Movement:
    """What happened to a row since its init.

    Args:
        change: The norm of the change as a share of the row's norm at init; None where that is zero.
        likeness: The cosine of its movement with that of rows without occurrences; None where that is not known.
    """

    kind: Literal["untrained", "moved", "trained", "unknown"]
    change: float | None = None
    likeness: float | None = None
    why: str | None = None


@dataclass(frozen=True, eq=False)
class Tracked:
    """Rows of one matrix at their init, or when they were recorded, and now.

    Args:
        then: The rows as they were, `(rows, width)`.
        now: The rows as they are.
        is_absent: Which are known to be of no token that a text had.
        is_sample: Which are a sample of the vocabulary, of whose occurrences nothing is known.
    """

    then: Matrix
    now: Matrix
    is_absent: Mask
    is_sample: Mask


def find_movements(rows: Tracked, *, is_output: bool) -> tuple[Movement, ...]:
    """Return what happened to rows of output embeddings, or of tied ones; else of input embeddings alone.

    Of a row that holds an infinity or a NaN it is not known.
    """
    finite = np.all(np.isfinite(rows.then) & np.isfinite(rows.now), axis=1)
    kept = Tracked(rows.then[finite], rows.now[finite], rows.is_absent[finite], rows.is_sample[finite])
    judged = iter(_output_movements(kept) if is_output else _input_movements(kept))
    return tuple(next(judged) if is_finite else Movement("unknown", why=NOT_FINITE) for is_finite in finite)


def _input_movements(rows: Tracked) -> tuple[Movement, ...]:
    changed = np.count_nonzero(rows.now != rows.then, axis=1)
    nearer = (np.abs(rows.now) <= np.abs(rows.then)) & (rows.now * rows.then >= 0)
    decayed = np.all(nearer, axis=1) & (changed >= _FEWEST)
    # A decay of that size may take a smaller number beyond zero.
    reach = _MARGIN * float(np.max(np.abs(rows.now - rows.then)[decayed], initial=0.0))
    is_beyond = np.any(~nearer & (np.maximum(np.abs(rows.then), np.abs(rows.now)) > reach), axis=1)
    stayed = (changed == 0) & np.any(rows.then != 0, axis=1)
    has_reference = bool(np.any(decayed | stayed))

    def of(row: int) -> Movement:
        change = _change(rows, row)
        if decayed[row]:
            return Movement("moved", change)
        if not has_reference:
            return Movement("unknown", change, why=NO_REFERENCE)
        if not is_beyond[row]:
            return Movement("unknown", change, why=NOT_CLEAR)
        return Movement("trained", change)

    return tuple(of(row) if changed[row] else Movement("untrained", 0.0) for row in range(len(rows.now)))


def _output_movements(rows: Tracked) -> tuple[Movement, ...]:
    steps = _free_of_decay(rows)
    moved = np.any(rows.now != rows.then, axis=1)
    by_twins = _by_twins(rows, steps, moved)
    alike = [row for row, movement in by_twins.items() if movement.kind == "moved"]
    proven = rows.is_absent | np.isin(np.arange(len(moved)), alike)
    common = _common(steps, (rows.is_sample | proven) & moved) or _common(steps, proven & moved)

    def of(row: int) -> Movement:
        if not moved[row]:
            return Movement("untrained", 0.0)
        if row in by_twins:
            return by_twins[row]
        change = _change(rows, row)
        if common is None:
            return Movement("unknown", change, why=NO_REFERENCE)
        return common.judge(steps[row], change)

    return tuple(of(row) for row in range(len(rows.now)))


@dataclass(frozen=True, eq=False)
class _Common:
    """How rows without occurrences move: their common unit vector, their cosines with it, and their norms."""

    direction: Matrix
    lowest: float
    median: float
    shortest: float
    longest: float

    def judge(self, step: Matrix, change: float | None) -> Movement:
        norm = float(np.linalg.norm(step))
        likeness = float(step @ self.direction) / norm if norm else 0.0
        if likeness >= self.median and self.shortest / 2 <= norm <= self.longest * 2:
            return Movement("moved", change, likeness)
        if likeness <= self.lowest / 2:
            return Movement("trained", change, likeness)
        return Movement("unknown", change, likeness, NOT_CLEAR)


def _common(steps: Matrix, chosen: Mask) -> _Common | None:
    """Return how most of the chosen rows move together, None where most of them do not."""
    held = steps[chosen]
    norms = np.linalg.norm(held, axis=1)
    held, norms = held[norms > 0], norms[norms > 0]
    if len(held) < _ROWS:
        return None
    units = held / norms[:, np.newaxis]
    core = np.ones(len(units), np.bool_)
    for _ in range(5):
        total = units[core].sum(axis=0)
        direction = total / (float(np.linalg.norm(total)) or 1.0)
        core = units @ direction >= _COHERENT
        if core.sum() < _ROWS:
            return None
    cosines = (units @ direction)[core]
    if core.sum() * 2 <= len(units):
        return None
    return _Common(
        direction, float(cosines.min()), float(np.median(cosines)), float(norms[core].min()), float(norms[core].max())
    )


def _by_twins(rows: Tracked, steps: Matrix, moved: Mask) -> dict[int, Movement]:
    """Return what rows with one init show about each other: those that are still equal had no occurrence."""
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for place in np.flatnonzero(moved):
        groups[rows.then[place].tobytes()].append(int(place))
    found: dict[int, Movement] = {}
    for group in groups.values():
        reference = _still_equal(rows.now, steps, group, rows.is_absent)
        if reference is None or len(group) < 2:
            continue
        step, norm = steps[reference], float(np.linalg.norm(steps[reference]))
        for row in group:
            apart = float(np.linalg.norm(steps[row] - step)) / norm if norm else 0.0
            size = float(np.linalg.norm(steps[row]))
            likeness = float(steps[row] @ step) / (size * norm) if size and norm else None
            if apart <= _EQUAL:
                found[row] = Movement("moved", _change(rows, row), likeness)
            elif apart >= _APART:
                found[row] = Movement("trained", _change(rows, row), likeness)
    return found


def _still_equal(now: Matrix, steps: Matrix, group: list[int], is_absent: Mask) -> int | None:
    """Return a row without occurrences among rows with one init: one known to be absent, or one that has an equal."""
    absent = next((row for row in group if is_absent[row]), None)
    if absent is not None:
        return absent
    # Equal rows have equal sums, so those next to each other by it are all that have to be compared.
    ordered = sorted(group, key=lambda row: float(now[row].sum()))
    for one, other in pairwise(ordered):
        if np.linalg.norm(steps[one] - steps[other]) <= _EQUAL * np.linalg.norm(steps[one]):
            return one
    return None


def _free_of_decay(rows: Tracked) -> Matrix:
    """Return the change of each row without its part along the row itself, which weight decay changes."""
    steps = rows.now - rows.then
    sizes = np.einsum("ij,ij->i", rows.then, rows.then)
    along = np.einsum("ij,ij->i", steps, rows.then)
    share = np.divide(along, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    free: Matrix = steps - share[:, np.newaxis] * rows.then
    return free


def _change(rows: Tracked, row: int) -> float | None:
    size = float(np.linalg.norm(rows.then[row]))
    return float(np.linalg.norm(rows.now[row] - rows.then[row])) / size if size else None


_FINGERPRINT = re.compile(r"(input|output) (\w+) ([0-9a-f]{64})")
# To which dtypes the numbers of each can be cast without a change.
_WIDER: Mapping[str, frozenset[str]] = {
    "BF16": frozenset({"F32", "F64"}),
    "F16": frozenset({"F32", "F64"}),
    "F32": frozenset({"F64"}),
}


@dataclass(frozen=True)
class RowFingerprint:
    """The digest (BLAKE3, in hexadecimal) and dtype of a row of one matrix as a migration initialised it."""

    dtype: str
    digest: str

    @staticmethod
    def of(raw: bytes, dtype: str) -> RowFingerprint:
        """Return the fingerprint of a row that is stored as `raw`."""
        return RowFingerprint(dtype, blake3(raw).hexdigest())

    def still_is(self, raw: bytes, dtype: str) -> bool | None:
        """Return whether a row is as it was initialised, None where that is not known.

        A `dtype` that holds every number of the first is no change: the numbers are compared. In another one it is not
        known.
        """
        if dtype == self.dtype:
            return blake3(raw).hexdigest() == self.digest
        if dtype not in _WIDER.get(self.dtype, ()):
            return None
        values = to_float64(raw, dtype)
        narrow = from_float64(values, self.dtype)
        if not np.array_equal(to_float64(narrow, self.dtype), values, equal_nan=True):
            return False
        return blake3(narrow).hexdigest() == self.digest


RowFingerprints = Mapping[Side, RowFingerprint]
"""The fingerprints of a token's rows: in the input embeddings, and in those of the output where they are not tied."""


def format_fingerprints(marks: RowFingerprints) -> str:
    return "; ".join(f"{side} {mark.dtype} {mark.digest}" for side, mark in sorted(marks.items()))


def parse_fingerprints(text: str) -> dict[Side, RowFingerprint]:
    """Return the fingerprints that a text holds; none where it is written in a way that is not known."""
    found = [_FINGERPRINT.fullmatch(part) for part in text.split("; ")]
    if not all(found):
        return {}
    return {"output" if part[1] == "output" else "input": RowFingerprint(part[2], part[3]) for part in found if part}


def embeddings(tensors: Iterable[VocabularyTensor]) -> dict[Side, VocabularyTensor]:
    """Return the matrices whose rows get fingerprints: the input embeddings, and those of the output unless tied.

    Biases, tables of integers and embeddings of single layers get none: what training makes of a token shows here.
    """
    known = tuple(tensors)
    names = {tensor.name: tensor for tensor in known}
    found: dict[Side, VocabularyTensor] = {}
    for tensor in known:
        if tensor.embeds:
            found.setdefault("input", names[tensor.canonical])
        elif tensor.side == "output" and tensor.canonical == tensor.name and _is_whole(tensor):
            found.setdefault("output", tensor)
    return found


def _is_whole(tensor: VocabularyTensor) -> bool:
    return tensor.width > 1 and tensor.window.stop is None and not tensor.is_table and not tensor.adds
