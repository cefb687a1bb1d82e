"""What a plan does to a corpus, measured."""

from __future__ import annotations

from pathlib import Path

from tokmigrate.errors import UsageError
from tokmigrate.events import CorpusMeasured, CorpusOpened, CorpusRead, Listener, ignore
from tokmigrate.model.probe.ask import ask_at_length
from tokmigrate.model.probe.corpus import corpus_bytes
from tokmigrate.plan.impact import Impact
from tokmigrate.plan.measurement import Measurement
from tokmigrate.plan.upgrade import Plan


def measure(plan: Plan, corpus: Path, listener: Listener = ignore) -> Impact | None:
    """Return what a plan does to a corpus, None where no migration of it can do anything to a text.

    The corpus is read once, and not held; nothing is written.

    Args:
        plan: The plan.
        corpus: A text file in UTF-8, a line for each text.
        listener: Told how far the reading is.

    Raises:
        UsageError: The corpus cannot be read, or has no text.
        FileProblems: A line of it is not UTF-8, or too long.
        TokenizerError: A tokenizer cannot be loaded, or cannot cut a line.
        LimitError: It needs more than a worker may have.
    """
    size = corpus_bytes(corpus)
    measurement = Measurement.of(plan)
    if not measurement.is_needed:
        return None
    listener(CorpusOpened(plan.model, size))
    try:
        answer = ask_at_length(
            "impact",
            measurement.request(str(corpus)),
            lambda count: listener(CorpusRead(plan.model, count)),
            plan.snapshot.state.traits.worker,
        )
    finally:
        listener(CorpusMeasured(plan.model))
    impact = measurement.impact(str(corpus), answer)
    if not impact.lines:
        raise UsageError("no line of it has text", where=str(corpus), hint="give a text file, a line for each text")
    return impact
