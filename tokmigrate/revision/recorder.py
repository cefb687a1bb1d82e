"""Runs the `upgrade(op)` of a Python migration, which records operations and changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from traceback import walk_tb
from types import FrameType, ModuleType
from typing import Any

from pydantic import ValidationError

from tokmigrate.errors import OperationError, TokmigrateError, suggest
from tokmigrate.operations.base import Operation
from tokmigrate.operations.registry import operation_types
from tokmigrate.revision.planned_operation import PlannedOperation
from tokmigrate.strict_yaml import messages


class Recorder:
    """The `op` of `def upgrade(op)`: each method is an operation, its arguments are the fields.

    Args:
        tokenizer: What `op.tokenizer` gives.
        code: The file name of the migration's code.
        shown: The name that places give the file.
    """

    def __init__(self, tokenizer: object, code: str, shown: str) -> None:
        self.tokenizer = tokenizer
        self._code = code
        self._shown = shown
        self._recorded: list[PlannedOperation] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        kind = operation_types().get(name)
        if kind is None:
            raise OperationError(
                f"there is no operation '{name}'",
                hint=suggest(name, operation_types()) or "known are " + ", ".join(operation_types()),
            )

        def record(*values: object, **fields: object) -> None:
            operation = _operation(kind, values, fields)
            self._recorded.append(PlannedOperation(operation, self._place(sys._getframe(1))))

        return record

    def _place(self, frame: FrameType | None) -> str:
        while frame is not None and frame.f_code.co_filename != self._code:
            frame = frame.f_back
        if frame is None:
            return self._shown
        positions = list(frame.f_code.co_positions())
        line, _, column, _ = positions[frame.f_lasti // 2]
        return f"{self._shown}:{line or frame.f_lineno}:{(column or 0) + 1}"


def record(source: str, path: Path, shown: str, tokenizer: object) -> tuple[PlannedOperation, ...]:
    """Return the operations that the `upgrade(op)` of a Python migration records.

    Args:
        source: The text of the migration.
        path: Its file.
        shown: The name that places give the file.
        tokenizer: What `op.tokenizer` gives to it: the tokenizer as it is before the migration.

    Raises:
        OperationError: The code raises anything, or asks for an operation that cannot be.
    """
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    recorder = Recorder(tokenizer, str(path), shown)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - it is the user's own code
        module.__dict__["upgrade"](recorder)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the tokenizers library panics with a BaseException
        raise _explain(error, path, shown) from error
    return tuple(recorder._recorded)


def _operation(kind: type[Operation], values: tuple[object, ...], fields: dict[str, Any]) -> Operation:
    if values:
        if kind.shorthand is None or len(values) > 1 or kind.shorthand in fields:
            raise OperationError(f"{kind.name} takes its fields by name", hint=f"op.{kind.name}(field=…)")
        fields = {kind.shorthand: values[0], **fields}
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise OperationError(f"{kind.name}: " + "; ".join(messages(error))) from error


def _explain(error: BaseException, path: Path, shown: str) -> OperationError:
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)]
    where = f"{shown}:{lines[-1]}" if lines else shown
    if isinstance(error, TokmigrateError):
        return OperationError(error.message, where=where, hint=error.hint)
    return OperationError(f"upgrade(op) failed with {type(error).__name__}: {error}", where=where)
