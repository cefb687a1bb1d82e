"""Which tokens were trained, and what trains the others, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokmigrate.formatting import format_list
from tokmigrate.render.escape import escape, escape_quoted

if TYPE_CHECKING:
    from tokmigrate.audit.lora import HeldRows, LoraRows
    from tokmigrate.audit.trainers import TrainerConfig
    from tokmigrate.audit.training import TokenTraining
    from tokmigrate.model.weights.movement import Movement

_SHOWN = 5
SAID = {
    "trained": "trained since init",
    "partly": "trained on one side only",
    "moved": "moved, not trained",
    "untrained": "never trained",
    "given": "given by a file, not trained here",
    "unknown": "not known to be trained or not",
}
"""What each kind of training is called."""


def training_content(found: Sequence[TokenTraining]) -> list[dict[str, Any]]:
    """Return the tokens whose rows migrations initialised as JSON."""
    return [{**vars(token), "training": token.training} for token in found]


def training_lines(found: Sequence[TokenTraining]) -> Iterator[str]:
    """Yield lines on the tokens whose rows migrations initialised: how many of each kind, and the first ones."""
    for kind in SAID:
        alike: dict[str, list[str]] = {}
        for token in found:
            if token.training.value == kind:
                alike.setdefault(format_training(token), []).append(_format_token(token))
        for said, labels in alike.items():
            yield f"{len(labels):,} of {len(found):,} new tokens {said}: {format_list(labels, _SHOWN)}"
    yield from (f"not known: {why}" for why in dict.fromkeys(token.why for token in found if token.why))
    if any(token.is_to_train for token in found):
        yield "`tokmigrate peft-config` gives the ids of those not trained, for a LoRA run"


def format_training(token: TokenTraining) -> str:
    """Return what the training of a token is called; where a file gave its row, how that was learned."""
    if token.provenance is None:
        return SAID[token.training.value]
    learned = format_provenance(token.provenance)
    return f"{learned}, on one side only" if token.training.value == "partly" else learned


def format_provenance(provenance: Mapping[str, Any]) -> str:
    """Return how rows were learned, such as `trained by tokmigrate train: 60 steps on texts.txt`."""
    if isinstance(provenance.get("adapter"), str):
        return f"trained in the adapter {escape(provenance['adapter'])}"
    steps, data = provenance.get("steps"), provenance.get("data")
    parts = [f"{steps:,} steps"] if isinstance(steps, int) else []
    parts += [f"on {escape(format_list(list(map(str, data)), 3))}"] if isinstance(data, list) and data else []
    by = f"trained by tokmigrate {escape(str(provenance.get('command')))}"
    return f"{by}: {' '.join(parts)}" if parts else by


def _format_token(token: TokenTraining) -> str:
    parts = [str(token.id)]
    if token.training.value == "partly":
        left = [side for side, became in token.sides.items() if became.value != "trained"]
        parts.append(f"not the {' and '.join(left)} row")
    figures = format_figures(token.figures)
    return f"{escape_quoted(token.token)} ({', '.join([*parts, figures] if figures else parts)})"


def format_figures(figures: Mapping[Any, Movement]) -> str:
    """Return how far the row of a token moved, its input row where it has two; "" where that is not known."""
    if not figures:
        return ""
    row = figures[min(figures)]
    values = {"change": row.change, "likeness": row.likeness}
    return ", ".join(f"{name} {value:.2g}" for name, value in values.items() if value is not None)


def format_init(init: Mapping[str, Any] | None) -> str:
    """Return how a row was initialised, in a line: one strategy, or one for each side."""
    sides: dict[str, str] = {}
    learned: dict[str, None] = {}
    for side, held in (init or {}).items():
        if isinstance(held, Mapping):
            named = {name: value for name, value in held.items() if name not in ("strategy", "provenance")}
            options = ", ".join(f"{name} {value}" for name, value in named.items())
            sides[side] = f"{held.get('strategy')} ({options})" if options else str(held.get("strategy"))
            if isinstance(held.get("provenance"), Mapping):
                learned[format_provenance(held["provenance"])] = None
    if len(set(sides.values())) == 1:
        return ", ".join([next(iter(sides.values())), *learned])
    return ", ".join([" and ".join(f"{text} ({side})" for side, text in sides.items()), *learned])


def adapter_rows_line(held: HeldRows) -> str:
    """Return what rows an adapter holds in place of its model's, and the training of new tokens among them."""
    what = f"all {held.rows:,} rows" if held.is_whole else f"the rows of {held.rows:,} listed ids"
    labels = []
    for token in held.tokens:
        said = {"untrained": "as in the model", "unknown": "not known to be trained"}
        parts = [said.get(token.training.value, token.training.value), format_figures({"": token.movement})]
        labels.append(f"{escape_quoted(token.token)} ({token.id}, {', '.join(filter(None, parts))})")
    tokens = f"new tokens among them: {format_list(labels, _SHOWN)}" if labels else "no new token among them"
    return f"it holds {what} of {held.matrix}, {tokens}"


def lora_notes(found: LoraRows) -> Iterator[str]:
    """Yield notes on the tokens that a LoRA run leaves out."""
    if not found.indices:
        yield f"note: {found.model}: no token is known to be untrained"
    if found.unknown:
        yield (
            f"warning: {found.model}: {found.unknown} tokens are left out, of which it is not known whether they"
            f" were trained: {found.why}; `tokmigrate status` names them, add their ids to train them"
        )
    if found.given:
        yield f"note: {found.model}: {found.given} tokens are left out, whose rows a file gave"


def lora_content(found: LoraRows) -> dict[str, Any]:
    """Return the rows that a LoRA run is still to train as JSON."""
    return {
        "model": found.model,
        "trainable_token_indices": found.indices or None,
        "unknown": found.unknown,
        "why": found.why,
        "given": found.given,
    }


def trainer_content(config: TrainerConfig) -> dict[str, Any]:
    """Return the configuration of a trainer as JSON; that of peft is the rows alone."""
    if config.trainer == "peft":
        return {}
    return {"trainer": config.trainer, "settings": config.settings, "comment": config.comment}


def trainer_lines(config: TrainerConfig) -> Iterator[str]:
    """Yield the configuration of a trainer that takes YAML or arguments of Python."""
    yield f"# {config.comment}"
    for name, value in config.settings.items():
        # JSON is YAML.
        yield f"{name}={value!r}," if config.syntax == "python" else f"{name}: {json.dumps(value)}"


def trainer_notes(model: str, config: TrainerConfig) -> Iterator[str]:
    """Yield what is to know of the configuration of a trainer, where it has no comments."""
    if config.comment and config.syntax == "json":
        yield f"note: {model}: {config.comment}"
    if config.warning:
        yield f"warning: {model}: {config.warning}"
