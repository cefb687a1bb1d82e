"""What `train`, `distil` and `bake` did, as text and as JSON, and the loss as a curve of plain characters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tokmigrate.commands.models import format_path
from tokmigrate.formatting import format_count, format_list
from tokmigrate.render.escape import escape, escape_quoted

if TYPE_CHECKING:
    from tokmigrate.commands.bake import BakedAdapter
    from tokmigrate.settings import ModelEntry, Workspace
    from tokmigrate.training.distil import DistilledRows
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


def rows_content(entry: ModelEntry, done: TrainedRows | DistilledRows, path: str) -> dict[str, Any]:
    """Return what `train` or `distil` did as JSON."""
    return {"model": entry.name, **vars(done), "path": path}


def distil_text(entry: ModelEntry, done: DistilledRows, path: str) -> Iterator[str]:
    """Yield what `distil` says; `path` is that of the migration as a user names it."""
    tokens, steps = format_count(len(done.tokens), "token"), format_count(len(done.losses), "step")
    snippets = format_count(done.snippets, "snippet")
    yield f"{entry.name}: distilled the rows of {tokens} in {steps}, on {snippets}: {format_tokens(done.tokens)}"
    if done.written:
        yield f"the model wrote {done.written:,} of the snippets"
    if done.absent:
        yield f"in no snippet to learn from, so not trained: {format_tokens(done.absent)}"
    if done.left_out:
        yield f"special, or in every earlier tokenizer, and left to `tokmigrate train`: {format_tokens(done.left_out)}"
    where = f"on {format_count(done.held_out, 'snippet')} that were held out" if done.held_out else "on all of them"
    before = f"the model with the tokenizer of {done.revision or 'base'}"
    yield f"distance to {before}, {where}: {done.before:.4f} before, {done.after:.4f} after"
    if any(done.predictions):
        unlike, like = done.predictions
        yield f"divergence of their chances from those of their pieces: {unlike:.4f} nats before, {like:.4f} after"
        if like > unlike:
            yield "the output rows became worse: take more --steps, or a lower --lr"
    yield from loss_curve(done.losses)
    yield f"wrote {escape(path)}: `tokmigrate upgrade` applies it"


def bake_content(baked: BakedAdapter) -> dict[str, Any]:
    """Return a baked adapter as JSON."""
    return {
        "file": baked.path,
        "output": baked.output,
        "tokens": baked.tokens,
        "added": baked.added,
        "left_out": baked.left_out,
        "is_listed": baked.is_listed,
    }


def bake_text(baked: BakedAdapter, workspace: Workspace, entry: ModelEntry) -> Iterator[str]:
    """Yield lines on a baked adapter, and what to do next."""
    output = format_path(workspace, baked.output) if baked.output else ""
    if baked.path is None:
        yield "no row of a token differs from the model's: no migration is written"
    else:
        shown = format_list([escape_quoted(token) for token in baked.tokens], 6)
        rows = f"the rows of {format_count(len(baked.tokens), 'token')}"
        yield f"wrote {format_path(workspace, baked.path)}: {rows}, {shown}"
    if baked.added:
        yield f"it adds {format_count(len(baked.added), 'token')} that the model lacks"
    if baked.left_out:
        yield f"not baked: {format_count(baked.left_out, 'token')} of the baseline whose rows the adapter changed"
    yield f"wrote {output}: LoRA factors only" if output else "no LoRA factor is left: the model is all"
    if baked.is_listed:
        yield f"in tokmigrate.yaml, under `adapters:` of {entry.name}:"
        width = max(len(baked.adapter), len(output))
        yield f"  - {baked.adapter:<{width}}    # take this out"
        if output:
            yield f"  - {output:<{width}}    # put this in"
    if baked.path is not None:
        if baked.others:
            yield f"the rows change for its other adapters too: {format_list(baked.others)}"
        yield f"next: tokmigrate upgrade --model {entry.name}"
