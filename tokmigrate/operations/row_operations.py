"""The operations on rows alone: `resize_vocab`, `reinit_tokens` and `set_init`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field, model_validator

from tokmigrate.errors import OperationError
from tokmigrate.formatting import format_quoted
from tokmigrate.init import InitSpec
from tokmigrate.init.file_strategy import File
from tokmigrate.init.strategies import FromOwnPieces
from tokmigrate.model.documents.architecture_quirks import ordered_tail
from tokmigrate.model.documents.config_fields import with_sizes
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.operation import DEFAULT_INIT, Context, Footprint, Operation, Risk, TokenChanges, TokenList
from tokmigrate.operations.row_changes import MEAN, check_size_may_change, choose_init, init_recipe, with_new_rows
from tokmigrate.operations.token_checks import id_of
from tokmigrate.operations.token_lists import FILE_DESCRIPTION, TokenListOperation
from tokmigrate.vocabulary.ids import expand, runs
from tokmigrate.vocabulary.row_edit import SIDES, CopiedRows, RowEdit


class ResizeVocab(Operation):
    """Set the number of rows, for kernels that like a multiple or for tokens to come.

    `multiple_of` only ever grows the matrices. `rows` may also drop spare rows, never a token's. A spare row
    has no text: where the default strategy reads the token's (`subtokens`, `interpolate`, `file`), it is initialised
    with the mean.
    """

    name: ClassVar[str] = "resize_vocab"

    rows: int | None = Field(default=None, ge=1, description="Exactly that many rows.")
    multiple_of: int | None = Field(default=None, ge=1, description="The next multiple of this number.")
    init: InitSpec | None = Field(default=None, description="How spare rows are initialised.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        if self.rows is None and self.multiple_of is None:
            raise OperationError("resize_vocab needs a size", hint="give `rows:` or `multiple_of:`")
        target = self.rows or state.vocab_size
        if self.multiple_of:
            target = -(-target // self.multiple_of) * self.multiple_of
        needed = state.tokenizer.highest + 1
        if target < needed:
            raise OperationError(f"{target} rows are too few: the ids go up to {needed - 1}", hint=f"rows: {needed}")
        if target >= state.vocab_size:
            spec = choose_init(state, context, self.init)
            if any(isinstance(spec.side(side), FromOwnPieces | File) for side in SIDES):
                if self.init is not None:
                    raise OperationError("a spare row has no token whose text could initialise it", hint="use mean")
                spec = MEAN
            return with_new_rows(state, context, {}, target, spec)
        check_size_may_change(state)
        rows = target + state.traits.short
        return with_sizes(state.with_rows(RowEdit(state.rows, (CopiedRows(0, rows),))), state)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        if after.rows < before.rows:
            return Risk.caution(f"{before.rows - after.rows} spare rows are dropped")
        if after.rows > before.rows and ordered_tail(before) is not None:
            kind = before.traits.model_type
            return Risk.caution(f"a {kind} model takes rows after its last token for further timestamps")
        return Risk.safe("no token changes; spare rows can win no more than their share")

    def token_changes(self) -> TokenChanges:
        return TokenChanges()

    def footprint(self) -> Footprint:
        return Footprint.of(["the number of rows"], Footprint.name_init(self.init))


class ReinitTokens(TokenListOperation):
    """Initialise the rows of tokens again; text and ids stay.

    From then on such a row is one that a migration made: no mean is taken over it. The strategy reads the rows as
    they are before the operation, and its statistics leave out the rows that are initialised again.
    """

    name: ClassVar[str] = "reinit_tokens"
    shorthand: ClassVar[str | None] = "tokens"

    tokens: TokenList = Field(default=(), description="The tokens; a text alone is one.")
    tokens_file: str | None = Field(default=None, min_length=1, description=FILE_DESCRIPTION)
    init: InitSpec | None = Field(default=None, description="How the rows are initialised.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        return with_reinitialised_rows(state, context, {id_of(state, token): token for token in self.tokens}, self.init)

    def risk(self, before: ModelState, after: ModelState) -> Risk:  # noqa: ARG002
        ordinary = [token for token in self.tokens if token not in before.tokenizer.added]
        if ordinary:
            return Risk.breaking(f"ordinary text is made of {format_quoted(ordinary)}, which the model forgets")
        is_given = self.init is not None and all(isinstance(self.init.side(side), File) for side in SIDES)
        end = "is replaced by rows of a file" if is_given else "is gone"
        return Risk.caution(f"what the model learnt of {format_quoted(self.tokens)} {end}")

    def token_changes(self) -> TokenChanges:
        return TokenChanges(reinitialised=self.tokens)

    def footprint(self) -> Footprint:
        return Footprint.of(Footprint.name_tokens(self.tokens), Footprint.name_init(self.init))


def with_reinitialised_rows(
    state: ModelState, context: Context, labels: Mapping[int, str], init: InitSpec | None
) -> ModelState:
    """Return the state in which the rows of `labels`, each with its token's text, are initialised again."""
    spec = choose_init(state, context, init)
    population = runs(row for row in expand(state.population) if row not in labels)
    recipes = {row: init_recipe(state, context, label, spec, population) for row, label in labels.items()}
    return with_new_rows(state, context, recipes)


class SetInit(Operation):
    """Set how later migrations initialise rows where they do not say it themselves.

    Takes a strategy with its options, or `input:` and `output:` with one each.
    """

    name: ClassVar[str] = "set_init"
    shorthand: ClassVar[str | None] = "init"

    init: InitSpec = Field(description="The strategy.")

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return value if isinstance(value, dict) and "init" in value else {"init": value}

    def apply(self, state: ModelState, context: Context) -> ModelState:  # noqa: ARG002
        if self.init.references():
            raise OperationError(
                "set_init cannot take its rows from a file, since later migrations do not have it",
                hint="give `init: {strategy: file, …}` where the tokens are added",
            )
        return replace(state, init=self.init.model_dump(mode="json", exclude_defaults=True))

    def risk(self, before: ModelState, after: ModelState) -> Risk:  # noqa: ARG002
        return Risk.safe("no row changes; later migrations initialise their rows like this")

    def token_changes(self) -> TokenChanges:
        return TokenChanges()

    def footprint(self) -> Footprint:
        return Footprint.of([DEFAULT_INIT], Footprint.name_init(self.init))
