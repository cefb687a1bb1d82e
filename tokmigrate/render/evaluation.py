"""What a model makes of text before and after its migrations, as text and as JSON; the report's page has the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Column

from tokmigrate.formatting import format_bytes, format_count, format_list
from tokmigrate.render.terminal import plain_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokmigrate.training.embeddings import Cosines
    from tokmigrate.training.evaluate import Evaluation
    from tokmigrate.training.next_tokens import Losses, Mean, NextTokens

Content = Mapping[str, Any]
"""A measurement as JSON."""

_ROWS = {
    "all": "nats per byte",
    "without_new_tokens": "  text without new tokens",
    "with_new_tokens": "  text with new tokens",
}
_KINDS = {"without_new_tokens": "without new tokens", "with_new_tokens": "with new tokens"}
_LOSSES = {"on_new_tokens": "nats per new token", "after_new_tokens": "nats per token after one"}


def evaluation_content(found: Evaluation) -> dict[str, Any]:
    """Return a measurement as JSON; null is what there was no text for."""
    counts = found.counts
    content: dict[str, Any] = {
        **{name: getattr(found, name) for name in ("model", "before", "after", "corpus", "kind", "device", "dtype")},
        "texts": {"all": counts.texts, "without_new_tokens": counts.same, "bytes": counts.text_bytes},
        "tokens_per_byte": {
            "before": counts.tokens_before / counts.text_bytes,
            "after": counts.tokens_after / counts.text_bytes,
        },
        "new_tokens": len(found.match.new),
        "same_body": found.match.same_body,
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
            "positions": far.added.count,
            "nats": far.nats,
            "of_added_rows": far.added.mean,
            "of_added_rows_at_most": far.added.most,
            "of_removed_rows": far.removed.mean,
            "removed_mass": far.mass.mean,
            "removed_mass_at_most": far.mass.most,
            "bound": found.bound,
            "added_rows": len(found.match.added),
            "removed_rows": len(found.match.removed),
            "removed_tokens": found.match.removed_tokens,
            "population": found.population,
        },
        "loss": {"on_new_tokens": _loss_content(held.on_new), "after_new_tokens": _loss_content(held.after_new)},
    }


def _losses_content(held: Losses) -> dict[str, Any]:
    return {"bytes": held.text_bytes, "before": held.per_byte(held.before), "after": held.per_byte(held.after)}


def _loss_content(held: tuple[Mean, Mean]) -> dict[str, Any]:
    before, after = held
    return {"tokens": after.count, "before": before.mean, "after": after.mean}


def _cosine_content(held: Cosines) -> dict[str, Any]:
    return {"texts": held.texts, "mean": held.mean, "min": held.least if held.texts else None}


def evaluation_text(content: Content) -> Iterator[RenderableType]:
    """Yield a measurement as lines and a table."""
    yield f"before: {content['before']}; after: {content['after']}"
    yield from describe_texts(content)
    columns = [Column(name, justify="right", no_wrap=True) for name in ("before", "after", "")]
    table = plain_table(Column(), *columns)
    for row in list_figures(content):
        table.add_row(*row)
    yield ""
    yield table
    yield ""
    yield from describe_figures(content)


def describe_texts(content: Content) -> Iterator[str]:
    """Yield what was read, and what a reader has to know of the two models."""
    texts = content["texts"]
    read = f"{format_count(texts['all'], 'text')} of {content['corpus']}, {format_bytes(texts['bytes'])}"
    other = texts["all"] - texts["without_new_tokens"]
    yield f"{read}; {other:,} with new tokens or tokenized differently"
    yield f"run in {content['dtype']} on {content['device']}"
    if content["before"] == content["after"]:
        yield "note: both sides are the same; --to head measures pending migrations before an upgrade"
    if content["retrained"]:
        yield f"note: trained or saved again since it was migrated: {format_list(content['retrained'])}"
        yield "before are these weights with the earlier tokens; --old DIR compares with another model"
    elif not content["same_body"]:
        yield "note: other weights than the rows of tokens differ too"


def list_figures(content: Content) -> Iterator[tuple[str, str, str, str]]:
    """Yield what has a figure before and one after: its name, both, and the growth."""
    figures = {"tokens per byte": content["tokens_per_byte"]}
    figures |= {_ROWS[name]: held for name, held in content.get("nats_per_byte", {}).items()}
    losses = content.get("loss", {}).items()
    figures |= {f"{_LOSSES[name]} ({held['tokens']:,})": held for name, held in losses if held["tokens"]}
    for name, held in figures.items():
        before, after = held["before"], held["after"]
        if after is not None:
            growth = f"{after / before - 1:+.2%}" if before and after != before else ""
            yield name, "-" if before is None else f"{before:.4f}", f"{after:.4f}", growth


def describe_figures(content: Content) -> Iterator[str]:
    """Yield all other figures as sentences."""
    if "divergence" in content:
        yield from _describe_divergence(content["divergence"], content["same_body"])
    for name, held in content.get("cosine", {}).items():
        if held["texts"]:
            figures = f"mean {held['mean']:.4f}, least {held['min']:.4f}"
            yield f"cosine of embeddings, {format_count(held['texts'], 'text')} {_KINDS[name]}: {figures}"


def _describe_divergence(far: Content, same_body: bool) -> Iterator[str]:
    if not far["positions"]:
        yield "KL on text without new tokens: there is no such text"
        return
    worst = f"{far['of_added_rows_at_most']:.3g} at most, over {format_count(far['positions'], 'prediction')}"
    yield f"KL on text without new tokens: {far['of_added_rows']:.3g} nats, {worst}"
    if far["added_rows"] and same_body:
        rows = f"log(1 + {far['added_rows']:,}/{far['population']:,})"
        yield f"the bound that new rows of `mean` keep: {rows} = {far['bound']:.3g} nats"
    if far["removed_rows"]:
        mass = f"{far['removed_mass']:.3g} of the probability, {far['removed_mass_at_most']:.3g} at most"
        gone = f"{format_count(far['removed_rows'], 'row')} of {format_count(far['removed_tokens'], 'token')}"
        yield f"gone or overwritten, {gone}: {mass}; {far['of_removed_rows']:.3g} nats"
