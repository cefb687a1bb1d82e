"""Learns merges from a corpus, and writes the migration that appends them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from tokmigrate.commands.diff import Side
from tokmigrate.errors import UsageError
from tokmigrate.events import OnProgress, no_progress, report_activity
from tokmigrate.formatting import format_bytes
from tokmigrate.model.documents.declared import state_without_weights
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Merge, find_spaced, model_kind
from tokmigrate.model.worker.corpora import Corpus
from tokmigrate.model.worker.worker import stream_worker
from tokmigrate.operations.extend_vocab import SUBTOKENS, Reuse, reachable_merges
from tokmigrate.operations.operation import Context
from tokmigrate.operations.registry import operation_types
from tokmigrate.plan.token_growth import CorpusGrowth, measure_growth
from tokmigrate.revision.new_file import file_name, write_yaml_migration
from tokmigrate.settings import Workspace
from tokmigrate.vocabulary.scripts import resolve_script

STEPS = 10
"""In how many parts the merges are reported."""

_NEXT, _WORTH = 1_000, 0.01


@dataclass(frozen=True)
class MergeLimits:
    """Which merges are learned.

    Args:
        min_count: How often a merge must apply in the corpus.
        max_length: The most letters of a new token, as the vocabulary spells it.
        scripts: The scripts that the characters of a new token must be of, besides those of no script; any without one.
    """

    min_count: int = 2
    max_length: int = 24
    scripts: Sequence[str] = ()


@dataclass(frozen=True)
class LearnedMerges:
    """Merges that were learned from a corpus, and the migration that appends them.

    Args:
        path: The migration.
        merges_file: The file with the merges, beside it.
        text_bytes: The bytes of text in the corpus.
        held_out: What the merges make of the texts that were held out.
        saved: The tokens that each merge saves there, in the order of their ranks.
    """

    path: Path
    merges_file: Path
    new_tokens: int
    text_bytes: int
    held_out: CorpusGrowth
    saved: tuple[int, ...]

    @property
    def steps(self) -> tuple[tuple[int, int], ...]:
        """How many merges and the tokens that they save, for a growing number of merges."""
        ends = dict.fromkeys(-(-len(self.saved) * step // STEPS) for step in range(1, STEPS + 1))
        return tuple((end, self._totals[end]) for end in ends)

    @property
    def worth(self) -> int | None:
        """The number of merges from which the next 1,000 save less than 1 % of the tokens; None where none are left."""
        least = _WORTH * self.held_out.whole.tokens_before
        pairs = enumerate(zip(self._totals, self._totals[_NEXT:], strict=False))
        return next((start for start, (before, after) in pairs if after - before < least), None)

    @cached_property
    def _totals(self) -> tuple[int, ...]:
        """What the first 0, 1, 2, … merges save together."""
        return tuple(accumulate(self.saved, initial=0))


def learn_extension(
    workspace: Workspace,
    side: Side,
    corpus: Corpus,
    tokens: int,
    message: str,
    *,
    limits: MergeLimits,
    on_progress: OnProgress = no_progress,
) -> LearnedMerges:
    """Learn merges from a corpus, and write a migration that appends them, planned on the tokenizer's files.

    Args:
        side: The tokenizer, and the model of the workspace that has it.
        tokens: How many new tokens are wanted; fewer are learned where the corpus has no more.

    Raises:
        UsageError: The tokenizer is no BPE, a name means no script, or nothing can be learned.
        FileProblems: A file of the corpus is not text.
    """
    state = state_without_weights(side.documents, 0)
    with report_activity(on_progress, side.name, "learning from the corpus", 2 * corpus.size) as count_bytes:
        learned = learn_merges(state, corpus, tokens, count_bytes, where=side.name, limits=limits)
        name, text = format_merges(workspace, message, tuple(learned.saved))
        operation = operation_types()["extend_vocab"].model_validate({"merges_file": name, "init": SUBTOKENS})
        # Nothing is written that cannot be applied.
        after = operation.with_listed({name: text.encode()}).apply(state, Context("0000"))
        held_out = measure_growth(state, after, corpus, count_bytes, held_out_alone=True)
    remarks = [f"Learned from {format_bytes(learned.text_bytes)} of text. {held_out.describe()}"]
    path = write_yaml_migration(
        workspace, message, (operation,), remarks=remarks, models=side.models, attachments={name: text}
    )
    new_tokens = len(after.tokenizer.ids) - len(state.tokenizer.ids)
    merges_file, saved = path.parent / name, tuple(learned.saved.values())
    return LearnedMerges(path, merges_file, new_tokens, learned.text_bytes, held_out, saved)


@dataclass(frozen=True)
class CorpusMerges:
    """Merges that a corpus has, in the order of their ranks, with the tokens that each saves in what is held out."""

    saved: Mapping[Merge, int]
    text_bytes: int


def learn_merges(
    state: ModelState,
    corpus: Corpus,
    tokens: int,
    count_bytes: Callable[[int], None],
    *,
    where: str,
    limits: MergeLimits = MergeLimits(),
    reuse: Reuse = None,
) -> CorpusMerges:
    """Return merges that a corpus has, without those that make tokens which no text produces.

    Args:
        where: What the user calls the tokenizer.

    Other arguments and errors are those of `learn_extension`, and `reuse` that of `extend_vocab`.
    """
    document = state.documents[FILE]
    if model_kind(document) != "BPE":
        hint = "only a BPE learns merges; whole words can be added with add_words"
        raise UsageError(f"a {model_kind(document)} tokenizer has no merges", where=where, hint=hint)
    # A tokenizer that takes no merges is refused before the corpus is read.
    reachable_merges(state, (), reuse)
    request: dict[str, Any] = {
        "files": corpus.request(),
        "document": document,
        "added": [number for _, number in state.tokenizer.added.values()],
        "tokens": tokens,
        "min_count": limits.min_count,
        "max_length": limits.max_length,
        "scripts": [resolve_script(name) for name in limits.scripts],
    }
    answer = stream_worker("learn_merges", request, count_bytes, state.traits.worker)
    saved = {(left, right): count for left, right, count in answer["merges"]}
    merges = reachable_merges(state, tuple(saved), reuse) if saved else ()
    if not merges:
        hint = f"give more text{' of that script' if limits.scripts else ''}, or a smaller --min-count"
        raise UsageError("the corpus has no merge to learn", where=corpus.name, hint=hint)
    return CorpusMerges({merge: saved[merge] for merge in merges}, answer["text_bytes"])


def format_merges(workspace: Workspace, message: str, merges: Sequence[Merge]) -> tuple[str, str]:
    """Return the name and the text of the file with the merges of a new migration."""
    is_plain = find_spaced(merges) is None
    name = file_name(workspace, message, ".merges" if is_plain else ".merges.json")
    text = "".join(f"{left} {right}\n" for left, right in merges) if is_plain else json.dumps(merges, indent=1)
    return name, text
