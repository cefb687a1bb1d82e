"""What the files beside tokenizer.json say about a tokenizer, whichever of them says it and in whichever spelling."""

from __future__ import annotations

from collections.abc import Mapping

from tokmigrate.model.documents.architecture_quirks import fixed_size
from tokmigrate.model.documents.config_fields import NO_LIMIT, config_parts, format_place, read_declared_sizes, shape_of
from tokmigrate.model.documents.pipeline_overrides import default_ids, default_roles
from tokmigrate.model.documents.roles import text_of
from tokmigrate.model.documents.state import (
    CONFIG,
    GENERATION,
    SPECIAL_TOKENS_MAP,
    TOKENIZER_CONFIG,
    ModelState,
    Traits,
)
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.tokenizer_json import FILE, view
from tokmigrate.vocabulary.ids import runs
from tokmigrate.vocabulary.row_edit import RowEdit

Documents = Mapping[str, Json]
"""Parsed files by name."""


def read_declared_roles(documents: Documents) -> dict[str, str]:
    """Return the text of each special token that has a role, standard or of the model's own, by the role's name.

    What transformers takes where no file says it counts as said: the token that tokenizer.json pads with, and the
    defaults of the tokenizer's class, as far as these are tokens.
    """
    tokenizer = view(documents[FILE])
    found: dict[str, str | None] = {}
    for name in (SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG):
        held = documents.get(name) or {}
        extra = held.get("extra_special_tokens")
        for fields in (held.get("model_specific_special_tokens"), extra if isinstance(extra, dict) else None, held):
            # None says that no token has the role.
            found |= {
                field.removesuffix("_token"): text_of(entry)
                for field, entry in (fields or {}).items()
                if field.endswith("_token") and (entry is None or text_of(entry) is not None)
            }
    padding = (documents[FILE].get("padding") or {}).get("pad_token")
    if padding is not None:
        found.setdefault("pad", padding)
    for role, text in default_roles(documents).items():
        if text in tokenizer.ids:
            found.setdefault(role, text)
    return {role: text for role, text in found.items() if text is not None}


def read_declared_settings(documents: Documents) -> dict[str, Json]:
    """Return what tokenizer_config.json sets beside tokens, with transformers' defaults."""
    config = documents.get(TOKENIZER_CONFIG) or {}
    document = documents[FILE]
    length = config.get("model_max_length")
    sides = {
        f"{part}_side": config.get(f"{part}_side") or str((document.get(part) or {}).get("direction", "Right")).lower()
        for part in ("padding", "truncation")
    }
    return {
        **sides,
        "model_max_length": length if isinstance(length, int) and length < NO_LIMIT else None,
        "clean_up_tokenization_spaces": bool(config.get("clean_up_tokenization_spaces")),
    }


def read_declared_ids(documents: Documents, name: str) -> dict[str, Json]:
    """Return the ids of tokens in config.json or generation_config.json by their dotted places.

    An id that transformers takes by default counts as written; a list of one is that one.
    """
    held = documents.get(name) or {}
    parts = config_parts(held) if name == CONFIG else [((), held)]
    found: dict[str, Json] = {}
    for path, part in parts:
        defaults = default_ids(str(part.get("model_type", ""))) if name == CONFIG else {}
        for field, value in {**defaults, **part}.items():
            if shape_of(field) is not None and value is not None:
                found[format_place((*path, field))] = value[0] if isinstance(value, list) and len(value) == 1 else value
    return found


ID_FILES = (CONFIG, GENERATION)
"""The files whose ids are compared where both sides have them."""


def state_without_weights(documents: Documents, room: int) -> ModelState:
    """Return the state of a model of which only the documents are known, tokenizer.json among them.

    It has `room` rows where config.json does not say how many. Raises OutOfStepError as `Tokenizer.check` does.
    """
    config = documents.get(CONFIG) or {}
    ids = view(documents[FILE]).check().texts
    declared = next((size for _, size in read_declared_sizes(config)), room)
    rows = max(declared, max(ids, default=-1) + 1)
    return ModelState(
        documents={CONFIG: {}, **documents},
        touched=frozenset(),
        edit=RowEdit.identity(rows),
        lineage=RowEdit.identity(rows),
        baseline_tokens=runs(sorted(ids)),
        reshaped=False,
        init=None,
        traits=Traits(str(config.get("model_type", "")), tied=True, fixed_size=fixed_size(config)),
    )
