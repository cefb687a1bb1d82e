"""Which tokens were trained, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tokmigrate.report.shown import quoted

if TYPE_CHECKING:
    from tokmigrate.audit.lora import LoraRows
    from tokmigrate.audit.training import TokenTraining

_SHOWN = 5
_SAID = {
    "trained": "trained since their rows began",
    "partly": "trained on one side only",
    "untrained": "never trained",
    "unknown": "not known to be trained or not",
}


def training_content(found: Sequence[TokenTraining]) -> list[dict[str, Any]]:
    """Return the tokens whose rows migrations began as JSON."""
    return [
        {
            "token": token.token,
            "id": token.id,
            "revision": token.revision,
            "training": token.training.value,
            "sides": {side: became.value for side, became in token.sides.items()},
            "why": token.why,
        }
        for token in found
    ]


def training_lines(found: Sequence[TokenTraining]) -> Iterator[str]:
    """Yield what to say of the tokens whose rows migrations began: how many of each kind, and the first ones."""
    for kind, said in _SAID.items():
        tokens = [token for token in found if token.training.value == kind]
        if not tokens:
            continue
        named = ", ".join(f"{quoted(token.token)} ({_id(token)})" for token in tokens[:_SHOWN])
        more = f" and {len(tokens) - _SHOWN:,} more" if len(tokens) > _SHOWN else ""
        yield f"{len(tokens):,} of {len(found):,} new tokens {said}: {named}{more}"
    why = list(dict.fromkeys(token.why for token in found if token.why))
    yield from (f"not known: {reason}" for reason in why)
    if any(token.training.value in ("untrained", "partly") for token in found):
        yield "`tokmigrate peft-config` gives their ids for a LoRA run"


def _id(token: TokenTraining) -> str:
    if token.training.value != "partly":
        return str(token.id)
    left = [side for side, became in token.sides.items() if became.value != "trained"]
    return f"{token.id}, not the {' and '.join(left)} row"


def lora_content(found: LoraRows) -> dict[str, Any]:
    """Return the rows that a LoRA run is still to train as JSON."""
    return {
        "model": found.model,
        "trainable_token_indices": dict(found.indices) or None,
        "unknown": found.unknown,
        "why": found.why,
    }
