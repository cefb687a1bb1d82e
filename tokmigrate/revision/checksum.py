"""The checksum of a migration: what it does, whatever its comments, quotes, line ends and key order."""

from __future__ import annotations

import json
from collections.abc import Mapping

from blake3 import blake3

from tokmigrate.operations.registry import operation_types
from tokmigrate.strict_yaml import Value

VERSION = "1"

_WITHOUT_EFFECT = ("message", "author")

_CONSENT = "acknowledge"


def yaml_checksum(content: Mapping[str, Value], attachments: Mapping[str, bytes]) -> str:
    """Return `1:` and the BLAKE3 digest of a YAML migration, as hex.

    It is taken over the texts of the file, not over typed fields, so that a field which a later version of
    tokmigrate adds, or whose default changes, leaves the checksums of old files as they are.

    Args:
        content: The file as dict, list and str; `message`, `author` and `acknowledge` of operations do not count.
        attachments: The files that it refers to, by the names used there.
    """
    effective = {key: value for key, value in content.items() if key not in _WITHOUT_EFFECT}
    if isinstance(effective.get("operations"), list):
        effective["operations"] = [_without_consent(item) for item in effective["operations"]]
    return _digest({"yaml": effective}, attachments)


def _without_consent(item: Value) -> Value:
    """Return an operation without `acknowledge`, which may be added to a migration that models have already."""
    if not isinstance(item, Mapping):
        return item
    return {
        name: {key: value for key, value in fields.items() if key != _CONSENT}
        if isinstance(fields, Mapping) and not _needs_consent(name)
        else fields
        for name, fields in item.items()
    }


def _needs_consent(name: str) -> bool:
    """Return whether an operation cannot be written without `acknowledge`, so that all its checksums cover it."""
    kind = operation_types().get(name)
    return kind is not None and kind.model_fields[_CONSENT].is_required()


def python_checksum(source: str, attachments: Mapping[str, bytes]) -> str:
    """Return `1:` and the BLAKE3 digest of a Python migration, as hex.

    Args:
        source: Its text; line ends and white space at the ends of lines and of the file do not count.
        attachments: The files that it declares, by the names used there.
    """
    lines = [line.rstrip() for line in source.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return _digest({"python": "\n".join(lines).rstrip()}, attachments)


def _digest(content: Mapping[str, Value], attachments: Mapping[str, bytes]) -> str:
    files = {name: blake3(data).hexdigest() for name, data in attachments.items()}
    text = json.dumps({**content, "files": files}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return f"{VERSION}:{blake3(text.encode('utf-8')).hexdigest()}"
