"""What `distil` did, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tokmigrate.formatting import format_count, format_list
from tokmigrate.render.escape import escape, escape_quoted
from tokmigrate.render.terminal import format_revision

if TYPE_CHECKING:
    from tokmigrate.training.distil import DistilledRows

_SHOWN = 5


def distil_text(model: str, done: DistilledRows, path: str) -> Iterator[str]:
    """Yield what `distil` says; `path` is that of the migration as a user names it."""
    tokens, steps = format_count(len(done.tokens), "token"), format_count(done.steps, "step")
    snippets = format_count(done.snippets, "snippet")
    yield f"{model}: distilled the rows of {tokens} in {steps}, on {snippets}: {_list(done.tokens)}"
    if done.missing:
        yield f"no snippet has them, and they keep their rows: {_list(done.missing)}"
    where = f"on {format_count(done.held_out, 'snippet')} that were held out" if done.held_out else "on all of them"
    yield (
        f"distance to the model with the tokenizer of {format_revision(done.revision)}, {where}: "
        f"{done.before:.4f} before, {done.after:.4f} after"
    )
    yield f"wrote {escape(path)}: `tokmigrate upgrade` applies it"


def _list(tokens: tuple[str, ...]) -> str:
    return format_list(list(map(escape_quoted, tokens)), _SHOWN)


def distil_content(model: str, done: DistilledRows, path: str) -> dict[str, Any]:
    """Return what `distil` did as JSON."""
    return {"model": model, **vars(done), "path": path}
