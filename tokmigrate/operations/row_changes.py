"""Rows for tokens: new ones, in spare rows first and then at the end, and rows that change their ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokmigrate.errors import OperationError, in_one_line
from tokmigrate.formatting import format_count, format_quoted
from tokmigrate.init import InitRecipe, InitSpec
from tokmigrate.init.row_strategy import Lookup
from tokmigrate.init.strategies import Copy
from tokmigrate.model.documents.architecture_quirks import FIXED_IDS, POSITION_IDS_FROM_PAD
from tokmigrate.model.documents.config_fields import parts_of, with_sizes
from tokmigrate.model.documents.pipeline_overrides import default_ids
from tokmigrate.model.documents.state import CONFIG, ModelState
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.operations.operation import Context
from tokmigrate.operations.token_checks import find_unreachable
from tokmigrate.vocabulary.ids import Renumbering, Run
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, OutputRowAdded, Recipe, RowEdit, join_pieces

MEAN = InitSpec.model_validate({"strategy": "mean"})
"""How a row is initialised by default: the effect of the mean on old text is bounded."""


@dataclass(frozen=True)
class _JoinedTokens:
    """The tokenizer before the operation; the pieces of a new token are the old ones that it is joined from."""

    tokenizer: Tokenizer
    sources: Mapping[str, tuple[int, ...]]

    @property
    def ids(self) -> Mapping[str, int]:
        return self.tokenizer.ids

    def pieces(self, text: str) -> tuple[int, ...]:
        return self.sources.get(text) or self.tokenizer.pieces(text)


def choose_init(state: ModelState, context: Context, *nearest_first: InitSpec | None) -> InitSpec:
    """Return the first strategy given, of the token, the operation, the file, `set_init`; else the mean."""
    for spec in (*nearest_first, context.init):
        if spec is not None:
            return spec
    return MEAN if state.init is None else InitSpec.model_validate(state.init)


def init_recipe(
    state: ModelState,
    context: Context,
    label: str,
    spec: InitSpec,
    population: tuple[Run, ...] | None = None,
    lookup: Lookup | None = None,
) -> InitRecipe:
    """Return the recipe for the row of the token `label`, read off the state before it.

    `population` are the rows of its statistics; by default those of the baseline vocabulary that are still there.
    `lookup` answers what strategies ask of the tokenizer; by default the tokenizer.
    """
    lookup = lookup or state.tokenizer
    population = state.population if population is None else population
    if not population:
        hint = "add tokens before others are removed, or keep a token of the baseline"
        raise OperationError("no row of the baseline vocabulary is left to initialise a new one from", hint=hint)
    return InitRecipe(
        revision=context.revision,
        label=label,
        input=spec.start("input", lookup, label, context.attachments),
        output=spec.start("output", lookup, label, context.attachments),
        population=population,
        table=_find_copied_row(state, spec, label) if state.traits.has_tables else None,
    )


def _find_copied_row(state: ModelState, spec: InitSpec, label: str) -> int:
    strategy = spec.table or spec.side("input")
    if isinstance(strategy, Copy):
        return strategy.sources("input", state.tokenizer, label)[0]
    like = next(iter(state.tokenizer.pieces(label)), state.population[0][0])
    written = spec.model_dump(mode="json", exclude_unset=True)
    init = {"input": written} if "strategy" in written else written
    init |= {"table": {"strategy": "copy", "token": state.tokenizer.texts[like]}}
    raise OperationError(
        f"the model looks '{label}' up in a table of integers, whose rows can only be copied",
        hint=f"say from which token, for example: init: {json.dumps(init, ensure_ascii=False)}",
    )


def with_new_rows(
    state: ModelState,
    context: Context,
    recipes: Mapping[int, InitRecipe],
    size: int = 0,
    spare: InitSpec | None = None,
) -> ModelState:
    """Return the state with each row of `recipes` made, and config.json in step.

    Args:
        size: The least size of the vocabulary afterwards.
        spare: How rows without a token are initialised; None to keep none.

    Raises OperationError where a hole would be left, or the number of rows cannot change.
    """
    before = state.rows
    size = max(state.vocab_size, size, max(recipes, default=-1) + 1)
    rows: dict[int, Recipe] = dict(recipes)
    if size > state.vocab_size:
        check_size_may_change(state)
        for row in range(state.vocab_size, size):
            if row in recipes:
                continue
            if row >= before and spare is None:
                raise OperationError(
                    f"row {min(recipe for recipe in recipes if recipe > row)} would leave a hole behind row {row - 1}",
                    hint=f"add rows first: resize_vocab: {{rows: {row + 1}}}",
                )
            recipe = init_recipe(state, context, state.tokenizer.texts.get(row, f"row {row}"), spare or MEAN)
            # Below `before` it has an input row already, and gets an output row.
            rows[row] = OutputRowAdded(row, recipe) if row < before else recipe
        # Behind them the ids that are not predicted, as many as before.
        behind = range(max(before, size), size + state.traits.short)
        rows |= {row: init_recipe(state, context, f"row {row}", spare or MEAN) for row in behind}
    return with_sizes(state.with_rows(RowEdit.identity(before).with_recipes(rows)), state)


def with_inserted_rows(state: ModelState, recipes: Sequence[InitRecipe], start: int, stop: int) -> ModelState:
    """Return the state with new rows from `start` on; those up to `stop` move up, into spare rows as far as there are.

    Raises OperationError where the number of rows cannot change.
    """
    spare = min(len(recipes), state.vocab_size - stop)
    if spare < len(recipes):
        check_size_may_change(state)
    pieces: list[CopiedRows | NewRow] = [CopiedRows(0, start), *map(NewRow, recipes)]
    pieces += [CopiedRows(start, stop), CopiedRows(stop + spare, state.rows)]
    return with_sizes(state.with_rows(RowEdit(state.rows, join_pieces(pieces))), state)


def with_joined_tokens(
    before: ModelState,
    after: ModelState,
    context: Context,
    init: InitSpec | None,
    ids: Mapping[str, int],
    sources: Mapping[str, tuple[int, ...]],
) -> ModelState:
    """Return the state `after` with a row for each token that was added to the tokenizer's model.

    Args:
        ids: The new tokens.
        sources: The old rows that each is joined from.

    Raises OperationError where no text produces one of them, or as `with_new_rows` does.
    """
    lost = find_unreachable(after, ids)
    if lost:
        raise OperationError(
            f"no text produces {format_count(len(lost), 'new token')}: {format_quoted(lost, 10)}",
            hint="leave them out: the tokenizer splits such text before it looks for tokens",
        )
    spec, lookup = choose_init(before, context, init), _JoinedTokens(before.tokenizer, sources)
    recipes = {number: init_recipe(before, context, token, spec, lookup=lookup) for token, number in ids.items()}
    return with_new_rows(after, context, recipes)


def check_size_may_change(state: ModelState) -> None:
    """Raise OperationError where the model cannot have another number of rows."""
    if state.traits.fixed_size is not None:
        raise OperationError(
            f"a {state.traits.model_type} model cannot have another number of rows: {state.traits.fixed_size}",
            hint="rename an unused token instead: rename_tokens",
        )


def check_ids_may_change(state: ModelState, renumbering: Renumbering, fewer: int = 0) -> None:
    """Raise OperationError where the model counts with ids that change; the vocabulary shrinks by `fewer`, or grows."""
    model_type = state.traits.model_type
    if model_type in FIXED_IDS and not renumbering.is_identity:
        raise OperationError(
            f"no id of a {model_type} model can change: it {FIXED_IDS[model_type]}",
            hint="leave every id as it is: remove_tokens with `ids: tombstone`, and no move_tokens",
        )
    _check_bounds(state, renumbering, fewer)
    for path, part in parts_of(state.documents[CONFIG], state.vocab_size):
        counting = str(part.get("model_type", "" if path else model_type))
        # Without a word in config.json transformers' default holds.
        held = part.get("pad_token_id", default_ids(counting).get("pad_token_id"))
        if counting in POSITION_IDS_FROM_PAD and isinstance(held, int) and renumbering.touches(held):
            raise OperationError(
                f"a {counting} model counts its positions from pad_token_id {held};"
                " another id would shift every position",
                hint=f"leave '{in_one_line(state.tokenizer.texts.get(held, str(held)))}' where it is",
            )


def _check_bounds(state: ModelState, renumbering: Renumbering, fewer: int) -> None:
    """Raise OperationError where an id would enter or leave a tensor that has no rows for some of the ids."""
    bounds = [(state.vocab_size, state.vocab_size - fewer), *((stop, stop) for stop in state.traits.stops)]
    for before, after in bounds:
        for old, new in renumbering.moves.items():
            if new is not None and (old < before) != (new < after):
                raise OperationError(
                    f"id {old} would become {new}, but in a {state.traits.model_type} model ids below and from {before}"
                    " on do not have rows in the same tensors",
                    hint="move tokens on one side of it only, and remove them with `ids: tombstone`",
                )
