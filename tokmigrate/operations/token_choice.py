"""Which tokens stay if a corpus says how often each is needed: the rarest go first, if they may go."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Literal

from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.tokenizer.token_meaning import TokenTexts
from tokmigrate.operations.token_closure import MergeTrees, required_tokens

Reason = Literal["structural", "role", "template", "keep", "dependency", "corpus", "rest"]
"""Why a token stays; `rest` where nothing asked for it to go."""


@dataclass(frozen=True)
class Wanted:
    """How many tokens stay, or which. At most one of these is given; without one all stay that are not to be dropped.

    Args:
        tokens: That many in all.
        min_count: Those that occur so often.
        coverage: So many that they are this share of the tokens of the corpus.
    """

    tokens: int | None = None
    min_count: int | None = None
    coverage: float | None = None


def choose_tokens(
    state: ModelState,
    counts: Mapping[str, float],
    wanted: Wanted,
    stay: Mapping[str, Reason],
    drop: Set[str] = frozenset(),
) -> dict[str, Reason]:
    """Return the tokens that stay, each with the reason.

    The rarest tokens go first, of equal ones the highest id. A token of a BPE goes only when no token that stays is
    merged from it, and its count goes to the two tokens that it is then tokenized as. So a token to drop stays where a
    token that stays needs it, and where it must stay.

    Args:
        counts: How often each token occurs.
        stay: The tokens that stay anyhow, with the reason.
        drop: The tokens that go however often they occur.
    """
    ids, trees = state.tokenizer.ids, MergeTrees(state.tokenizer)
    fixed: dict[str, Reason] = {**dict.fromkeys(_find_letters(state, counts), "structural"), **stay}
    fixed |= required_tokens(state)
    held: dict[str, float] = {token: counts.get(token, 0) for token in ids}
    total = sum(held.values())
    halves = {token: trees.halves(token) or () for token in ids}
    uses: dict[str, int] = defaultdict(int)
    for parts in halves.values():
        for part in parts:
            uses[part] += 1
    queue = [
        (token not in drop, held[token], -ids[token], token) for token in ids if token not in fixed and not uses[token]
    ]
    heapq.heapify(queue)
    left, lost = len(ids), 0.0
    while queue:
        is_rare, count, _, token = heapq.heappop(queue)
        if is_rare and _is_enough(wanted, left, count, 1 - (lost + count) / total if total else 1.0):
            break
        left, lost = left - 1, lost + count
        del held[token]
        for part in halves[token]:
            held[part] += count
            uses[part] -= 1
            if not uses[part] and part not in fixed:
                heapq.heappush(queue, (part not in drop, held[part], -ids[part], part))
    return {
        token: fixed.get(token)
        or ("corpus" if held[token] and token not in drop else "dependency" if uses[token] else "rest")
        for token in held
    }


def _is_enough(wanted: Wanted, left: int, count: float, coverage: float) -> bool:
    """Return whether the next token stays, which occurs `count` times."""
    if wanted.tokens is not None:
        return left <= wanted.tokens
    if wanted.coverage is not None:
        return coverage < wanted.coverage
    return count >= (wanted.min_count or 0)


def _find_letters(state: ModelState, counts: Mapping[str, float]) -> Iterator[str]:
    """Yield the tokens of one letter that the text of the corpus has; without them it could become unknown."""
    texts = TokenTexts(state.tokenizer.document)
    letters = {letter for token, count in counts.items() if count for letter in texts.without_affixes(token)}
    return (token for token in state.tokenizer.vocabulary if texts.without_affixes(token) in letters)
