"""The merges of a BPE tokenizer: which tokens can be reached, and what goes with a removed token."""

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


def orphans(merges: list[Merge], gone: frozenset[str], prefix: str) -> list[str]:
    """Return the tokens that no merge reaches any more once those of `gone` are not there.

    Args:
        merges: All merges.
        gone: The tokens that go.
        prefix: What a continuing piece begins with.
    """
    before, after = _made(merges, frozenset(), prefix), _made(merges, gone, prefix)
    return [token for token in before if token not in after and token not in gone]


def _made(merges: list[Merge], gone: frozenset[str], prefix: str) -> dict[str, None]:
    """Return the tokens that merges make out of those that none makes."""
    products = {product(merge, prefix) for merge in merges}
    made: dict[str, None] = {}
    waiting = merges
    while True:
        left: list[Merge] = []
        for merge in waiting:
            result = product(merge, prefix)
            if all(part not in gone and (part in made or part not in products) for part in merge):
                if result not in gone:
                    made[result] = None
            else:
                left.append(merge)
        if len(left) == len(waiting):
            return made
        waiting = left
