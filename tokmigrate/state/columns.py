"""Column types that give back exactly what was stored, on every database."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator

# A token may hold NUL (PostgreSQL refuses it), a path half a surrogate pair (UTF-8 has none).
_UNSTORABLE = re.compile(r"[\\\x00\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")


class ExactText(TypeDecorator[str]):
    r"""Any Python string; a backslash, NUL and a lone surrogate are stored as `\uXXXX`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return what is stored for `value`."""
        if value is None:
            return None
        return _UNSTORABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return the string that `value` stands for."""
        if value is None:
            return None
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)


class CanonicalJson(TypeDecorator[Any]):
    """A JSON value as text: sorted keys, no spaces, ASCII only; None is NULL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return what is stored for `value`."""
        return None if value is None else canonical_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """Return the JSON value that `value` stands for."""
        return None if value is None else json.loads(value)


class Instant(TypeDecorator[datetime]):
    """A moment in UTC as ISO 8601 text with microseconds, which sorts by time."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return what is stored for `value`, which must know its time zone."""
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the moment that `value` stands for."""
        return None if value is None else datetime.fromisoformat(value)


def canonical_json(value: Any) -> str:
    """Return `value` as the one JSON text that equal values share."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
