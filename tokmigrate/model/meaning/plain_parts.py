"""The parts of a tokenizer.json in one spelling each, so that two can be compared by meaning.

The spellings that mean the same were read off what tokenizers 0.23 writes for what it read.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.merges import Merge, merges_of
from tokmigrate.model.tokenizer.tokenizer_json import SECTIONS, model_kind

PARTS = (*SECTIONS, "truncation", "padding")
"""The parts of tokenizer.json beside its model and its added tokens."""

_INSIDE = ("normalizers", "pretokenizers", "processors", "decoders")

_DEFAULTS: Mapping[str, Mapping[str, Json]] = MappingProxyType(
    {
        "BertNormalizer": {"strip_accents": None},
        "ByteLevel": {"use_regex": True},
        "Digits": {"individual_digits": False},
        "FixedLength": {"length": 5},
        "Metaspace": {"prepend_scheme": "always", "split": True},
        "Punctuation": {"behavior": "Isolated"},
        "Split": {"invert": False},
        "BPE": {
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
        },
        "Unigram": {"unk_id": None, "byte_fallback": False},
    }
)
"""What the library takes for a field that is not written."""

_ALONE = [{"Sequence": {"id": "A", "type_id": 0}}]
_BOTH = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]


def plain_part(part: Json) -> Json:
    """Return a part of tokenizer.json with its defaults written, its old spellings replaced and no needless nesting.

    Args:
        part: The part, None for none.

    Returns:
        The part; None where it does nothing.
    """
    if not isinstance(part, dict):
        return part
    held = next((name for name in _INSIDE if isinstance(part.get(name), list)), None)
    if held is not None:
        inner = [each for each in map(plain_part, part[held]) if each is not None]
        flat = [each for one in inner for each in one.get(held, [one])]
        return {**part, held: flat} if len(flat) > 1 else (flat[0] if flat else None)
    part = {**_DEFAULTS.get(str(part.get("type")), {}), **part}
    if part.get("type") == "Metaspace":
        part.pop("str_rep", None)
        # Only a scheme that says the same may stand beside it.
        part.pop("add_prefix_space", None)
    if part.get("type") == "TemplateProcessing":
        return _plain_template(part)
    if "strategy" in part:
        part = {"direction": "Right", **part}
    return part


def _plain_template(part: Mapping[str, Any]) -> Json:
    pieces = [piece for side in ("single", "pair") for piece in part.get(side) or []]
    used = {piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece}
    if not used and part.get("single") == _ALONE and part.get("pair") == _BOTH:
        # What the library does without a post-processor.
        return None
    specials = part.get("special_tokens") or {}
    return {**part, "special_tokens": {name: held for name, held in specials.items() if name in used}}


def plain_model(document: Json) -> dict[str, Json]:
    """Return the settings of a tokenizer's model, without its vocabulary and merges."""
    model = document["model"]
    kind = model_kind(document)
    settings = {name: held for name, held in model.items() if name not in ("type", "vocab", "merges")}
    settings = {"type": kind, **_DEFAULTS.get(kind, {}), **settings}
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        # An empty one changes nothing; WordPiece has one always.
        if kind == "BPE" and not settings[name]:
            settings[name] = None
    return settings


def plain_merges(document: Json) -> list[Merge]:
    """Return the merges of a tokenizer's model as pairs, in their order; none where it has no merges."""
    return merges_of(document["model"])
