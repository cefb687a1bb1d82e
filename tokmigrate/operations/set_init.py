"""The operation `set_init`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field, model_validator

from tokmigrate.errors import OperationError
from tokmigrate.init import InitSpec
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.operation import DEFAULT_INIT, Context, Footprint, Operation, Risk, TokenChanges, init_reads


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
        return Footprint.of([DEFAULT_INIT], init_reads(self.init))
