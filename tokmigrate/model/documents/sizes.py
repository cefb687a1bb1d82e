"""The sizes of the vocabulary that config.json gives, kept in step with the rows."""

from __future__ import annotations

from collections.abc import Mapping

from tokmigrate.model.documents.config_parts import Path, config_parts, parts_of
from tokmigrate.model.documents.peculiarities import is_static
from tokmigrate.model.documents.state import CONFIG, ModelState

SIZES = ("vocab_size", "decoder_vocab_size", "src_vocab_size", "tgt_vocab_size", "vocab_size_per_layer_input")
"""The fields that give the size of the vocabulary, or of a table beside it, where they give the same number."""
REPEATED = ("depth_decoder_config",)
"""The parts that repeat the size, and whose ids are other things: Moshi's counts codes of audio."""
UNPADDED = "unpadded_vocab_size"
"""The field that gives the number of rows that are not padding: logits behind it are cut off."""


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
