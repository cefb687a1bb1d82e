"""Measures a model on text beside what it was before its migrations, or beside what pending ones would make of it."""

from __future__ import annotations

import shlex
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, islice
from math import isfinite, log1p
from pathlib import Path
from threading import Lock

from tokmigrate.audit.run_status import read_snapshot
from tokmigrate.commands.evaluations import digest_contents
from tokmigrate.commands.plan import plan
from tokmigrate.commands.staged_model import open_earlier_model, open_later_model
from tokmigrate.errors import AlreadyThereError, BusyError, ModelError, UsageError, VerificationError
from tokmigrate.events import OnProgress, no_progress, report_activity
from tokmigrate.files import has_directory
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.worker.corpora import Corpus
from tokmigrate.model.worker.corpus_files import read_blocks
from tokmigrate.plan.plan import Plan
from tokmigrate.revision.migration import KlAtMost
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.training.aligned_windows import cut_windows, tokenize
from tokmigrate.training.embeddings import Embeddings, EncoderMeasure
from tokmigrate.training.loaded_model import Kind, LoadedModel, load_models, silence_libraries
from tokmigrate.training.next_tokens import DecoderMeasure, NextTokens
from tokmigrate.training.token_match import TokenMatch, match_tokens
from tokmigrate.vocabulary.ids import expand

BASE = "base"
_LONGEST: Mapping[Kind, int] = {"causal": 1024, "encoder": 512}
"""The tokens of a window, fewer where the model takes fewer."""
_GROUP = 64
"""How many texts are tokenized at once."""
_ALONE = Lock()
"""With `-j N` one check runs at a time: it takes most of the memory, and sets what holds for all threads."""


