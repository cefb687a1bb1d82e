"""Which rows are still as a migration began them."""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3

from tokmigrate.model.snapshot import Snapshot
from tokmigrate.runner.reporting.lives import Life, lives_of
from tokmigrate.runner.reporting.matrices import embeddings, opened
from tokmigrate.state.rows import TokenEvent


def birth(life: Life) -> str | None:
    """Return the digest of the row that the token was given last, None where the ledger has none."""
    return next((event.row_digest for event in reversed(life) if event.row_digest is not None), None)


def untrained_tokens(snapshot: Snapshot, events: Iterable[TokenEvent]) -> frozenset[str]:
    """Return the tokens whose rows in the input embeddings have the bytes that a migration gave them.

    Args:
        snapshot: The model as it is.
        events: The ledger's events of the revisions that it has.
    """
    tensor = embeddings(snapshot)
    if tensor is None or snapshot.stamp is None:
        return frozenset()
    texts = snapshot.state.tokenizer.texts
    lives = lives_of(events, (revision for revision, _ in snapshot.stamp.applied)).by_id
    begun = {number: digest for number, life in lives.items() if (digest := birth(life)) and number in texts}
    ids = tensor.window.ids(snapshot.state.rows)
    with opened(snapshot, tensor) as rows:
        return frozenset(
            texts[number]
            for number, digest in begun.items()
            if number < ids and blake3(rows.read_run(number, number + 1).tobytes()).hexdigest() == digest
        )
