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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from blake3 import blake3

from tokmigrate.model.formats.dtype import Matrix, from_float64, to_float64
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.vocabulary.row_edit import Side

if TYPE_CHECKING:
    import numpy.typing as npt

Mask: TypeAlias = "npt.NDArray[np.bool_]"
Places: TypeAlias = "npt.NDArray[np.int64]"

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
_MOST = 1024
"""So many rows are enough to find the common direction."""
_BLOCK_NUMBERS = 1 << 17


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


class Rows(Protocol):
    """The rows of a matrix, from which some are read at a time."""

    def __getitem__(self, places: Places, /) -> Matrix:
        """Return the rows at some places, `(places, width)`."""
        ...


@dataclass(frozen=True, eq=False)
class Tracked:
    """Rows of one matrix at their init, or when they were recorded, and now.

    Args:
        then: The rows as they were, `(rows, width)`.
        now: The rows as they are.
        is_absent: Which are known to be of no token that a text had.
        is_sample: Which are a sample of the vocabulary, of whose occurrences nothing is known.
    """

    then: Rows
    now: Rows
    is_absent: Mask
    is_sample: Mask


@dataclass(frozen=True, eq=False)
class _Block:
    """Some of the rows, all finite: their places, and what they were and are, `(rows, width)`."""

    places: Places
    then: Matrix
    now: Matrix

    @property
    def changes(self) -> list[float | None]:
        """The norm of each change as a share of the row's norm before."""
        steps, sizes = (np.linalg.norm(rows, axis=1) for rows in (self.now - self.then, self.then))
        return [float(step) / float(size) if size else None for step, size in zip(steps, sizes, strict=True)]

    @property
    def steps(self) -> Matrix:
        """The change of each row without its part along the row itself, which weight decay changes."""
        steps = self.now - self.then
        sizes = np.einsum("ij,ij->i", self.then, self.then)
        along = np.einsum("ij,ij->i", steps, self.then)
        share = np.divide(along, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        free: Matrix = steps - share[:, np.newaxis] * self.then
        return free


def find_movements(rows: Tracked, *, is_output: bool) -> tuple[Movement, ...]:
    """Return what happened to rows of output embeddings, or of tied ones; else of input embeddings alone.

    Of a row that holds an infinity or a NaN it is not known. Rows are read several times, some megabytes at a time.
    """
    changed = np.zeros(len(rows.is_absent), np.int64)
    finite = np.zeros(len(changed), np.bool_)
    for block in _blocks(rows, np.arange(len(changed))):
        finite[block.places] = np.all(np.isfinite(block.then) & np.isfinite(block.now), axis=1)
        changed[block.places] = np.count_nonzero(block.now != block.then, axis=1)
    found = {int(place): Movement("untrained", 0.0) for place in np.flatnonzero(finite & (changed == 0))}
    moved = np.flatnonzero(finite & (changed > 0))
    found |= _output_movements(rows, finite, moved) if is_output else _input_movements(rows, finite, changed)
    return tuple(found.get(place) or Movement("unknown", why=NOT_FINITE) for place in range(len(changed)))


def _blocks(rows: Tracked, places: Places) -> Iterator[_Block]:
    """Yield rows in blocks of about a megabyte, in the order of their places."""
    size = max(1, _BLOCK_NUMBERS // max(1, rows.now[places[:1]].size)) if len(places) else 1
    for start in range(0, len(places), size):
        part = places[start : start + size]
        yield _Block(part, rows.then[part], rows.now[part])


def _input_movements(rows: Tracked, finite: Mask, changed: Places) -> dict[int, Movement]:
    """Return what happened to the changed rows by their places; `changed` counts the numbers of each that did."""
    decayed = np.zeros(len(changed), np.bool_)
    has_reference, reach = False, 0.0
    for block in _blocks(rows, np.flatnonzero(finite)):
        own = np.all(_is_nearer(block), axis=1) & (changed[block.places] >= _FEWEST)
        decayed[block.places] = own
        stayed = (changed[block.places] == 0) & np.any(block.then != 0, axis=1)
        has_reference |= bool(np.any(own | stayed))
        # A decay of that size may take a smaller number beyond zero.
        reach = max(reach, _MARGIN * float(np.max(np.abs(block.now - block.then)[own], initial=0.0)))
    found: dict[int, Movement] = {}
    for block in _blocks(rows, np.flatnonzero(finite & (changed > 0))):
        largest = np.maximum(np.abs(block.then), np.abs(block.now))
        is_beyond = np.any(~_is_nearer(block) & (largest > reach), axis=1)
        for place, change, beyond in zip(block.places, block.changes, is_beyond, strict=True):
            if decayed[place]:
                found[int(place)] = Movement("moved", change)
            elif not has_reference:
                found[int(place)] = Movement("unknown", change, why=NO_REFERENCE)
            elif not beyond:
                found[int(place)] = Movement("unknown", change, why=NOT_CLEAR)
            else:
                found[int(place)] = Movement("trained", change)
    return found


def _is_nearer(block: _Block) -> Mask:
    """Return which numbers are no farther from zero than they were, and not beyond it."""
    nearer: Mask = (np.abs(block.now) <= np.abs(block.then)) & (block.now * block.then >= 0)
    return nearer


def _output_movements(rows: Tracked, finite: Mask, moved: Places) -> dict[int, Movement]:
    """Return what happened to the rows that `moved`, by their places."""
    found = _by_twins(rows, moved)
    proven = rows.is_absent & finite
    proven[[place for place, movement in found.items() if movement.kind == "moved"]] = True
    reference = np.intersect1d(moved, np.flatnonzero(rows.is_sample | proven))
    common = _common(rows, reference) or _common(rows, reference[proven[reference]])
    for block in _blocks(rows, moved[[int(place) not in found for place in moved]]):
        steps = block.steps if common is not None else None
        for number, (place, change) in enumerate(zip(block.places, block.changes, strict=True)):
            if common is None or steps is None:
                found[int(place)] = Movement("unknown", change, why=NO_REFERENCE)
            else:
                found[int(place)] = common.judge(steps[number], change)
    return found


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


def _common(rows: Tracked, chosen: Places) -> _Common | None:
    """Return how most of the chosen rows move together, None where most of them do not.

    Of very many, some are taken, evenly spread.
    """
    if len(chosen) > _MOST:
        chosen = chosen[np.arange(_MOST) * len(chosen) // _MOST]
    if len(chosen) < _ROWS:
        return None
    held = np.concatenate([block.steps for block in _blocks(rows, chosen)])
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


def _by_twins(rows: Tracked, moved: Places) -> dict[int, Movement]:
    """Return what rows with one init show about each other: those that are still equal had no occurrence."""
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    sums: dict[int, float] = {}
    for block in _blocks(rows, moved):
        for place, then, now in zip(block.places, block.then, block.now, strict=True):
            groups[blake3(then.tobytes()).digest()].append(int(place))
            sums[int(place)] = float(now.sum())
    found: dict[int, Movement] = {}
    for group in groups.values():
        reference = _still_equal(rows, group, sums) if len(group) > 1 else None
        if reference is None:
            continue
        (step,) = next(_blocks(rows, np.array([reference]))).steps
        norm = float(np.linalg.norm(step))
        for block in _blocks(rows, np.array(group)):
            for place, own, change in zip(block.places, block.steps, block.changes, strict=True):
                apart = float(np.linalg.norm(own - step)) / norm if norm else 0.0
                size = float(np.linalg.norm(own))
                likeness = float(own @ step) / (size * norm) if size and norm else None
                if apart <= _EQUAL:
                    found[int(place)] = Movement("moved", change, likeness)
                elif apart >= _APART:
                    found[int(place)] = Movement("trained", change, likeness)
    return found


def _still_equal(rows: Tracked, group: list[int], sums: Mapping[int, float]) -> int | None:
    """Return a row without occurrences among rows with one init: one known to be absent, or one that has an equal."""
    absent = next((row for row in group if rows.is_absent[row]), None)
    if absent is not None:
        return absent
    # Equal rows have equal sums, so those next to each other by it are all that have to be compared.
    ordered = np.array(sorted(group, key=lambda row: sums[row]))
    last: tuple[int, Matrix] | None = None
    for block in _blocks(rows, ordered):
        for place, step in zip(block.places, block.steps, strict=True):
            if last is not None and np.linalg.norm(last[1] - step) <= _EQUAL * np.linalg.norm(last[1]):
                return last[0]
            last = int(place), step
    return None


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
