"""A JSON document without what migrations did to it, key by key, where the file was rewritten since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokmigrate.errors import DriftError
from tokmigrate.model.formats.json_text import Json

_MISSING: Any = object()


def reverted(now: Json, before: Json, after: Json, place: str) -> Json:
    """Return `now` with each key that a migration changed as it was before; all else stays as it is now.

    A key that was left out when the file was rewritten comes back only where it holds a single value: parts that are
    kept elsewhere since must not stand in two places.

    Args:
        now: The document as it is.
        before: As it was before the migration.
        after: As the migration left it.
        place: Where it stands, for errors.

    Raises:
        DriftError: What the migration changed was changed again.
    """
    if now == after:
        return before
    if before in (after, now):
        return now
    if isinstance(now, dict) and isinstance(after, dict):
        return _object(now, before if isinstance(before, dict) else {}, after, place)
    if isinstance(now, list) and isinstance(before, list) and isinstance(after, list):
        return _list(now, before, after, place)
    raise DriftError(
        f"it was changed since it was migrated, from {_shown(after)} to {_shown(now)}, and going back would lose that",
        where=place,
        hint="set it back, or make the change a migration of its own on the state before",
    )


def tokenizer_by_key(document: Mapping[str, Json]) -> dict[str, Json]:
    """Return a tokenizer.json in which added tokens stand under their texts, and merges are pairs."""
    model = dict(document["model"])
    if model.get("merges"):
        model["merges"] = [merge.split(" ") if isinstance(merge, str) else list(merge) for merge in model["merges"]]
    added = {entry["content"]: entry for entry in document.get("added_tokens") or []}
    return {**document, "model": model, "added_tokens": added}


def tokenizer_document(keyed: Mapping[str, Json]) -> dict[str, Json]:
    """Return the tokenizer.json that `tokenizer_by_key` made a tree of."""
    return {**keyed, "added_tokens": sorted(keyed["added_tokens"].values(), key=lambda entry: int(entry["id"]))}


def _object(now: Mapping[str, Json], before: Mapping[str, Json], after: Mapping[str, Json], place: str) -> Json:
    found: dict[str, Json] = {}
    for key, value in now.items():
        was, became = before.get(key, _MISSING), after.get(key, _MISSING)
        if became is _MISSING:
            found[key] = value
        elif was is not _MISSING:
            found[key] = reverted(value, was, became, f"{place}: {key}")
        elif value is not None and value != became and not isinstance(value, dict | list):
            # The migration brought the key, and somebody else its value.
            reverted(value, None, became, f"{place}: {key}")
    for key, was in before.items():
        if key not in now and (key not in after or (was != after[key] and not isinstance(was, dict | list))):
            found[key] = was
    return found


def _list(now: list[Json], before: list[Json], after: list[Json], place: str) -> Json:
    if not all(isinstance(item, str | int) for item in (*now, *before, *after)):
        raise DriftError(
            "the list was changed since it was migrated, and going back would lose that",
            where=place,
            hint="set it back, or make the change a migration of its own on the state before",
        )
    kept = [item for item in now if item in before or item not in after]
    return kept + [item for item in before if item not in after and item not in kept]


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
