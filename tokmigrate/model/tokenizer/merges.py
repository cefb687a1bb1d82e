"""The merges of a BPE tokenizer, and those that go with a removed token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tokmigrate.model.formats.json_text import Json

Merge = tuple[str, str]


def merges_of(model: Mapping[str, Json]) -> list[Merge]:
    """Return the merges of the `model` of tokenizer.json, in either notation."""
    return [split(merge) for merge in model.get("merges") or []]


def split(merge: Json) -> Merge:
    """Return the two parts of a merge as a file writes it."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def product(merge: Merge, prefix: str) -> str:
    """Return what a merge makes; the prefix of a continuing piece goes."""
    return merge[0] + merge[1].removeprefix(prefix)


def without(merges: Iterable[Json], gone: frozenset[str], prefix: str) -> list[Json]:
    """Return the merges, as the file writes them, that neither make nor use a token of `gone`."""
    return [
        merge for merge in merges if not gone.intersection(split(merge)) and product(split(merge), prefix) not in gone
    ]
