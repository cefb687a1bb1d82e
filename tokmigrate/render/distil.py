"""What `distil` did, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tokmigrate.formatting import format_count
from tokmigrate.render.escape import escape
from tokmigrate.render.terminal import format_revision
from tokmigrate.render.train import format_tokens, loss_curve

if TYPE_CHECKING:
    from tokmigrate.training.distil import DistilledRows


def distil_text(model: str, done: DistilledRows, path: str) -> Iterator[str]:
    """Yield what `distil` says; `path` is that of the migration as a user names it."""
    tokens, steps = format_count(len(done.tokens), "token"), format_count(len(done.losses), "step")
    snippets = format_count(done.snippets, "snippet")
    yield f"{model}: distilled the rows of {tokens} in {steps}, on {snippets}: {format_tokens(done.tokens)}"
    if done.written:
        yield f"the model wrote {done.written:,} of the snippets"
    if done.absent:
        yield f"in no snippet to learn from, so not trained: {format_tokens(done.absent)}"
    if done.left_out:
        yield f"special, or in every earlier tokenizer, and left to `tokmigrate train`: {format_tokens(done.left_out)}"
    where = f"on {format_count(done.held_out, 'snippet')} that were held out" if done.held_out else "on all of them"
    before = f"the model with the tokenizer of {format_revision(done.revision)}"
    yield f"distance to {before}, {where}: {done.before:.4f} before, {done.after:.4f} after"
    if any(done.predictions):
        unlike, like = done.predictions
        yield f"divergence of their chances from those of their pieces: {unlike:.4f} nats before, {like:.4f} after"
        if like > unlike:
            yield "the output rows became worse: take more --steps, or a lower --lr"
    yield from loss_curve(done.losses)
    yield f"wrote {escape(path)}: `tokmigrate upgrade` applies it"


def distil_content(model: str, done: DistilledRows, path: str) -> dict[str, Any]:
    """Return what `distil` did as JSON."""
    return {"model": model, **vars(done), "path": path}
