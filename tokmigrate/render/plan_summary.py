"""What a plan comes to: its figures, and in words what happens to tokens and rows, for text and Markdown alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tokmigrate.formatting import format_bytes, format_count
from tokmigrate.init.rows import InitRecipe
from tokmigrate.operations.operation import RiskLevel
from tokmigrate.render.escape import escape_quoted
from tokmigrate.vocabulary.row_edit import OutputRowAdded

if TYPE_CHECKING:
    from tokmigrate.plan.plan import FileChange, Plan
    from tokmigrate.plan.steps import Effect
    from tokmigrate.plan.token_changes import TokenChange
    from tokmigrate.vocabulary.row_edit import Recipe

TokenKind = Literal["added", "changed", "removed", "moved"]

_ROWS = {"new": "new", "spare": "new, in a spare row", "kept": "new, with the row that was there"}
_SIDES = {"new": "is new", "spare": "is a spare one", "kept": "stays", "reinitialised": "is initialised again"}
_YES = {True: "yes", False: "no"}
_LEVELS = tuple(RiskLevel)
"""From the lowest to the highest."""


def token_kind(change: TokenChange) -> TokenKind:
    """Return what happens to a token, in a word; one that only gets another id is moved."""
    if change.token is None:
        return "removed"
    if change.old_token is None:
        return "added"
    is_same = change.token == change.old_token and change.row == "kept" and change.output_row in ("kept", None)
    return "moved" if is_same and not (change.flags or change.gains or change.loses) else "changed"


def list_tokens(plan: Plan) -> list[TokenChange]:
    """Return the tokens that a plan changes; those that only get another id come last, since there may be very many."""
    return sorted(plan.tokens, key=_is_moved)


def _is_moved(change: TokenChange) -> bool:
    return token_kind(change) == "moved"


def describe_token(change: TokenChange) -> str:
    """Return what happens to a token, for a terminal."""
    return ", ".join(_descriptions(change))


def _descriptions(change: TokenChange) -> Iterator[str]:
    if change.token is None:
        placed = f"; {escape_quoted(change.placeholder)} holds its place" if change.placeholder is not None else ""
        yield f"removed, was {change.old_id}{placed}"
        return
    if change.old_token is None:
        yield _ROWS[change.row or "new"]
        if change.output_row not in (change.row, None):
            yield f"its output row {_SIDES[change.output_row or 'new']}"
    else:
        if change.token != change.old_token:
            yield f"renamed from {escape_quoted(change.old_token)}"
        if change.id != change.old_id:
            yield f"moved from {change.old_id}"
        if change.output_row not in (change.row, None):
            yield f"its input row {_SIDES[change.row or 'kept']}"
            yield f"its output row {_SIDES[change.output_row or 'new']}"
        elif change.row == "reinitialised":
            yield "its row is initialised again"
    for each in change.flags:
        yield f"{each.flag}: {_YES[each.before]} → {_YES[each.after]}"
    yield from (f"becomes {role}" for role in change.gains)
    yield from (f"no longer {role}" for role in change.loses)


def token_text(change: TokenChange) -> str:
    """Return the text of a token at the end, or the one that it had."""
    return change.token if change.token is not None else change.old_token or ""


def describe_risk(effect: Effect) -> str:
    """Return the risk of an operation, and whether its migration acknowledges it."""
    level = effect.risk.level
    return f"{level.value}, acknowledged" if is_acknowledged(effect) else level.value


def is_acknowledged(effect: Effect) -> bool:
    """Return whether an operation is breaking and its migration acknowledges that."""
    return effect.risk.level is RiskLevel.BREAKING and effect.planned.operation.acknowledge is not None


def choose_effects(plan: Plan, most: int) -> tuple[dict[str, list[Effect]], int]:
    """Return the operations to show by revision, the first `most` and all that are not safe, and how many are left."""
    chosen: dict[str, list[Effect]] = {}
    seen = more = 0
    for step in plan.steps:
        found = chosen.setdefault(step.migration.revision, [])
        for effect in step.effects:
            seen += 1
            if seen <= most or effect.risk.level is not RiskLevel.SAFE:
                found.append(effect)
            else:
                more += 1
    return chosen, more


def list_files(plan: Plan) -> list[tuple[str, FileChange]]:
    """Return the files that a plan writes or removes, those of its adapters with the adapter's path, and its GGUFs."""
    parts = (plan, *plan.adapters)
    return [
        (change.name if each is plan else f"{each.model}/{change.name}", change)
        for each in parts
        for change in each.file_changes()
    ] + [(change.name, change) for change in plan.copy_changes()]


