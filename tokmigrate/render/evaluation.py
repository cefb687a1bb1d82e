"""What a model makes of text before and after its migrations, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Column

from tokmigrate.formatting import format_bytes, format_count, format_list
from tokmigrate.render.terminal import plain_table

if TYPE_CHECKING:
    from tokmigrate.training.embeddings import Cosines, Embeddings
    from tokmigrate.training.evaluate import Evaluation
    from tokmigrate.training.next_tokens import Losses, NextTokens, TokenLoss


def evaluation_content(found: Evaluation) -> dict[str, Any]:
    """Return a measurement as JSON; null is what there was no text for."""
    content: dict[str, Any] = {
        **{name: getattr(found, name) for name in ("model", "before", "after", "corpus", "kind", "device", "dtype")},
        "texts": {"all": found.texts, "without_new_tokens": found.same, "bytes": found.text_bytes},
        "tokens_per_byte": {
            "before": found.tokens_before / found.text_bytes,
            "after": found.tokens_after / found.text_bytes,
        },
        "new_tokens": found.new_tokens,
        "same_body": found.same_body,
        "retrained": found.retrained,
    }
    if found.next_tokens is not None:
        content |= _next_tokens_content(found, found.next_tokens)
    if found.embeddings is not None:
        content["pooling"] = found.embeddings.pooling
        content["cosine"] = {
            "without_new_tokens": _cosine_content(found.embeddings.same),
            "with_new_tokens": _cosine_content(found.embeddings.other),
        }
    return content


def _next_tokens_content(found: Evaluation, held: NextTokens) -> dict[str, Any]:
    far = held.divergence
    return {
        "nats_per_byte": {
            "all": _losses_content(held.whole),
            "without_new_tokens": _losses_content(held.same),
            "with_new_tokens": _losses_content(held.other),
        },
        "divergence": {
            "positions": far.positions,
            "nats": far.nats,
            "of_added_rows": far.mean(far.added),
            "of_added_rows_at_most": far.worst_added,
            "of_removed_rows": far.mean(far.removed),
            "removed_mass": far.mean(far.mass),
            "removed_mass_at_most": far.worst_mass,
            "bound": found.bound,
            "added_rows": found.added_rows,
            "removed_rows": found.removed_rows,
            "population": found.population,
        },
        "loss": {"on_new_tokens": _loss_content(held.on_new), "after_new_tokens": _loss_content(held.after_new)},
    }


def _losses_content(held: Losses) -> dict[str, Any]:
    return {"bytes": held.text_bytes, "before": held.per_byte(held.before), "after": held.per_byte(held.after)}


def _loss_content(held: TokenLoss) -> dict[str, Any]:
    return {"tokens": held.tokens, "nats": held.mean}


def _cosine_content(held: Cosines) -> dict[str, Any]:
    return {"texts": held.texts, "mean": held.mean, "min": held.least if held.texts else None}


def evaluation_text(found: Evaluation) -> Iterator[RenderableType]:
    """Yield a measurement as lines and tables."""
    yield f"before: {found.before}; after: {found.after}"
    texts = f"{format_count(found.texts, 'text')} of {found.corpus}, {format_bytes(found.text_bytes)}"
    yield f"{texts}; {found.texts - found.same:,} with new tokens or tokenized differently"
    yield f"run in {found.dtype} on {found.device}"
    if found.retrained:
        files = format_list(found.retrained)
        yield f"note: trained or saved again since it was migrated: {files}"
        yield "before are these weights with the earlier tokens; --old DIR compares with another model"
    elif not found.same_body:
        yield "note: other weights than the rows of tokens differ too"
    yield ""
    columns = [Column(name, justify="right", no_wrap=True) for name in ("before", "after", "")]
    table = plain_table(Column(), *columns)
    before, after = found.tokens_before / found.text_bytes, found.tokens_after / found.text_bytes
    table.add_row("tokens per byte", f"{before:.4f}", f"{after:.4f}", _growth(before, after))
    if found.next_tokens is not None:
        held = found.next_tokens
        for name, losses in (("all", held.whole), ("without new tokens", held.same), ("with them", held.other)):
            old, new = losses.per_byte(losses.before), losses.per_byte(losses.after)
            if old is not None and new is not None:
                table.add_row(f"nats per byte, {name}", f"{old:.4f}", f"{new:.4f}", _growth(old, new))
    yield table
    if found.next_tokens is not None:
        yield from _next_tokens_text(found, found.next_tokens)
    if found.embeddings is not None:
        yield from _embeddings_text(found.embeddings)


def _growth(before: float, after: float) -> str:
    return f"{after / before - 1:+.2%}" if before and after != before else ""


def _next_tokens_text(found: Evaluation, held: NextTokens) -> Iterator[str]:
    far = held.divergence
    yield ""
    if not far.positions:
        yield "KL on text without new tokens: there is no such text"
    else:
        worst = f"{far.worst_added:.3g} at most, over {format_count(far.positions, 'prediction')}"
        yield f"KL on text without new tokens: {far.mean(far.added):.3g} nats, {worst}"
        if found.added_rows:
            rows = f"log(1 + {found.added_rows:,}/{found.population:,})"
            yield f"the bound that new rows of `mean` keep: {rows} = {found.bound:.3g} nats"
        if found.removed_rows:
            mass = f"{far.mean(far.mass):.3g} of the probability, {far.worst_mass:.3g} at most"
            yield f"{format_count(found.removed_rows, 'removed row')} had {mass}: {far.mean(far.removed):.3g} nats"
    for what, loss in (("on new tokens", held.on_new), ("on the token after one", held.after_new)):
        if loss.mean is not None:
            yield f"loss {what}: {loss.mean:.3f} nats, over {loss.tokens:,}"


def _embeddings_text(held: Embeddings) -> Iterator[str]:
    yield ""
    for name, kind in (("without new tokens", held.same), ("with new tokens", held.other)):
        if kind.mean is not None:
            figures = f"mean {kind.mean:.4f}, least {kind.least:.4f}"
            yield f"cosine of embeddings, {format_count(kind.texts, 'text')} {name}: {figures}"
