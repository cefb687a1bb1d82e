"""Which tokens the report has a line for, and what is at each id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tokmigrate.audit.training import TokenTraining
from tokmigrate.model.documents.roles import ROLES, special_token
from tokmigrate.model.documents.state import Made
from tokmigrate.model.formats.byte_letters import is_byte_level, text_of_letters
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE, FLAGS
from tokmigrate.runner.reporting.data import Kind, ReportedToken
from tokmigrate.runner.reporting.lives import Life, Lives
from tokmigrate.state.rows import TokenEventType
from tokmigrate.vocabulary.tokens import is_tombstone

_KIND_OF: Mapping[TokenEventType, Kind] = {
    TokenEventType.ADDED: "added",
    TokenEventType.REINITIALISED: "reinitialised",
    TokenEventType.RENAMED: "renamed",
    TokenEventType.MOVED: "moved",
}
"""The first of these that befell a token is what it is shown as."""


_WELL_KNOWN = str.maketrans("", "", "ĠĊĉč")
"""The letters for space, line feed, tab and carriage return, which readers of vocabularies know."""


def made_rows(snapshot: Snapshot) -> dict[int, Made]:
    """Return the rows that migrations made, as the stamp remembers them."""
    # One that only the shorter tensors got has no revision there: the others had it before.
    return {row: made for row, made in snapshot.state.lineage.fresh() if isinstance(made, Made) and made.revision}


def kinds_of(snapshot: Snapshot, lives: Lives) -> Iterator[Kind]:
    """Yield what is at each id, from 0; where the ledger is silent, the stamp tells what is not of the baseline."""
    state = snapshot.state
    texts, made = state.tokenizer.texts, made_rows(snapshot)
    moved = {
        row for start, piece in state.lineage.kept() if piece.start != start for row in range(start, start + len(piece))
    }
    for number in range(max(state.rows, max(texts, default=-1) + 1)):
        text = texts.get(number)
        life = {event.event for event in lives.by_id.get(number, ())}
        if text is None:
            yield "spare"
        elif is_tombstone(text):
            yield "tombstone"
        else:
            told = next((kind for happened, kind in _KIND_OF.items() if happened in life), None)
            yield told or ("added" if number in made else "moved" if number in moved else "base")


def reported_tokens(
    snapshot: Snapshot, lives: Lives, kinds: tuple[Kind, ...], training: Mapping[int, TokenTraining]
) -> Iterator[ReportedToken]:
    """Yield the tokens that migrations touched and all added ones, by id, then those that are gone."""
    tokenizer, made = snapshot.state.tokenizer, made_rows(snapshot)
    roles = _roles(snapshot)
    for number, text in sorted(tokenizer.texts.items()):
        added = tokenizer.token(text)
        if kinds[number] == "base" and added is None and text not in roles:
            continue
        life = lives.by_id.get(number, ())
        revision = life[-1].revision if life else made[number].revision if number in made else None
        yield ReportedToken(
            text,
            number,
            kinds[number],
            tuple(flag for flag in FLAGS if added is not None and getattr(added, flag)),
            roles.get(text, ()),
            life,
            revision,
            training.get(number) if kinds[number] != "tombstone" else None,
        )
    buried = {removal for number, life in lives.by_id.items() if kinds[number] == "tombstone" for removal in _end(life)}
    for life in lives.removed:
        if not buried.intersection(_end(life)):
            yield ReportedToken(life[-1].token, None, "removed", (), (), life, life[-1].revision, None)


def readings_of(snapshot: Snapshot) -> dict[int, str]:
    """Return what tokens stand for, by id, where they are written in letters for bytes that only a table can read."""
    if not is_byte_level(snapshot.state.documents[FILE]):
        return {}
    tokenizer = snapshot.state.tokenizer
    return {
        number: text_of_letters(token)
        for token, number in tokenizer.vocabulary.items()
        if token not in tokenizer.added and not token.translate(_WELL_KNOWN).isascii()
    }


def _end(life: Life) -> list[tuple[str, str]]:
    """Return the removal in a life, as revision and token."""
    return [(event.revision, event.token) for event in life if event.event is TokenEventType.REMOVED]


def _roles(snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
    """Return the special roles of each token that has one."""
    found: dict[str, tuple[str, ...]] = {}
    for role in ROLES:
        text = special_token(snapshot.state, role)
        if text is not None:
            found[text] = (*found.get(text, ()), role)
    return found