@dataclass
class Counts:
    """What was read of a corpus.

    Args:
        texts: How many texts; `same` is how many have no new token and the same tokens.
        tokens_before: The tokens of the texts before, without those put around them; `tokens_after` likewise.
    """

    texts: int = 0
    same: int = 0
    text_bytes: int = 0
    tokens_before: int = 0
    tokens_after: int = 0


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a corpus before and after.

    Args:
        before: What is compared, as a user calls it; `after` likewise.
        kind: Whether it predicts tokens or embeds texts.
        population: The baseline's rows that are still there, over which `mean` takes the mean.
        retrained: The files that were trained or rewritten since, of which the model before has what is there now.
        contents: What the model was when it was measured, as `digest_contents` has it.
    """

    model: str
    before: str
    after: str
    corpus: str
    kind: Kind
    device: str
    dtype: str
    counts: Counts
    match: TokenMatch = field(repr=False)
    population: int
    retrained: tuple[str, ...]
    next_tokens: NextTokens | None
    embeddings: Embeddings | None
    contents: str

    @property
    def bound(self) -> float:
        """What KL new rows of `mean` can cost at most on text without new tokens, in nats."""
        return log1p(len(self.match.added) / self.population) if self.population else 0.0


@dataclass(frozen=True)
class _Pair:
    """Two models to compare: directories, names, and the row after of each row before that migrations keep."""

    directories: tuple[Path, Path]
    names: tuple[str, str]
    rows: Mapping[int, int] | None = None
    retrained: tuple[str, ...] = ()
    now: int = 1


def evaluate(
    workspace: Workspace,
    entry: ModelEntry,
    corpus: Corpus,
    *,
    old: str | None = None,
    to: str | None = None,
    limit: int | None = None,
    on_progress: OnProgress = no_progress,
) -> Evaluation:
    """Return what a model makes of a corpus, before and after.

    Args:
        old: A revision that the model had, or a directory of a model; by default what it was before all migrations.
        to: A revision that it does not have yet: then the model as it is comes before, and what an upgrade would leave
            after.
        limit: Read no more bytes of text than about this.

    Raises:
        UsageError: No text of the corpus has anything to measure.
        ModelError: A model cannot be loaded, or predicts no next token, or the two are of different kinds.
        BusyError: The model was changed while it was read.
        LimitError: There is not enough memory for both.
        UndoError: The undo data of the earlier revision is missing here.
    """
    snapshot = read_snapshot(entry)
    with _open_pair(workspace, entry, snapshot, old, to) as pair:
        return _measure_pair(entry.name, snapshot, pair, corpus, limit, on_progress)


def check_predictions(plan: Plan, directory: Path, on_progress: OnProgress) -> None:
    """Check what `verify:` says about the predictions of a model; `directory` is what its upgrade would leave.

    Raises:
        VerificationError: A check does not hold, or there is nothing to check it with.
        ModelError: The model cannot be loaded.
        LimitError: There is not enough memory for it before and after.
    """
    names = (f"{plan.model} at {plan.before or BASE}", f"{plan.model} at {plan.after}")
    pair = _Pair((plan.snapshot.directory, directory), names, plan.edit.positions(), now=0)
    for migration, check in ((step.migration, check) for step in plan.steps for check in step.migration.checks):
        if isinstance(check, KlAtMost):
            with _ALONE, check.open_corpus() as corpus:
                found = _measure_pair(plan.model, plan.snapshot, pair, corpus, None, on_progress)
            fault = _find_fault(check, found)
            if fault is not None:
                file = Path(migration.shown).parent / check.corpus
                words = ("--model", plan.model, "--to", plan.after or BASE, "--corpus", str(file))
                command = shlex.join(("tokmigrate", "evaluate", *words))
                hint = f"nothing was changed; `{command}` shows more"
                raise VerificationError(f"a `verify:` case does not hold: {fault}", where=plan.model, hint=hint)


def _find_fault(check: KlAtMost, found: Evaluation) -> str | None:
    if found.next_tokens is None:
        return "the model embeds texts, and has no predictions that `kl_at_most` could measure"
    nats = found.next_tokens.divergence.nats
    if nats is None:
        return f"{check.corpus} has no text without new tokens to measure `kl_at_most` on"
    return None if nats <= check.nats else f"the KL on {check.corpus} is {nats:.4g} nats, more than {check.nats:g}"


def _measure_pair(
    model: str, snapshot: Snapshot, pair: _Pair, corpus: Corpus, limit: int | None, on_progress: OnProgress
) -> Evaluation:
    contents = digest_contents(snapshot)
    with report_activity(on_progress, model, "reading"):
        # Of what neither can do the model itself is named, not a copy in the work area.
        directories = list(dict.fromkeys((pair.directories[pair.now], *pair.directories)))
        loaded = dict(zip(directories, load_models(*directories), strict=True))
    stamp = read_stamp(snapshot.directory)
    if (stamp.generation if stamp else None) != snapshot.generation:
        raise BusyError("it was changed while it was read", where=model, hint="run the command again")
    before, after = (loaded[directory] for directory in pair.directories)
    if before.kind != after.kind:
        hint = "name a model of the same kind with --old"
        raise ModelError(f"it is no {after.kind} model", where=str(before.directory), hint=hint)
    match = match_tokens(before, after, pair.rows)
    counts = Counts()
    with silence_libraries(), report_activity(on_progress, model, "measuring the model", corpus.size) as count_bytes:
        kind = DecoderMeasure if after.kind == "causal" else EncoderMeasure
        measure = kind(before, after, match, count_bytes)
        for texts, read in _read_texts(corpus, limit):
            _measure(texts, read, (before, after), match, measure, counts)
        measure.finish()
    if not all(map(isfinite, measure.found.sums)):
        hint = "`tokmigrate report` names rows that hold one"
        raise ModelError("an infinity or a NaN comes out of the model before or after", where=model, hint=hint)
    if not counts.texts:
        raise UsageError("no line of it has text", where=corpus.name, hint="give a text file, a line for each text")
    kept = {pair_of_rows[pair.now] for pair_of_rows in match.outputs}
    return Evaluation(
        model=model,
        before=pair.names[0],
        after=pair.names[1],
        corpus=corpus.name,
        kind=after.kind,
        device=str(after.device),
        dtype=str(after.dtype).removeprefix("torch."),
        counts=counts,
        match=match,
        population=len(kept.intersection(expand(snapshot.state.population))),
        retrained=pair.retrained,
        next_tokens=measure.found if isinstance(measure.found, NextTokens) else None,
        embeddings=measure.found if isinstance(measure.found, Embeddings) else None,
        contents=contents,
    )


def _measure(
    texts: list[str],
    read: int,
    sides: tuple[LoadedModel, LoadedModel],
    match: TokenMatch,
    measure: DecoderMeasure | EncoderMeasure,
    counts: Counts,
) -> None:
    longest = min(_LONGEST[sides[0].kind], *(side.longest for side in sides if side.longest))
    for text, old, new in zip(texts, *(tokenize(side.tokenizer, texts) for side in sides), strict=True):
        counts.texts += 1
        counts.text_bytes += len(text.encode())
        counts.tokens_before += len(old.ids)
        counts.tokens_after += len(new.ids)
        counts.same += match.is_same(old.ids, new.ids)
        cut = (window for window in cut_windows(text, (old, new), longest) if all(window.ids))
        windows = list(islice(cut, 1) if isinstance(measure, EncoderMeasure) else cut)
        for window in windows:
            measure.add(window, read // len(windows))


def _read_texts(corpus: Corpus, limit: int | None) -> Iterator[tuple[list[str], int]]:
    """Yield some texts, and how many bytes of the files were read for each."""
    done = 0
    for file in corpus.files:
        for block in read_blocks(file):
            texts = [text for _, text in block.texts]
            for start in range(0, len(texts), _GROUP):
                group = texts[start : start + _GROUP]
                sizes = list(accumulate((len(text.encode()) for text in group), initial=done))[1:]
                if limit is not None:
                    group = group[: bisect_left(sizes, limit) + 1]
                yield group, block.read // len(texts)
                done = sizes[len(group) - 1]
                if limit is not None and done >= limit:
                    return


@contextmanager
def _open_pair(
    workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, old: str | None, to: str | None
) -> Iterator[_Pair]:
    here = f"{entry.name} at {snapshot.revision or BASE}"
    if to is not None:
        planned = plan(workspace, entry, to)
        if not planned.steps:
            message = f"nothing to upgrade: the model is already at '{to}'"
            raise AlreadyThereError(message, where=entry.name, hint="leave out --to")
        with open_later_model(workspace, entry, planned) as staged:
            names = (here, f"{entry.name} at {staged.revision}")
            yield _Pair((entry.path, staged.directory), names, staged.rows, now=0)
        return
    known = workspace.models.get(old or "")
    other = known.path if known else Path(old) if old is not None and has_directory(Path(old)) else None
    if other is None and "/" in (old or ""):
        raise UsageError("there is no such directory", where=old, hint="name a model, its directory or a revision")
    if other is not None:
        yield _Pair((other, entry.path), (str(old), here))
    elif old is None and snapshot.revision is None:
        yield _Pair((entry.path, entry.path), (here, here))
    else:
        with open_earlier_model(workspace, entry, old or BASE) as staged:
            rows = {earlier: now for now, earlier in staged.rows.items()}
            names = (f"{entry.name} at {staged.revision or BASE}", here)
            yield _Pair((staged.directory, entry.path), names, rows, staged.changed)
