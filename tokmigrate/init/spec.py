"""What stands under `init:` in a migration file."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from tokmigrate.init.file_strategy import File
from tokmigrate.init.row_strategy import Lookup, RowStrategy
from tokmigrate.init.rows import SideInit
from tokmigrate.init.strategies import (
    Average,
    Copy,
    Description,
    Interpolate,
    Mean,
    MeanCov,
    Normal,
    Subtokens,
    Weighted,
    Zeros,
)
from tokmigrate.plugins import STRATEGIES, load_plugins
from tokmigrate.strict_yaml.tree import is_null
from tokmigrate.strict_yaml.validation import Closed, FieldError, describe_value
from tokmigrate.vocabulary.row_edit import SIDES, Side

BuiltIn = Mean | MeanCov | Zeros | Normal | Copy | Average | Weighted | Subtokens | Interpolate | Description | File


def strategy_types() -> Mapping[str, type[RowStrategy]]:
    """Return every strategy by the name that migrations use; raises PluginError for a plug-in that cannot be used."""
    return _types(tuple(sys.path))


def strategy_adapter() -> TypeAdapter[RowStrategy]:
    """Return what validates a mapping with a `strategy` as that strategy; raises as `strategy_types` does."""
    return _adapter(tuple(sys.path))


# Plug-ins are found on `sys.path`, so the result holds as long as that does.
@cache
def _types(_path: tuple[str, ...]) -> Mapping[str, type[RowStrategy]]:
    built_in: dict[str, type[RowStrategy]] = {str(_name(kind)): kind for kind in get_args(BuiltIn)}
    return load_plugins(STRATEGIES, RowStrategy, built_in, _name)


@cache
def _adapter(path: tuple[str, ...]) -> TypeAdapter[RowStrategy]:
    union: Any = reduce(or_, _types(path).values())
    return TypeAdapter(Annotated[union, Discriminator("strategy")])


def _name(kind: type[RowStrategy]) -> str | None:
    field = kind.model_fields.get("strategy")
    names = get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
    return names[0] if len(names) == 1 else None


class _Registered:
    """Marks a field that any registered strategy fills, plug-ins too, which are looked up when it is read."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(lambda value: strategy_adapter().validate_python(value))

    @staticmethod
    def __get_pydantic_json_schema__(schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(strategy_adapter().core_schema)


# The annotation names the package's own, so that hints know their fields; the marker admits all.
AnyStrategy = Annotated[BuiltIn, _Registered]


def _name_alone(text: str) -> FieldError:
    """Return the error for a text where a mapping has to stand."""
    near = next(iter(difflib.get_close_matches(text, list(strategy_types()), n=1)), None)
    hint = "for example {strategy: mean}"
    if near:
        hint = f"write {{strategy: {near}}}" if near == text else f"did you mean {{strategy: {near}}}?"
    return FieldError(f"expected a mapping, found {describe_value(text)}", hint)


class InitSpec(Closed):
    """How new rows are initialised: one strategy, or one for the input and one for the output embeddings.

    `{strategy: mean}` is for both sides, `{input: {strategy: …}, output: {strategy: …}}` for each; a missing
    side is started like the other one. Tied embeddings are started like input embeddings, biases like the
    output embeddings that they belong to. `table: {strategy: copy, token: …}` beside them is for models that look
    tokens up in a table of integers, such as DeepSeek-V4's of experts; without it the input side must be a copy.
    """

    input: AnyStrategy | None = Field(default=None, description="For input embeddings, and for tied ones.")
    output: AnyStrategy | None = Field(default=None, description="For output embeddings and their biases.")
    table: Copy | None = Field(default=None, description="For tables of integers, whose rows can only be copied.")

    @model_validator(mode="before")
    @classmethod
    def _one_for_both(cls, value: Any) -> Any:
        if isinstance(value, str) and value and not is_null(value):
            raise _name_alone(value)
        direct = isinstance(value, Mapping) and ("strategy" in value or not any(side in value for side in SIDES))
        # `output` may also be a strategy's own option; that is a text.
        if direct and any(isinstance(value.get(side), Mapping) for side in SIDES):
            raise ValueError("give either one `strategy` or `input` and `output`, not both")
        return {"input": value} if direct or isinstance(value, RowStrategy) else value

    @model_validator(mode="after")
    def _some_side(self) -> Self:
        if self.input is None and self.output is None:
            raise ValueError("give a strategy for `input`, for `output`, or for both")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:  # noqa: ARG002
        sides = {side: dumped for side, dumped in handler(self).items() if dumped is not None}
        if self.side("input") == self.side("output") and self.table is None:
            only: dict[str, Any] = next(iter(sides.values()))
            return only
        return sides

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the schema of both ways to write it."""
        reference = handler(schema)
        sides = handler.resolve_ref_schema(reference)
        strategies = handler(strategy_adapter().core_schema)
        described: dict[str, Any] = {name: sides.pop(name) for name in list(sides) if name in {"title", "description"}}
        for name, side in sides["properties"].items():
            # None is what a missing side means; a file leaves it out.
            side.pop("default", None)
            either = side.pop("anyOf", None)
            side.update(either[0] if name == "table" else strategies)
        written = {**sides, "minProperties": 1}
        sides.clear()
        sides.update({**described, "anyOf": [strategies, written]})
        return reference

    def side(self, side: Side) -> RowStrategy:
        own, other = (self.input, self.output) if side == "input" else (self.output, self.input)
        strategy = own or other
        if strategy is None:
            raise ValueError("an init without a strategy")
        return strategy

    def references(self) -> tuple[str, ...]:
        """Return the files that the strategies refer to, relative to the migration file, each once."""
        return tuple(dict.fromkeys(path for side in (self.input, self.output) if side for path in side.references()))

    def start(self, side: Side, lookup: Lookup, token: str, attachments: Mapping[str, bytes]) -> SideInit:
        """Return how the row of `token` is initialised on `side`; `attachments` are the files of the migration by name.

        Raises:
            OperationError: A token is not there, a text gives no pieces, or a file holds no such row.
        """
        strategy = self.side(side)
        return SideInit(strategy.resolve(attachments, token), strategy.sources(side, lookup, token))
