"""Distils the rows of new tokens from the model as it was before them; the result is a migration.

Token distillation (arXiv 2505.20133): the model reads a text with its earlier tokenizer, and with the new one; only the
rows of new tokens learn, until it makes the same of both. Rows of other tokens, and the body, are what they were, so
teacher and student are one loaded model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokmigrate.commands.earlier_tokenizer import EarlierTokenizer, find_earlier_tokenizer
from tokmigrate.errors import ModelError, UsageError
from tokmigrate.events import OnProgress, no_progress, report_activity
from tokmigrate.formatting import format_list
from tokmigrate.init.file_strategy import LOSSES
from tokmigrate.model.tokenizer.library import open_tokenizer
from tokmigrate.model.worker.corpora import Corpus
from tokmigrate.model.worker.corpus_files import read_blocks
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.training import distillation
from tokmigrate.training.loaded_model import Kind, LoadedModel, load_models
from tokmigrate.training.new_rows import (
    NewRows,
    add_trainable_rows,
    build_optimizer,
    check_installed,
    check_learning_rate,
    choose_rows,
    read_rows,
    write_rows,
)
from tokmigrate.training.run_settings import DistilSettings, build_provenance
from tokmigrate.training.snippets import SnippetSample, write_snippets
from tokmigrate.training.text_ends import tokenize_texts
from tokmigrate.training.trainer import choose_examples, explain_errors, run_trainer

_RATES: Mapping[Kind, float] = {"causal": 0.03, "encoder": 0.1}
"""The learning rates by default; output rows learn too, and with more they become worse in a decoder that ties both."""

_HELD_OUT, _MEASURED = 10, 64
"""One snippet of so many is held out, and at most so many of those are measured."""


@dataclass(frozen=True)
class DistilledRows:
    """What distillation did.

    Args:
        path: The migration that holds the rows.
        tokens: The tokens whose rows were distilled.
        absent: Those that no snippet has that was learned from; they keep their rows.
        left_out: Special tokens that were not named, and tokens that every earlier tokenizer has; they keep theirs too.
        revision: The revision whose tokenizer was the teacher's, None for `base`.
        written: How many of the snippets the model wrote.
        held_out: How many snippets it did not learn from; of a few snippets none.
        before: The distance on those with the rows as they were; `after` with those that were learned. Where none are
            held out, it is measured on all.
        predictions: How far the chances of new tokens are from those of their pieces there, before and after, in nats;
            0 of an encoder, and where no snippet has text before a new token.
        losses: The loss by step.
    """

    path: Path
    tokens: tuple[str, ...]
    absent: tuple[str, ...]
    left_out: tuple[str, ...]
    revision: str | None
    snippets: int
    written: int
    held_out: int
    before: float
    after: float
    predictions: tuple[float, float]
    losses: Mapping[int, float] = field(repr=False)


def distil_rows(
    workspace: Workspace,
    entry: ModelEntry,
    corpus: Corpus | None,
    message: str,
    settings: DistilSettings,
    on_progress: OnProgress = no_progress,
) -> DistilledRows:
    """Distil the rows of new tokens, and write a migration that gives the model these rows.

    Args:
        corpus: What snippets are chosen from. A decoder writes those of tokens that it does not have, all without one.
        message: That of the migration.

    Raises:
        UsageError: There are no such tokens, no earlier tokenizer is without them, or there are no snippets with them.
        FileProblems: The corpus cannot be read.
        UndoError: The undo data is missing here.
        ModelError: The model cannot be loaded, or is an encoder and there is no corpus.
        LimitError: There is not enough memory for it.
    """
    check_installed()
    if settings.learning_rate is not None:
        check_learning_rate(settings.learning_rate)
    chosen = choose_rows(workspace, entry, settings.tokens)
    rows = _leave_out_special(entry, chosen) if isinstance(settings.tokens, str) else chosen
    earlier = find_earlier_tokenizer(workspace, entry, rows.tokens.values())
    rows = rows.only(number for number, token in rows.tokens.items() if token not in earlier.tokenizer.ids)
    left_out = tuple(token for number, token in chosen.tokens.items() if number not in rows.tokens)
    (loaded,) = load_models(entry.path)
    rate = settings.learning_rate or _RATES[loaded.kind]
    if corpus is None and loaded.kind == "encoder":
        hint = "give texts with the tokens: --corpus FILE"
        raise ModelError("it embeds texts, and cannot write snippets itself", where=str(entry.path), hint=hint)
    snippets = _choose_snippets(loaded, corpus, rows, settings, entry.name, on_progress) if corpus else []
    pairs = list(_pair(loaded, earlier, rows, snippets))
    chosen_count = len(pairs)
    lacking = sorted(rows.tokens.keys() - _find_tokens(pairs, rows))
    if lacking and loaded.kind == "causal":
        # As many as the steps can use.
        each = min(settings.snippets, settings.steps * settings.batch_size // len(lacking) + 1)
        with report_activity(on_progress, entry.name, "writing snippets"):
            written = list(write_snippets(loaded, earlier, lacking, each, settings.seed))
        pairs += _pair(loaded, earlier, rows, written)
    held_out = pairs[::_HELD_OUT] if len(pairs) > _HELD_OUT else []
    learnt_from = choose_examples(
        [pair for place, pair in enumerate(pairs) if place % _HELD_OUT or not held_out],
        lambda pair: rows.tokens.keys() & pair.student,
        settings.steps * settings.batch_size,
    )
    found = _find_tokens(learnt_from, rows)
    if not found:
        hint = "give texts with them, and more of them"
        raise UsageError("there are no snippets with the tokens", where=corpus.name if corpus else None, hint=hint)
    absent = tuple(token for number, token in rows.tokens.items() if number not in found)
    rows = rows.only(found)
    measured = (held_out or pairs)[:_MEASURED]
    held = read_rows(loaded.model, rows.ids)
    (before, said_before), (after, said_after), losses = _learn(
        loaded, rows, learnt_from, measured, settings, rate, entry.name, on_progress
    )
    predictions = (said_before, said_after) if any(pair.predicted for pair in measured) else (0.0, 0.0)
    provenance = {
        **build_provenance("distil", corpus, replace(settings, learning_rate=rate)),
        "teacher": earlier.revision,
        "distance": [before, after],
        "predictions": predictions,
        LOSSES: losses,
    }
    path = write_rows(workspace, entry, message, rows, held, loaded.model, provenance)
    counts = len(pairs), len(pairs) - chosen_count, len(held_out)
    return DistilledRows(
        path, rows.names, absent, left_out, earlier.revision, *counts, before, after, predictions, losses
    )


def _leave_out_special(entry: ModelEntry, rows: NewRows) -> NewRows:
    """Return the rows but those of special tokens, which stand for no text."""
    found = rows.only(rows.tokens.keys() - rows.special)
    if not found.tokens:
        named = format_list(sorted(rows.tokens.values()), 3)
        hint = "train their rows instead: `tokmigrate train`; or name them with --token to distil their spelling"
        raise UsageError(f"special tokens stand for no text: {named}", where=entry.name, hint=hint)
    return found


def _choose_snippets(
    loaded: LoadedModel,
    corpus: Corpus,
    rows: NewRows,
    settings: DistilSettings,
    name: str,
    on_progress: OnProgress,
) -> list[str]:
    sample = SnippetSample(loaded.tokenizer, rows.tokens, settings.snippets, settings.seed)
    with report_activity(on_progress, name, "reading", corpus.size) as advance:
        for file in corpus.files:
            for block in read_blocks(file):
                sample.add([text for _, text in block.texts])
                advance(block.read)
    return sample.snippets()


def _pair(
    loaded: LoadedModel, earlier: EarlierTokenizer, rows: NewRows, snippets: Sequence[str]
) -> Iterator[distillation.Pair]:
    """Yield the snippets that both tokenizers can be compared on."""
    teacher = open_tokenizer(earlier.tokenizer.document)
    longest = loaded.longest or float("inf")
    both = zip(tokenize_texts(loaded.tokenizer, snippets), tokenize_texts(teacher, snippets), strict=True)
    for here, there in both:
        known = [earlier.rows.get(number) for number in there.ids]
        known_rows = [row for row in known if row is not None]
        # A token of then may have gone, with its row.
        if len(known_rows) == len(known) <= longest and not rows.tokens.keys().isdisjoint(here.ids):
            shared = {here.ends[end]: there.ends[end] for end in here.ends.keys() & there.ends.keys()}
            first = next(place for place, number in enumerate(here.ids) if number in rows.tokens)
            places = sorted(both for both in shared.items() if both[0] >= first)
            predicted = {
                place - 1: (shared[place - 1], shared[place] - 1)
                for place in shared
                if here.ids[place] in rows.tokens and place - 1 in shared
            }
            if places or loaded.kind == "encoder":
                yield distillation.Pair(here.ids, known_rows, places, predicted)


def _find_tokens(pairs: Sequence[distillation.Pair], rows: NewRows) -> set[int]:
    return {number for pair in pairs for number in pair.student} & rows.tokens.keys()


def _learn(
    loaded: LoadedModel,
    rows: NewRows,
    pairs: Sequence[distillation.Pair],
    measured: Sequence[distillation.Pair],
    settings: DistilSettings,
    rate: float,
    name: str,
    on_progress: OnProgress,
) -> tuple[tuple[float, float], tuple[float, float], dict[int, float]]:
    """Learn the rows in place, and return what is measured on `measured` before and after, and the loss by step."""
    trained = add_trainable_rows(loaded, rows)
    student = distillation.Distillation(loaded, trained, rows.ids)
    pad = getattr(loaded.model.config, "pad_token_id", None) or 0
    with explain_errors(name):
        before = distillation.measure_distance(student, measured, settings.batch_size, pad, loaded.device)
        losses = run_trainer(
            student,
            pairs,
            lambda batch: distillation.join_pairs(batch, pad),
            loaded=loaded,
            name=name,
            longest=max(len(pair.student) + len(pair.teacher) for pair in pairs),
            settings=settings,
            optimizer=build_optimizer(trained, rate),
            on_progress=on_progress,
        )
        after = distillation.measure_distance(student, measured, settings.batch_size, pad, loaded.device)
    trained.merge_and_unload()
    return before, after, losses