def describe_rows(plan: Plan) -> list[str]:
    """Return how the rows get their values: initialised by which strategy, moved, replaced."""
    strategies = Counter(_strategies(recipe) for _, recipe in plan.edit.recipes())
    moved = sum(len(piece) for start, piece in plan.edit.copied_rows() if start != piece.start)
    lines = [f"{format_count(number, 'row')} initialised by {how}" for how, number in strategies.most_common()]
    lines += [f"{format_count(moved, 'row')} moved with their tokens"] if moved else []
    if plan.lost_rows:
        kept = format_bytes(plan.bytes_of_lost_rows)
        many = "s are" if plan.lost_rows > 1 else " is"
        lines.append(f"{plan.lost_rows:,} row{many} replaced or removed: undo data keeps {kept}, uncompressed")
    return lines


def _strategies(recipe: Recipe) -> str:
    found = recipe.init if isinstance(recipe, OutputRowAdded) else recipe
    if not isinstance(found, InitRecipe):
        return "an undo record"
    sides = [str(getattr(side.strategy, "strategy", "a plug-in")) for side in (found.input, found.output)]
    return sides[0] if sides[0] == sides[1] else f"{sides[0]}, the output row by {sides[1]}"


@dataclass(frozen=True)
class PlanSummary:
    """The figures of a plan; those of its adapters are in `files` and `bytes_to_write` too.

    Args:
        risk: The highest risk of an operation, None where there is none.
        acknowledged: How many breaking operations the migrations acknowledge.
    """

    migrations: int
    operations: int
    tokens: Mapping[TokenKind, int]
    rows_before: int
    rows_after: int
    files: Mapping[str, int]
    bytes_to_write: int
    risk: RiskLevel | None
    acknowledged: int

    def lines(self) -> list[tuple[str, str]]:
        """Return each figure with its name."""
        at_risk = self.risk.value if self.risk else "none"
        if self.acknowledged:
            at_risk += f", acknowledged ({self.acknowledged:,} of {format_count(self.operations, 'operation')})"
        return [
            ("migrations", f"{self.migrations:,}"),
            ("tokens", _format_counts(self.tokens)),
            ("rows", f"{self.rows_before} → {self.rows_after}"),
            ("files", f"{_format_counts(self.files)}, {format_bytes(self.bytes_to_write)} to be written"),
            ("highest risk", at_risk),
        ]


def _format_counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in counts.items() if number) or "none changed"


def summarise_plan(plan: Plan) -> PlanSummary:
    """Return the figures of a plan."""
    effects = [effect for step in plan.steps for effect in step.effects]
    kinds = Counter(map(token_kind, plan.tokens))
    changes = [change for _, change in list_files(plan)]
    files = Counter(change.kind for change in changes)
    return PlanSummary(
        migrations=len(plan.steps),
        operations=len(effects),
        tokens={kind: kinds[kind] for kind in ("added", "changed", "removed", "moved")},
        rows_before=plan.edit.old_rows,
        rows_after=plan.edit.new_rows,
        files={kind: files[kind] for kind in ("new", "changed", "removed")},
        bytes_to_write=sum(change.bytes for change in changes),
        risk=max((effect.risk.level for effect in effects), key=_LEVELS.index, default=None),
        acknowledged=sum(map(is_acknowledged, effects)),
    )
