"""What was learned from a corpus, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from tokmigrate.commands.learn_extend import LearnedMerges
from tokmigrate.commands.learn_prune import ChosenTokens
from tokmigrate.formatting import format_bytes, format_count


def merges_content(learned: LearnedMerges) -> dict[str, Any]:
    """Return learned merges as JSON."""
    return {
        "file": learned.path,
        "merges_file": learned.merges_file,
        "merges": len(learned.saved),
        "new_tokens": learned.new_tokens,
        "text_bytes": learned.text_bytes,
        "held_out": {
            "bytes": learned.held_bytes,
            "tokens_before": learned.held_tokens,
            "tokens_after": learned.held_tokens - sum(learned.saved),
            "saved_by_merges": [{"merges": merges, "saved": saved} for merges, saved in learned.steps],
        },
        "next_1000_save_less_than_1_percent_from": learned.worth,
    }


def merges_text(learned: LearnedMerges) -> Iterator[RenderableType]:
    """Yield learned merges as lines and a table."""
    made = f"{format_count(len(learned.saved), 'merge')}, {format_count(learned.new_tokens, 'new token')}"
    yield f"wrote {learned.path} and {learned.merges_file.name}: {made}"
    if not learned.held_tokens:
        yield "no file of the corpus has ten texts: nothing was held out to measure what the merges save"
        return
    yield f"held out: {format_bytes(learned.held_bytes)} of {format_bytes(learned.text_bytes)}, every tenth text"
    table = Table(box=None, pad_edge=False)
    for title in ("merges", "tokens held out", "tokens a byte", "saved"):
        table.add_column(title, justify="right")
    for merges, saved in ((0, 0), *learned.steps):
        left = learned.held_tokens - saved
        share = f"{saved / learned.held_tokens:.1%}"
        table.add_row(f"{merges:,}", f"{left:,}", f"{left / learned.held_bytes:.4f}", share)
    yield table
    if learned.worth is not None:
        yield f"from {learned.worth:,} merges on, the next 1,000 save less than 1 % of the tokens"


def removal_content(chosen: ChosenTokens) -> dict[str, Any]:
    """Return chosen tokens as JSON."""
    return {
        "file": chosen.path,
        "keep_file": chosen.keep_file,
        "reasons_file": chosen.reasons_file,
        "kept": dict(chosen.kept),
        "removed": chosen.removed,
        "text_bytes": chosen.text_bytes,
        "held_out": {
            "bytes": chosen.held_bytes,
            "tokens_before": chosen.held_tokens_before,
            "tokens_after": chosen.held_tokens_after,
        },
    }


def removal_text(chosen: ChosenTokens) -> Iterator[RenderableType]:
    """Yield chosen tokens as lines and a table."""
    kept = sum(chosen.kept.values())
    yield f"wrote {chosen.path}: {format_count(chosen.removed, 'token')} of {kept + chosen.removed:,} are removed"
    yield f"{chosen.keep_file.name} lists the {kept:,} that stay, {chosen.reasons_file.name} says why"
    table = Table(box=None, pad_edge=False)
    table.add_column("stay because of")
    table.add_column("tokens", justify="right")
    for reason, count in sorted(chosen.kept.items(), key=lambda item: -item[1]):
        table.add_row(reason, f"{count:,}")
    yield table
    before, after = chosen.held_tokens_before, chosen.held_tokens_after
    if before:
        growth = f"{after / before - 1:+.2%}"
        yield f"held out, {format_bytes(chosen.held_bytes)}: {before:,} tokens, {after:,} afterwards ({growth})"
