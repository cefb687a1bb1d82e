"""Ids in tokenizer.json beside its vocabulary: what the post-processor adds, what pads, what is unknown."""

from __future__ import annotations

from tokmigrate.errors import OperationError
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.vocabulary.renumbering import Renumbering


def with_ids_of_tokenizer(document: Json, renumbering: Renumbering) -> Json:
    """Return tokenizer.json with the ids beside its vocabulary; raises OperationError where one goes that is used.

    Args:
        document: The parsed file.
        renumbering: What becomes of ids.
    """
    changed = dict(document)
    if document.get("post_processor"):
        changed["post_processor"] = _processor(document["post_processor"], renumbering)
    if document.get("padding"):
        pad = _needed(document["padding"].get("pad_id", 0), renumbering, "padding")
        changed["padding"] = {**document["padding"], "pad_id": pad}
    model = document["model"]
    if model.get("unk_id") is not None:
        changed["model"] = {**model, "unk_id": _needed(model["unk_id"], renumbering, "model.unk_id")}
    return document if changed == document else changed


def _processor(part: Json, renumbering: Renumbering) -> Json:
    """Return a post-processor, or a sequence of them; the library emits their ids unchecked."""
    changed = dict(part)
    if part.get("processors"):
        changed["processors"] = [_processor(inner, renumbering) for inner in part["processors"]]
    for name in ("sep", "cls"):
        if isinstance(part.get(name), list):
            token, number = part[name]
            changed[name] = [token, _needed(number, renumbering, f"post_processor.{name}")]
    if isinstance(part.get("special_tokens"), dict):
        changed["special_tokens"] = {
            name: {**special, "ids": [_needed(number, renumbering, "post_processor") for number in special["ids"]]}
            for name, special in part["special_tokens"].items()
        }
    return changed


def _needed(number: int, renumbering: Renumbering, place: str) -> int:
    new = renumbering.new(number)
    if new is None:
        raise OperationError(
            f"'{place}' uses the token with id {number}, which is to go",
            where=FILE,
            hint="let it use another token first",
        )
    return new
