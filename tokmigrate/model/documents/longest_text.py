"""How many tokens of a text a model takes."""

from __future__ import annotations

from dataclasses import dataclass

from tokmigrate.model.documents.state import CONFIG, TOKENIZER_CONFIG, ModelState

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
