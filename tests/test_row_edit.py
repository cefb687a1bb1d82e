"""The algebra of row edits: composing, doing nothing, and going back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokmigrate.apply.build_downgrade import inverse, read_lost_rows
from tokmigrate.init import InitRecipe
from tokmigrate.init.rows import SideInit
from tokmigrate.vocabulary.ids import Run, count, expand, runs
from tokmigrate.vocabulary.row_edit import (
    WHOLE,
    CopiedRows,
    NewRow,
    OutputRowAdded,
    Recipe,
    RestoredRow,
    RowEdit,
    Window,
)


@dataclass(frozen=True)
class Sum(Recipe):
    """A recipe that a test can follow: an amount and the sum of rows.

    Args:
        amount: The amount.
        sources: The rows; a rebased one may be a recipe itself.
    """

    amount: int
    sources: tuple[int | Recipe, ...]

    def rebase(self, first: RowEdit) -> Sum:
        """Return the same recipe in terms of the rows before `first`."""
        return Sum(self.amount, tuple(map(first.rebase, self.sources)))

    def value(self, matrix: list[int]) -> int:
        """Return what it makes of a matrix of one number in a row."""
        return self.amount + sum(_value(source, matrix) for source in self.sources)


def _value(wanted: int | Recipe, matrix: list[int]) -> int:
    if isinstance(wanted, int):
        return matrix[wanted]
    assert isinstance(wanted, Sum)
    return wanted.value(matrix)


def applied(edit: RowEdit, matrix: list[int]) -> list[int]:
    """Return the matrix after an edit, row by row."""
    assert len(matrix) == edit.old_rows
    return [_value(edit.row(number), matrix) for number in range(edit.new_rows)]


@st.composite
def edits(draw: st.DrawFn, rows: int) -> RowEdit:
    old = st.integers(0, rows - 1) if rows else st.nothing()
    recipes = st.builds(Sum, st.integers(-9, 9), st.lists(old, max_size=3).map(tuple) if rows else st.just(()))
    if draw(st.booleans()):
        return RowEdit.of(rows, draw(st.lists(old | recipes if rows else recipes, max_size=8)))
    # As migrations make them: what is kept stays in order, some rows go, some are new.
    held: list[int | Recipe] = [row for row in range(rows) if draw(st.integers(0, 4))]
    for recipe in draw(st.lists(recipes, max_size=4)):
        held.insert(draw(st.integers(0, len(held))), recipe)
    return RowEdit.of(rows, held)


@st.composite
def chains(draw: st.DrawFn, length: int) -> tuple[RowEdit, ...]:
    rows = draw(st.integers(0, 8))
    found: list[RowEdit] = []
    for _ in range(length):
        found.append(draw(edits(rows)))
        rows = found[-1].new_rows
    return tuple(found)


FAST = settings(derandomize=True, deadline=None, database=None, max_examples=150)


@FAST
@given(chains(3))
def test_then_is_associative(chain: tuple[RowEdit, ...]) -> None:
    first, second, third = chain
    assert first.then(second).then(third) == first.then(second.then(third))


@FAST
@given(chains(1))
def test_the_identity_is_neutral(chain: tuple[RowEdit, ...]) -> None:
    (edit,) = chain
    assert RowEdit.identity(edit.old_rows).then(edit) == edit
    assert edit.then(RowEdit.identity(edit.new_rows)) == edit
    assert edit.is_identity == (edit == RowEdit.identity(edit.old_rows))


@FAST
@given(chains(2))
def test_then_does_one_after_the_other(chain: tuple[RowEdit, ...]) -> None:
    first, second = chain
    matrix = [10**number for number in range(first.old_rows)]
    fused = first.then(second)
    assert fused.new_rows == second.new_rows
    assert applied(fused, matrix) == applied(second, applied(first, matrix))


@FAST
@given(chains(2))
def test_pieces_are_joined_and_cover_every_row(chain: tuple[RowEdit, ...]) -> None:
    edit = chain[0].then(chain[1])
    assert all(len(piece) for piece in edit.pieces)
    for piece, following in pairwise(edit.pieces):
        if isinstance(piece, CopiedRows) and isinstance(following, CopiedRows):
            assert piece.stop != following.start
    kept = {row for _, run in edit.copied_rows() for row in range(run.start, run.stop)}
    assert kept | set(expand(edit.find_lost_rows())) == set(range(edit.old_rows))
    assert not kept & set(expand(edit.find_lost_rows()))
    assert sum(len(run) for _, run in edit.copied_rows()) + len(list(edit.recipes())) == edit.new_rows
    for old, new in edit.positions().items():
        assert edit.row(new) == old


@FAST
@given(chains(1), st.data())
def test_a_slice_is_the_rows_that_it_names(chain: tuple[RowEdit, ...], data: st.DataObject) -> None:
    (edit,) = chain
    start = data.draw(st.integers(0, edit.new_rows))
    stop = data.draw(st.integers(start, edit.new_rows))
    found: list[int | Recipe] = []
    for piece in edit.slice(start, stop):
        found += range(piece.start, piece.stop) if isinstance(piece, CopiedRows) else [piece.recipe]
    assert found == [edit.row(number) for number in range(start, stop)]


def went_back(chain: tuple[RowEdit, ...], window: Window, matrix: list[int]) -> list[int]:
    """Return the matrix of a tensor with that window after a chain was done and undone, from what undo data keep."""
    matrices = [matrix]
    for edit in chain:
        matrices.append(applied(window.of(edit), matrices[-1]))
    back = RowEdit.identity(chain[-1].new_rows)
    saved: dict[str, bytes] = {}
    for number in reversed(range(len(chain))):
        before = matrices[number]
        parts = read_lost_rows(
            chain[number],
            window,
            8,
            lambda start, stop, held=before: b"".join(row.to_bytes(8, "big", signed=True) for row in held[start:stop]),
        )
        saved[str(number)] = b"".join(parts)
        back = back.then(inverse(chain[number], str(number), Window(short=SHORT)))
    own = window.of(back)
    found = []
    for place in range(own.new_rows):
        row = own.row(place)
        if isinstance(row, RestoredRow):
            found.append(int.from_bytes(saved[row.record][row.slot * 8 : row.slot * 8 + 8], "big", signed=True))
        else:
            assert isinstance(row, int)
            found.append(matrices[-1][row])
    return found


@FAST
@given(chains(3))
def test_going_back_over_a_chain_gives_every_row_again(chain: tuple[RowEdit, ...]) -> None:
    matrix = [3**number + 1 for number in range(chain[0].old_rows)]
    assert went_back(chain, WHOLE, matrix) == matrix


SHORT = 2


@st.composite
def chains_of_two_lengths(draw: st.DrawFn) -> tuple[RowEdit, ...]:
    """Draw edits of ids of which the last two have no row in one tensor; an id may get among them, or out of them."""
    ids = draw(st.integers(0, 5))
    found: list[RowEdit] = []
    for _ in range(3):
        recipes = st.builds(Sum, st.integers(-9, 9), st.just(()))
        inside, behind = range(ids), range(ids, ids + SHORT)
        added = st.builds(OutputRowAdded, st.sampled_from(behind), recipes)
        held = draw(st.lists(st.sampled_from(inside) | recipes | added if ids else recipes | added, max_size=6))
        held += draw(st.lists(st.sampled_from([*inside, *behind]) | recipes, min_size=SHORT, max_size=SHORT))
        found.append(RowEdit.of(ids + SHORT, held))
        ids = len(held) - SHORT
    return tuple(found)


@FAST
@given(chains_of_two_lengths(), st.sampled_from([0, SHORT]))
def test_going_back_gives_every_row_of_a_shorter_tensor(chain: tuple[RowEdit, ...], short: int) -> None:
    matrix = [3**number + 1 for number in range(chain[0].old_rows - short)]
    assert went_back(chain, Window(short=short), matrix) == matrix


@FAST
@given(chains(1))
def test_what_is_not_lost_is_not_stored(chain: tuple[RowEdit, ...]) -> None:
    (edit,) = chain
    back = inverse(edit, "record", WHOLE)
    stored = [recipe for _, recipe in back.recipes()]
    assert stored == [RestoredRow("record", slot) for slot in range(count(edit.find_lost_rows()))]
    assert edit.then(back).find_lost_rows() == edit.find_lost_rows()


@FAST
@given(st.lists(st.integers(0, 20), unique=True))
def test_runs_hold_the_numbers_in_their_order(numbers: list[int]) -> None:
    found = runs(numbers)
    assert list(expand(found)) == numbers
    assert count(found) == len(numbers)
    assert all(before[1] != after[0] for before, after in pairwise(found))


@dataclass(frozen=True)
class Nothing:
    """A strategy that is never asked for a row."""

    def rows(self, *asked: object) -> None:
        """Refuse."""
        raise AssertionError(asked)


def init_recipe(sources: tuple[int | Recipe, ...], population: tuple[Run, ...]) -> InitRecipe:
    start = SideInit(Nothing(), sources)  # type: ignore[arg-type]
    return InitRecipe("revision", "token", start, start, population)


def test_a_new_row_follows_its_sources_and_its_population() -> None:
    source = init_recipe((1,), ((0, 3),))
    first = RowEdit.of(4, [3, 0, 1, 2, source])
    later = init_recipe((4, 0), ((1, 4),))
    rebased = later.rebase(first)
    assert rebased.input.sources == rebased.output.sources == (source, 3)
    assert rebased.population == ((0, 3),)
    assert first.then(RowEdit.of(5, [*range(5), later])).row(5) == rebased


def test_the_population_may_not_hold_rows_that_migrations_made() -> None:
    first = RowEdit(2, (CopiedRows(0, 2), NewRow(init_recipe((), ((0, 2),)))))
    with pytest.raises(TypeError):
        init_recipe((), ((0, 3),)).rebase(first)


def test_edits_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot follow"):
        RowEdit.identity(3).then(RowEdit.identity(4))
    with pytest.raises(IndexError):
        RowEdit.identity(3).row(3)
    with pytest.raises(IndexError):
        RowEdit.identity(3).row(-1)
