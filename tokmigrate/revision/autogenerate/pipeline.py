"""Operations for the pipeline, padding and truncation."""

from __future__ import annotations

from typing import Any

from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.semantics.declared import Documents, read_declared_settings
from tokmigrate.model.semantics.semantic_diff import canonical_part
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.operations.pipeline import SetDecoder, SetNormalizer, SetPostProcessor, SetPreTokenizer
from tokmigrate.operations.set_padding import SetPadding
from tokmigrate.operations.set_truncation import SetTruncation
from tokmigrate.revision.autogenerate.builder import Way


def set_parts(way: Way) -> None:
    """Normalizer, pre-tokenizer, decoder and post-processor."""
    old, new = way.state.documents[FILE], way.documents[FILE]
    if canonical_part(old.get("normalizer")) != canonical_part(new.get("normalizer")):
        way.go(SetNormalizer(normalizer=new.get("normalizer")))
    if canonical_part(old.get("pre_tokenizer")) != canonical_part(new.get("pre_tokenizer")):
        way.go(SetPreTokenizer(pre_tokenizer=new.get("pre_tokenizer")))
    if canonical_part(old.get("decoder")) != canonical_part(new.get("decoder")):
        way.go(SetDecoder(decoder=new.get("decoder")))
    wanted = _with_ids(new.get("post_processor"), way.state.tokenizer.ids)
    if canonical_part(old.get("post_processor")) != canonical_part(wanted):
        way.take(SetPostProcessor(post_processor=wanted))


def _with_ids(part: Json, ids: dict[str, int]) -> Json:
    """Return a post-processor with the ids that its tokens have now; the right ones come with their moves."""
    if not isinstance(part, dict):
        return part
    changed = dict(part)
    if part.get("processors"):
        changed["processors"] = [_with_ids(inner, ids) for inner in part["processors"]]
    for name in ("sep", "cls"):
        if isinstance(part.get(name), list):
            changed[name] = [part[name][0], ids.get(part[name][0], part[name][1])]
    specials: dict[str, Json] = {}
    for name, held in (part.get("special_tokens") or {}).items():
        numbers = [ids.get(token, number) for token, number in zip(held["tokens"], held["ids"], strict=True)]
        specials[name] = {**held, "ids": numbers}
    if specials:
        changed["special_tokens"] = specials
    return changed


def set_padding(way: Way) -> None:
    """How texts are filled up to one length."""
    old, new = (section(documents, "padding") for documents in (way.state.documents, way.documents))
    sides = [read_declared_settings(documents)["padding_side"] for documents in (way.state.documents, way.documents)]
    fields: dict[str, Any] = {}
    if new.get("pad_token") != old.get("pad_token") and new.get("pad_token") in way.state.tokenizer.ids:
        fields["token"] = new["pad_token"]
    if sides[0] != sides[1] or (new and new["direction"] != old.get("direction", "Right")):
        fields["side"] = sides[1]
    if new.get("pad_to_multiple_of") not in (None, old.get("pad_to_multiple_of")):
        fields["pad_to_multiple_of"] = new["pad_to_multiple_of"]
    if new and new["strategy"] != old.get("strategy", "BatchLongest"):
        fixed = new["strategy"]
        fields["max_length"] = fixed["Fixed"] if isinstance(fixed, dict) else "longest"
    if not new and (old or fields):
        fields["max_length"] = "off"
    if fields:
        way.go(SetPadding(**fields))


def set_truncation(way: Way) -> None:
    """Set the length limit of a text, and the side of truncation."""
    old, new = (section(documents, "truncation") for documents in (way.state.documents, way.documents))
    settings = [read_declared_settings(documents) for documents in (way.state.documents, way.documents)]
    lengths = [each["model_max_length"] for each in settings]
    fields: dict[str, Any] = {}
    if old and not new:
        fields["max_length"] = "off"
    elif new != old:
        fields["max_length"] = new["max_length"]
        if new["strategy"] != old.get("strategy", "LongestFirst"):
            fields["strategy"] = _SHORTENED[new["strategy"]]
        if new["stride"] != old.get("stride", 0):
            fields["stride"] = new["stride"]
    if new and settings[0]["truncation_side"] != settings[1]["truncation_side"]:
        fields["direction"] = settings[1]["truncation_side"]
    follows = new["max_length"] if new and "max_length" in fields else lengths[0]
    if lengths[1] != follows:
        fields["model_max_length"] = "keep" if lengths[1] == lengths[0] else lengths[1] or "none"
    if fields:
        way.go(SetTruncation(**fields))


_SHORTENED = {"LongestFirst": "longest_first", "OnlyFirst": "only_first", "OnlySecond": "only_second"}


def section(documents: Documents, name: str) -> dict[str, Any]:
    """Return a part of tokenizer.json in its plain spelling, empty where it is not there."""
    return canonical_part(documents[FILE].get(name)) or {}
