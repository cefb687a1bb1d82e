"""What was baked, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokmigrate.commands.bake import BakedAdapter
from tokmigrate.commands.models import format_path
from tokmigrate.formatting import format_count, format_list
from tokmigrate.render.escape import escape_quoted
from tokmigrate.settings import Workspace


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


def bake_lines(baked: BakedAdapter, workspace: Workspace, model: str) -> Iterator[str]:
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
        yield f"in tokmigrate.yaml, under `adapters:` of {model}:"
        width = max(len(baked.adapter), len(output))
        yield f"  - {baked.adapter:<{width}}    # take this out"
        if output:
            yield f"  - {output:<{width}}    # put this in"
    if baked.path is not None:
        if baked.others:
            yield f"the rows change for its other adapters too: {format_list(baked.others)}"
        yield f"next: tokmigrate upgrade --model {model}"
