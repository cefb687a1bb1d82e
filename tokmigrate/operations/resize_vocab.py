"""The operation `resize_vocab`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.init import InitSpec
from tokmigrate.init.strategies import File, Subtokens
from tokmigrate.model.documents.architecture_quirks import ordered_tail
from tokmigrate.model.documents.config_fields import with_sizes
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.operation import Context, Footprint, Operation, Risk, TokenChanges, init_reads
from tokmigrate.operations.row_changes import MEAN, check_size_may_change, choose_init, with_new_rows
from tokmigrate.vocabulary.row_edit import CopiedRows, RowEdit

OF_A_TOKEN = (Subtokens, File)
"""The strategies that read the text of the row's token."""


class ResizeVocab(Operation):
    """Set the number of rows, for kernels that like a multiple or for tokens to come.

    `multiple_of` only ever grows the matrices. `rows` may also drop spare rows, never a token's. A spare row
    has no text: where the default strategy reads the token's (`subtokens`, `file`), it is initialised with the mean.
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
        needed = max(state.tokenizer.texts) + 1
        if target < needed:
            raise OperationError(f"{target} rows are too few: the ids go up to {needed - 1}", hint=f"rows: {needed}")
        if target >= state.vocab_size:
            return with_new_rows(state, context, {}, target, self._spare_init(state, context))
        check_size_may_change(state)
        rows = target + state.traits.short
        return with_sizes(state.with_rows(RowEdit(state.rows, (CopiedRows(0, rows),))), state)

    def _spare_init(self, state: ModelState, context: Context) -> InitSpec:
        spec = choose_init(state, context, self.init)
        if isinstance(spec.side("input"), OF_A_TOKEN) or isinstance(spec.side("output"), OF_A_TOKEN):
            if self.init is not None:
                raise OperationError("a spare row has no token whose text could initialise it", hint="use mean")
            return MEAN
        return spec

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        if after.rows < before.rows:
            return Risk.caution(f"{before.rows - after.rows} spare rows are dropped")
        if after.rows > before.rows and ordered_tail(before) is not None:
            reason = f"a {before.traits.model_type} model takes rows after its last token for further timestamps"
            return Risk.caution(reason)
        return Risk.safe("no token changes; spare rows can win no more than their share")

    def token_changes(self) -> TokenChanges:
        return TokenChanges()

    def footprint(self) -> Footprint:
        return Footprint.of(["the number of rows"], init_reads(self.init))
