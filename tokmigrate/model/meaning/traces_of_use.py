"""What using a tokenizer leaves in its file, which is no change of it."""

from __future__ import annotations

from collections.abc import Sequence

from tokmigrate.model.meaning.difference import Difference


def without_use(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """Return the differences that are more than traces of use: transformers saves the padding of its last call.

    Args:
        found: Differences between a tokenizer and the same one later.
    """
    return tuple(each for each in found if not _is_of_use(each))


def _is_of_use(found: Difference) -> bool:
    if found.aspect != "part" or found.subject not in ("padding", "truncation") or found.after is None:
        return found.aspect == "part" and found.subject in ("padding", "truncation")
    if found.subject != "padding" or found.before is None:
        return False
    return all(found.before.get(key) == found.after.get(key) for key in ("pad_id", "pad_token", "direction"))
