"""Is one model another with fewer or more tokens, as a trim or an extension leaves it, and what does text cost then?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tokmigrate.audit.run_status import read_snapshot
from tokmigrate.commands.diff import Side
from tokmigrate.errors import TokmigrateError, UsageError
from tokmigrate.events import OnProgress, no_progress, report_activity
from tokmigrate.model.documents.declared import state_without_weights
from tokmigrate.model.documents.state import CONFIG, ModelState
from tokmigrate.model.dummy_model import lacks_weights
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.token_meaning import TokenTexts
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.model.weights.tensor_rows import BLOCK_BYTES
from tokmigrate.model.worker.corpora import Corpus
from tokmigrate.operations.token_checks import find_lost, find_unreachable
from tokmigrate.plan.token_growth import CorpusGrowth, measure_growth
from tokmigrate.vocabulary.ids import runs
from tokmigrate.vocabulary.scripts import COMMON, find_main_script


@dataclass(frozen=True)
class ScriptTokens:
    """How many tokens are in a script before, how many of them are kept, and how many are added."""

    before: int
    kept: int
    added: int


@dataclass(frozen=True)
class RowComparison:
    """The rows of kept tokens in a tensor: how many differ in a bit, and the first token with such a row."""

    tensor: str
    rows: int
    differing: int
    first: str | None


@dataclass(frozen=True)
class VocabularyAudit:
    """What a second model is to a first.

    Args:
        moved: How many of the kept tokens have another id.
        out_of_order: The first kept token that has a lower id than the one before it, None where the order is the same.
        unreachable: The kept tokens that text produces before and not after, and the new ones that no text produces.
        scripts: The tokens by their script, those with the most first.
        rows: The vocabulary tensors, empty where they are not compared.
        unread: Why rows are not compared, None where they are.
    """

    tokens_before: int
    tokens_after: int
    kept: int
    moved: int
    out_of_order: str | None
    unreachable: tuple[str, ...]
    scripts: Mapping[str, ScriptTokens]
    rows: tuple[RowComparison, ...]
    unread: str | None
    growth: CorpusGrowth


def audit(before: Side, after: Side, corpus: Corpus, on_progress: OnProgress = no_progress) -> VocabularyAudit:
    """Return what a second model is to a first: its tokens, their rows, and how it tokenizes a corpus.

    Raises UsageError where the corpus cannot be read or has no text, FileProblems where it is not text, TokenizerError
    where a tokenizer cannot tokenize it.
    """
    first, second = (state_without_weights(side.documents, 0) for side in (before, after))
    old, new = first.tokenizer.ids, second.tokenizer.ids
    kept = [
        (token, number, new[token]) for token, number in sorted(old.items(), key=lambda item: item[1]) if token in new
    ]
    with report_activity(on_progress, after.name, "tokenizing the corpus", corpus.size) as count_bytes:
        growth = measure_growth(first, second, corpus, count_bytes)
    if not growth.groups:
        raise UsageError("the corpus has no text", where=corpus.name, hint="name files with text")
    rows, unread = _compare_rows(before, after, kept)
    return VocabularyAudit(
        tokens_before=len(old),
        tokens_after=len(new),
        kept=len(kept),
        moved=sum(number != place for _, number, place in kept),
        out_of_order=next((late[0] for early, late in pairwise(kept) if late[2] < early[2]), None),
        unreachable=_find_unreachable(first.tokenizer, second),
        scripts=_count_scripts(first.tokenizer, second.tokenizer),
        rows=rows,
        unread=unread,
        growth=growth,
    )


def _find_unreachable(before: Tokenizer, state: ModelState) -> tuple[str, ...]:
    after = state.tokenizer
    # An added token is matched before the model is asked.
    own = [token for token in after.vocabulary if token not in after.added]
    kept = {token: token for token in own if token in before.vocabulary and token not in before.added}
    new = [token for token in own if token not in before.ids]
    return find_lost(before, after, kept, state.traits.worker) + find_unreachable(state, new)


def _count_scripts(before: Tokenizer, after: Tokenizer) -> dict[str, ScriptTokens]:
    old, new = _scripts_of(before), _scripts_of(after)
    every, kept = Counter(old.values()), Counter(script for token, script in old.items() if token in new)
    added = Counter(script for token, script in new.items() if token not in old)
    names = sorted({*every, *added}, key=lambda name: (-every[name], name))
    return {name: ScriptTokens(every[name], kept[name], added[name]) for name in names}


def _scripts_of(tokenizer: Tokenizer) -> dict[str, str]:
    texts = TokenTexts(tokenizer.document)
    spelled = {token: token if token in tokenizer.added else texts.find_text(token) for token in tokenizer.ids}
    # A part of a character is of no script.
    return {token: COMMON if text is None else find_main_script(text) for token, text in spelled.items()}


Kept = tuple[str, int, int]
"""A token with its ids before and after."""


def _compare_rows(before: Side, after: Side, kept: Sequence[Kept]) -> tuple[tuple[RowComparison, ...], str | None]:
    if before.entry is None or after.entry is None:
        return (), "one of the two is not on disk"
    for side, entry in ((before, before.entry), (after, after.entry)):
        if lacks_weights(entry.path) or CONFIG not in side.documents:
            return (), f"{entry.path} has no weights"
    try:
        return tuple(_compare_tensors(read_snapshot(before.entry), read_snapshot(after.entry), kept)), None
    # A trim of somebody else need not be a sound model.
    except TokmigrateError as error:
        return (), str(error)


def _compare_tensors(before: Snapshot, after: Snapshot, kept: Sequence[Kept]) -> Iterator[RowComparison]:
    for tensor in before.tensors:
        other = after.tensors_by_name.get(tensor.name)
        if tensor.name != tensor.canonical or other is None:
            continue
        limits = tensor.window.ids(before.state.rows), other.window.ids(after.state.rows)
        pairs = sorted((each for each in kept if each[1] < limits[0] and each[2] < limits[1]), key=lambda each: each[2])
        if (tensor.dtype, tensor.row_bytes) != (other.dtype, other.row_bytes):
            yield RowComparison(tensor.name, len(pairs), len(pairs), pairs[0][0] if pairs else None)
            continue
        differing: list[str] = []
        with (
            before.weights.open_rows(tensor.name, tensor.axis) as old,
            after.weights.open_rows(other.name, other.axis) as new,
        ):
            size = max(1, BLOCK_BYTES // max(1, tensor.row_bytes))
            for some in (pairs[start : start + size] for start in range(0, len(pairs), size)):
                held = old.read_runs(runs(number for _, number, _ in some))
                found = new.read_runs(runs(number for _, _, number in some))
                different = np.flatnonzero((held != found).any(axis=1))
                differing += [some[int(place)][0] for place in different]
        yield RowComparison(tensor.name, len(pairs), len(differing), differing[0] if differing else None)
