"""What was learned from a corpus or a model, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Column

from tokmigrate.commands.learn_extend import LearnedMerges
from tokmigrate.commands.learn_prune import ChosenTokens, ReplacedTokens
from tokmigrate.commands.learn_reinit import UntrainedTokens
from tokmigrate.commands.learn_transplant import LearnedTransplant
from tokmigrate.formatting import format_bytes, format_count
from tokmigrate.operations.token_choice import Reason
from tokmigrate.plan.token_growth import CorpusGrowth
from tokmigrate.render.escape import escape
from tokmigrate.render.growth import growth_content, growth_table
from tokmigrate.render.terminal import plain_table

_SHOWN = 12
"""So many of the tokens whose rows are short are shown."""


def merges_content(learned: LearnedMerges) -> dict[str, Any]:
    """Return learned merges as JSON."""
    return {
        "file": learned.path,
        "merges_file": learned.merges_file,
        "merges": len(learned.saved),
        "new_tokens": learned.new_tokens,
        "text_bytes": learned.text_bytes,
        "held_out": {
            **growth_content(learned.held_out),
            "saved_by_merges": [{"merges": merges, "saved": saved} for merges, saved in learned.steps],
        },
        "next_1000_save_less_than_1_percent_from": learned.worth,
    }


def merges_text(learned: LearnedMerges) -> Iterator[RenderableType]:
    """Yield learned merges as lines and a table."""
    made = f"{format_count(len(learned.saved), 'merge')}, {format_count(learned.new_tokens, 'new token')}"
    yield f"wrote {learned.path} and {learned.merges_file.name}: {made}"
    held = learned.held_out.whole
    if not held.tokens_before:
        yield "no file of the corpus has ten texts: nothing was held out to measure what the merges save"
        return
    yield f"held out: {format_bytes(held.bytes)} of {format_bytes(learned.text_bytes)}, every tenth text"
    titles = ("merges", "tokens held out", "tokens a byte", "saved")
    table = plain_table(*(Column(title, justify="right") for title in titles))
    for merges, saved in ((0, 0), *learned.steps):
        left = held.tokens_before - saved
        share = f"{saved / held.tokens_before:.1%}"
        table.add_row(f"{merges:,}", f"{left:,}", f"{left / held.bytes:.4f}", share)
    yield table
    if learned.worth is not None:
        yield f"from {learned.worth:,} merges on, the next 1,000 save less than 1 % of the tokens"
    yield from growth_table(learned.held_out)


def choice_content(chosen: ChosenTokens | ReplacedTokens) -> dict[str, Any]:
    """Return chosen or replaced tokens as JSON."""
    return {**vars(chosen), "held_out": growth_content(chosen.held_out)}


def removal_text(chosen: ChosenTokens) -> Iterator[RenderableType]:
    """Yield chosen tokens as lines and a table."""
    kept = sum(chosen.kept.values())
    yield f"wrote {chosen.file}: {format_count(chosen.removed, 'token')} of {kept + chosen.removed:,} are removed"
    yield f"{chosen.keep_file.name} lists the {kept:,} that stay, {chosen.reasons_file.name} says why"
    table = plain_table("stay because of", Column("tokens", justify="right"))
    for reason, count in sorted(chosen.kept.items(), key=lambda item: -item[1]):
        table.add_row(reason, f"{count:,}")
    yield table
    yield from _describe_not_dropped(chosen.not_dropped)
    if chosen.saved:
        rows = chosen.saved
        size = f"{format_bytes(abs(rows.bytes))} and {format_count(abs(rows.parameters), 'parameter')}"
        less = "less" if rows.bytes >= 0 else "more"
        yield f"rows: {rows.rows_before:,}, {rows.rows_after:,} afterwards; {size} {less}"
    yield from _describe_held_out(chosen.held_out, "; all others are tokenized as before")
    if chosen.saved:
        yield "`tokmigrate evaluate --to head --corpus FILE` measures the probability that the model gives to what goes"


def replacement_text(replaced: ReplacedTokens) -> Iterator[RenderableType]:
    """Yield replaced tokens as lines and a table."""
    yield f"wrote {replaced.file}: {format_count(replaced.replaced, 'token')} give their ids and rows to new ones"
    files = f"{replaced.tokens_file.name} lists those that go, {replaced.merges_file.name} the merges of the new ones"
    yield f"{files}; {replaced.reasons_file.name} says why the others stay"
    yield from _describe_not_dropped(replaced.not_dropped)
    if replaced.replaced < replaced.wanted:
        yield f"fewer than {replaced.wanted:,}: the corpus has no more merges"
    yield f"rows: {replaced.rows:,}, as before"
    yield from _describe_held_out(replaced.held_out, "; the tokens of all others stay or are joined")


def _describe_held_out(held_out: CorpusGrowth, others: str) -> Iterator[RenderableType]:
    held = held_out.whole
    if not held.tokens_before:
        yield "no file of the corpus has ten texts: nothing was held out to measure what the migration costs"
        return
    yield f"held out: {held.tokens_before:,} tokens, {held.tokens_after:,} afterwards ({held.ratio - 1:+.2%})"
    yield f"{held.with_removed_tokens / held.texts:.1%} of these texts have a removed token{others}"
    yield from growth_table(held_out)


def _describe_not_dropped(reasons: Mapping[Reason, int]) -> Iterator[str]:
    if reasons:
        each = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
        yield f"not dropped: {format_count(sum(reasons.values()), 'token')} ({each})"


def transplant_content(learned: LearnedTransplant) -> dict[str, Any]:
    """Return a fitted tokenizer as JSON."""
    return {
        "file": learned.path,
        "coefficients_file": learned.coefficients,
        "tokenizer": learned.tokenizer,
        "bytes_of_coefficients": learned.size,
        "tokens": {"kept": learned.kept, "copied": learned.copied, "new": learned.new},
        "left_out_as_undertrained": learned.left_out,
        "too_rare_in_corpus": learned.rare,
        "relative_error": dict(learned.error),
    }


def transplant_text(learned: LearnedTransplant) -> Iterator[str]:
    """Yield a fitted tokenizer as lines."""
    coefficients = f", {learned.coefficients.name} ({format_bytes(learned.size)})" if learned.coefficients else ""
    yield f"wrote {learned.path}{coefficients} and {learned.tokenizer.name}"
    copied = f", {learned.copied:,} copy one" if learned.copied else ""
    yield f"{format_count(learned.kept, 'token')} keep their rows{copied}, {learned.new:,} get a sum of rows"
    if learned.left_out is not None:
        yield f"{format_count(learned.left_out, 'shared token')} are in no sum: their rows are under-trained"
    if learned.rare is not None:
        yield f"{format_count(learned.rare, 'new token')} too rare in the corpus: a row is the mean of subtokens"
    for side, error in learned.error.items():
        yield f"{side}: the sums leave {error:.1%} of the length of the other model's rows"


def reinit_text(found: UntrainedTokens) -> Iterator[RenderableType]:
    """Yield tokens that were never trained as lines and a table."""
    number = format_count(len(found.rows), "token")
    yield f"wrote {found.file}: {number} of {found.baseline:,} are initialised again"
    yield f"{found.tokens_file.name} lists them, {found.reasons_file.name} says how short their rows are"
    table = plain_table("token", *(Column(title, justify="right") for title in ("id", "norm", "of the median")))
    for row in found.rows[:_SHOWN]:
        table.add_row(escape(row.token), str(row.id), f"{row.norm:.3g}", f"{row.share:.2%}")
    yield table
    if len(found.rows) > _SHOWN:
        yield f"and {len(found.rows) - _SHOWN:,} more"
