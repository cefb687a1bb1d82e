"""What `train` did, as text and as JSON, and the loss as a curve of plain characters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tokmigrate.formatting import format_count, format_list
from tokmigrate.render.escape import escape, escape_quoted

if TYPE_CHECKING:
    from tokmigrate.settings import ModelEntry
    from tokmigrate.training.train import TrainedRows

_COLUMNS, _LEAST_COLUMNS, _LINES = 64, 16, 6
_SHOWN = 5


def loss_curve(losses: Mapping[int, float]) -> Iterator[str]:
    """Yield the lines of a chart of the loss by step; of many steps each column is the mean of some."""
    steps = sorted(losses)
    if len(steps) < 2:
        return
    # The texts of a step differ, and so do their losses.
    columns = min(_COLUMNS, max(len(steps) // 4, min(len(steps), _LEAST_COLUMNS)))
    bounds = [len(steps) * at // columns for at in range(columns + 1)]
    parts = [steps[first:last] for first, last in pairwise(bounds)]
    heights = [sum(losses[step] for step in part) / len(part) for part in parts]
    high, low = max(heights), min(heights)
    places = [round((high - height) / ((high - low) or 1) * (_LINES - 1)) for height in heights]
    for line in range(_LINES):
        label = {0: f"{high:.3f}", _LINES - 1: f"{low:.3f}"}.get(line, "")
        yield f"{label:>8} |{''.join('*' if place == line else ' ' for place in places)}".rstrip()
    yield f"{'':8} +{'-' * columns}"
    yield f"{'step':>8}  {steps[0]} {steps[-1]:>{max(0, columns - len(str(steps[0])) - 1)}}"


def train_text(entry: ModelEntry, done: TrainedRows, path: str, is_adapter: bool) -> Iterator[str]:
    """Yield what `train` says; `path` is that of the migration or the adapter as a user names it."""
    what = f"the rows of {format_count(len(done.tokens), 'token')}"
    if done.was_done:
        yield f"{entry.name}: this run was done before: {escape(path)} has {what}"
    else:
        steps = format_count(len(done.losses), "step")
        yield f"{entry.name}: trained {what} in {steps}: {format_tokens(done.tokens)}"
        used = f"{done.used:,} with the tokens, {done.others:,} without them"
        yield f"used of {format_count(done.texts, 'text')}, long ones in parts: {used}"
        if not done.others:
            yield "note: add texts without these tokens: the model learns there where not to write them"
        if done.resumed:
            yield f"continued from step {done.resumed:,}, where an earlier run was interrupted"
        if done.absent:
            yield f"not in the texts that were used, so not trained: {format_tokens(done.absent)}"
        losses = [done.losses[step] for step in sorted(done.losses)]
        tenth = max(1, len(losses) // 10)
        first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
        span = "step" if tenth == 1 else f"{tenth:,} steps"
        yield f"loss in nats per token: {first:.3f} in the first {span}, {last:.3f} in the last"
        yield from loss_curve(done.losses)
    if is_adapter:
        yield f"{'found' if done.was_done else 'wrote'} {escape(path)}; list it in tokmigrate.yaml:"
        yield f"  {escape(entry.name)}:"
        yield f"    adapters: [{escape(path)}]"
    else:
        yield f"{'found' if done.was_done else 'wrote'} {escape(path)}: `tokmigrate upgrade` applies it"


def format_tokens(tokens: tuple[str, ...]) -> str:
    """Return the first of some tokens, in quotes."""
    return format_list(list(map(escape_quoted, tokens)), _SHOWN)


def train_content(entry: ModelEntry, done: TrainedRows, path: str) -> dict[str, Any]:
    """Return what `train` did as JSON."""
    return {"model": entry.name, **vars(done), "path": path}
