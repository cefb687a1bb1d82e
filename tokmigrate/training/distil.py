"""Distils the rows of new tokens from the model as it was before them; the result is a migration.

Token distillation (arXiv 2505.20133): the model reads a text with its earlier tokenizer, and with the new one; only the
rows of new tokens learn, until it makes the same of both. Rows of other tokens, and the body, are what they were, so
teacher and student are one loaded model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from tokmigrate.commands.earlier_tokenizer import EarlierTokenizer, find_earlier_tokenizer
from tokmigrate.errors import UsageError
from tokmigrate.events import OnProgress, no_progress, report_activity
from tokmigrate.formatting import format_list
from tokmigrate.model.tokenizer.library import open_tokenizer
from tokmigrate.model.worker.corpus_files import Corpus, read_blocks
from tokmigrate.revision.learned_rows import write_learned_rows
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.training.distillation import Distillation, Pair, join_pairs, measure_distance
from tokmigrate.training.loaded_model import LoadedModel, load_model
from tokmigrate.training.new_rows import NewRows, add_trainable_rows, choose_rows, read_rows
from tokmigrate.training.snippets import SnippetSample
from tokmigrate.training.text_ends import TokenizedText, tokenize_texts
from tokmigrate.training.trainer import run_trainer

EACH = 100
"""How many snippets a token gets."""
_HELD_OUT, _MEASURED = 10, 128
"""One snippet of so many is held out, and at most so many of those are measured."""


@dataclass(frozen=True)
class DistilledRows:
    """What distillation did.

    Args:
        path: The migration that holds the rows.
        revision: The revision whose tokenizer was the teacher's, None for `base`.
        missing: The tokens that no snippet has, whose rows stay as they are.
        held_out: How many snippets it did not learn from; of a few snippets none.
        before: The distance on those with the rows as they were; `after` with those that were learned. Where none are
            held out, it is measured on all.
        losses: The loss by step.
    """

    path: Path
    tokens: tuple[str, ...]
    missing: tuple[str, ...]
    revision: str | None
    snippets: int
    held_out: int
    steps: int
    before: float
    after: float
    losses: Mapping[int, float]


def distil_rows(
    workspace: Workspace,
    entry: ModelEntry,
    corpus: Corpus,
    message: str,
    tokens: str | Sequence[str],
    steps: int,
    rate: float,
    *,
    batch_size: int = 16,
    seed: int = 0,
    on_progress: OnProgress = no_progress,
) -> DistilledRows:
    """Distil the rows of new tokens, and write a migration that gives the model these rows.

    Args:
        rate: The learning rate, as a share of the root mean square of the embeddings' numbers.

    Raises:
        UsageError: There are no such tokens, no earlier tokenizer is without them, or none occurs in the corpus.
        UndoError: The undo data is missing here.
        ModelError: The model cannot be loaded.
        LimitError: There is not enough memory for it.
    """
    rows, earlier = _choose(workspace, entry, tokens)
    loaded = load_model(entry.path)
    digest = blake3()
    sample = SnippetSample(loaded.tokenizer, rows.tokens, EACH, seed)
    with report_activity(on_progress, entry.name, "reading", corpus.size) as advance:
        for file in corpus.files:
            for block in read_blocks(file):
                texts = [text for _, text in block.texts]
                digest.update("\0".join([*texts, ""]).encode())
                sample.add(texts)
                advance(block.read)
    pairs = list(_pair(loaded, earlier, rows, sample.snippets()))
    occurring = {number for pair in pairs for number in pair.student} & rows.tokens.keys()
    if not pairs:
        hint = "distil with texts that have them"
        raise UsageError("none of the tokens to distil occurs in the corpus", where=corpus.name, hint=hint)
    learning = replace(rows, tokens={number: rows.tokens[number] for number in occurring})
    held_out = pairs[::_HELD_OUT] if len(pairs) > _HELD_OUT else []
    learnt_from = [pair for place, pair in enumerate(pairs) if place % _HELD_OUT or not held_out]
    measured = (held_out or pairs)[:_MEASURED]
    before, after, losses = _learn(loaded, learning, learnt_from, measured, steps, rate, batch_size, seed)
    names = tuple(learning.tokens[number] for number in learning.ids)
    provenance = {
        "command": "distil",
        "data": digest.hexdigest(),
        "teacher": earlier.revision,
        "snippets": len(pairs),
        "steps": steps,
        "learning_rate": rate,
        "batch_size": batch_size,
        "seed": seed,
        "distance": [before, after],
    }
    learned = read_rows(loaded.model, learning.ids)
    path = write_learned_rows(workspace, entry, message, names, learned, provenance)
    missing = tuple(token for number, token in rows.tokens.items() if number not in occurring)
    return DistilledRows(
        path, names, missing, earlier.revision, len(pairs), len(held_out), steps, before, after, losses
    )


def _choose(workspace: Workspace, entry: ModelEntry, tokens: str | Sequence[str]) -> tuple[NewRows, EarlierTokenizer]:
    rows = choose_rows(workspace, entry, tokens)
    earlier = find_earlier_tokenizer(workspace, entry, rows.tokens.values())
    if earlier is None:
        named = format_list(sorted(rows.tokens.values()), 3)
        hint = "train their rows instead: `tokmigrate train`"
        raise UsageError(f"the model never had a tokenizer without {named}", where=entry.name, hint=hint)
    new = {number: token for number, token in rows.tokens.items() if token not in earlier.tokenizer.ids}
    return replace(rows, tokens=new), earlier


def _pair(loaded: LoadedModel, earlier: EarlierTokenizer, rows: NewRows, snippets: Sequence[str]) -> Iterator[Pair]:
    """Yield the snippets that both tokenizers can be compared on."""
    teacher = open_tokenizer(earlier.tokenizer.document)
    longest = loaded.longest or float("inf")
    both = zip(tokenize_texts(loaded.tokenizer, snippets), tokenize_texts(teacher, snippets), strict=True)
    for here, there in both:
        known = [earlier.rows.get(number) for number in there.ids]
        known_rows = [row for row in known if row is not None]
        # A token of then may have gone, with its row.
        if len(known_rows) == len(known) <= longest and not rows.tokens.keys().isdisjoint(here.ids):
            places = _find_places(here, there, rows)
            if places or loaded.kind == "encoder":
                yield Pair(here.ids, known_rows, places)


def _find_places(here: TokenizedText, there: TokenizedText, rows: NewRows) -> list[tuple[int, int]]:
    first = next(place for place, number in enumerate(here.ids) if number in rows.tokens)
    shared = (here.ends.keys() & there.ends.keys()) if here.ends else ()
    return sorted((here.ends[end], there.ends[end]) for end in shared if here.ends[end] >= first)


def _learn(
    loaded: LoadedModel,
    rows: NewRows,
    pairs: Sequence[Pair],
    measured: Sequence[Pair],
    steps: int,
    rate: float,
    batch_size: int,
    seed: int,
) -> tuple[float, float, dict[int, float]]:
    """Learn the rows in place, and return the distance on `measured` before and after, and the loss by step."""
    import torch  # noqa: PLC0415

    torch.manual_seed(seed)
    trained = add_trainable_rows(loaded, rows)
    distillation = Distillation(loaded, trained, _read_pooling(loaded))
    pad = getattr(loaded.model.config, "pad_token_id", None) or 0
    batches = [measured[start : start + batch_size] for start in range(0, len(measured), batch_size)]
    before = measure_distance(distillation, batches, pad, loaded.device)
    losses = run_trainer(
        distillation,
        pairs,
        lambda batch: join_pairs(batch, pad),
        device=loaded.device,
        steps=steps,
        learning_rate=rate * float(loaded.input_rows.detach().float().square().mean().sqrt()),
        batch_size=batch_size,
        seed=seed,
    )
    after = measure_distance(distillation, batches, pad, loaded.device)
    trained.merge_and_unload()
    return before, after, losses


def _read_pooling(loaded: LoadedModel) -> Any:
    """Return how an encoder pools, as sentence-transformers' configuration has it; the mean where nothing says it."""
    path = loaded.directory / "1_Pooling" / "config.json"
    if loaded.kind == "causal" or not path.is_file():
        return "mean"
    config = json.loads(path.read_text("utf-8"))
    for pooling, name in (("mean", "pooling_mode_mean_tokens"), ("cls", "pooling_mode_cls_token")):
        if config.get(name):
            return pooling
    raise UsageError("the model pools in another way than by the mean or the first token", where=str(path))
