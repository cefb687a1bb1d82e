"""What was learned from a corpus, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from tokmigrate.commands.learn_extend import LearnedMerges
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
        yield "the corpus has fewer than ten lines: nothing was held out to measure what the merges save"
        return
    yield f"held out: {format_bytes(learned.held_bytes)} of {format_bytes(learned.text_bytes)}, every tenth line"
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
