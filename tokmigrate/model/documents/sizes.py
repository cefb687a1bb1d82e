"""Sizes that documents declare: of the vocabulary, and of the longest text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokmigrate.model.documents.architecture_quirks import is_static
from tokmigrate.model.documents.config_fields import Path, config_parts, parts_of
from tokmigrate.model.documents.state import CONFIG, TOKENIZER_CONFIG, ModelState

SIZES = ("vocab_size", "decoder_vocab_size", "src_vocab_size", "tgt_vocab_size", "vocab_size_per_layer_input")
"""The fields that give the size of the vocabulary, or of a table beside it, where they give the same number."""
REPEATED = ("depth_decoder_config",)
"""The parts that repeat the size, and whose ids are other things: Moshi's counts codes of audio."""
UNPADDED = "unpadded_vocab_size"
"""The field that gives the number of rows that are not padding: logits after it are cut off."""


def with_sizes(state: ModelState, before: ModelState) -> ModelState:
    """Return the state in which config.json gives the rows that there are now.

    Args:
        state: The state with its rows and tokens.
        before: The state whose size config.json gives so far.
    """
    old, new = before.vocab_size, state.vocab_size
    parts = list(parts_of(state.documents[CONFIG], old))
    if new != old:
        config = state.documents[CONFIG]
        repeating = [((name,), part) for name in REPEATED if isinstance(part := config.get(name), Mapping)]
        holders = [(path, field) for path, part in (*parts, *repeating) for field in SIZES if part.get(field) == old]
        # Where no file states the size, transformers' default held so far; the language model inside gets it.
        for path, field in holders or ([] if is_static(config) else [(_innermost(state), "vocab_size")]):
            state = state.with_value(CONFIG, (*path, field), new)
    for path, part in parts:
        held = part.get(UNPADDED)
        if isinstance(held, int):
            state = state.with_value(CONFIG, (*path, UNPADDED), min(max(held, max(state.tokenizer.texts) + 1), new))
    return state


def _innermost(state: ModelState) -> Path:
    path: Path = ()
    for inner, _ in config_parts(state.documents[CONFIG]):
        if len(inner) == len(path) + 1 and inner[: len(path)] == path:
            path = inner
    return path


NO_LIMIT = 10**9
"""transformers writes a huge `model_max_length` where there is none."""

_LENGTH = "model_max_length"
_POSITIONS = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True)
class Limit:
    """The most tokens that a text may have, special ones included.

    Args:
        tokens: How many.
        source: The field that says so.
    """

    tokens: int
    source: str


def limit_of(state: ModelState) -> Limit | None:
    """Return the limit that a model states for its texts, None where it states none.

    It is `model_max_length` of tokenizer_config.json, which transformers cuts at; where that is missing or stands for
    no limit, the positions that config.json gives the model.
    """
    length = (state.documents.get(TOKENIZER_CONFIG) or {}).get(_LENGTH)
    if isinstance(length, int) and length < NO_LIMIT:
        return Limit(length, _LENGTH)
    config = state.documents.get(CONFIG) or {}
    for part in (config, config.get("text_config") or {}):
        for name in _POSITIONS:
            if isinstance(part.get(name), int):
                return Limit(part[name], name)
    return None
