"""What the lock file holds, as values: the migrations in order, and the ids that they give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from tokmigrate.errors import DriftError
from tokmigrate.revision.migration import Migration

FILE = "tokmigrate.lock"

_HINT = (
    "the tokenizer was changed between two migrations, or another tokmigrate wrote the lock: put the tokenizer back; "
    f"only if other ids are meant, delete {FILE} and let `tokmigrate lock` write it from models at base"
)


@dataclass(frozen=True)
class Locked:
    """A migration as the lock knows it.

    Args:
        revision: Its id.
        checksum: What identifies its contents.
        line: Where the file says so, counting from 1.
    """

    revision: str
    checksum: str
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class PinnedIds:
    """The ids that a migration gives on one base tokenizer.

    Args:
        revision: The migration.
        fingerprint: That of the tokenizer afterwards.
        new_ids: Each id that a text gets that was no token before, in rising order.
        line: Where the file says so, counting from 1.
    """

    revision: str
    fingerprint: str
    new_ids: tuple[tuple[int, str], ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class LockTrack:
    """A base tokenizer, and what the migrations for it make of its ids, in their order.

    Args:
        fingerprint: That of the base tokenizer.
        pins: One for each migration that is applied to it.
        line: Where the file says so, counting from 1.
    """

    fingerprint: str
    pins: tuple[PinnedIds, ...] = ()
    line: int = field(default=0, compare=False)

    @property
    def revisions(self) -> tuple[str, ...]:
        """The migrations that are applied to it."""
        return tuple(pinned.revision for pinned in self.pins)

    def begins(self, other: LockTrack) -> bool:
        """Return whether `other` has the same base and begins with the same migrations."""
        return self.fingerprint == other.fingerprint and other.revisions[: len(self.pins)] == self.revisions


@dataclass(frozen=True)
class Lock:
    """What the file says.

    Args:
        revisions: The migrations from the first to the head.
        tracks: The base tokenizers that ids are pinned for.
    """

    revisions: tuple[Locked, ...] = ()
    tracks: tuple[LockTrack, ...] = ()

    @property
    def head(self) -> str:
        """The last revision, or `base`."""
        return self.revisions[-1].revision if self.revisions else "base"

    def holding(self, chain: Sequence[Migration]) -> Lock:
        """Return the part that holds for these migrations: up to the first that it knows otherwise."""
        pairs = zip(self.revisions, chain, strict=False)
        kept = [locked for locked, _ in takewhile(lambda pair: pair[0] == build_locked(pair[1]), pairs)]
        known = {locked.revision for locked in kept}
        cut = (
            LockTrack(track.fingerprint, tuple(takewhile(lambda each: each.revision in known, track.pins)), track.line)
            for track in self.tracks
        )
        return Lock(tuple(kept), longest(track for track in cut if track.pins))

    def append_migration(self, migration: Migration) -> Lock | None:
        """Return the lock with one more migration, None where it does not follow the last one here."""
        if migration.down_revision != (self.revisions[-1].revision if self.revisions else None):
            return None
        return Lock((*self.revisions, build_locked(migration)), self.tracks)

    def find_pins(self, fingerprint: str, revisions: Sequence[str]) -> PinnedIds | None:
        """Return what is pinned for the last of `revisions`, applied in this order to a base; None for nothing."""
        wanted = tuple(revisions)
        for track in self.tracks:
            if track.fingerprint == fingerprint and track.revisions[: len(wanted)] == wanted:
                return track.pins[len(wanted) - 1]
        return None


def build_locked(migration: Migration) -> Locked:
    """Return a migration as the lock writes it down."""
    return Locked(migration.revision, migration.checksum)


def lock_of(chain: Sequence[Migration], known: Lock | None, tracks: Iterable[LockTrack] = ()) -> Lock:
    """Return the lock of a chain of migrations.

    Args:
        chain: The migrations from the first to the head.
        known: The lock before; what still holds of its pins is kept.
        tracks: More pins.

    Raises:
        DriftError: Two pins contradict each other.
    """
    held = [*known.holding(chain).tracks] if known else []
    for track in tracks:
        for other in held:
            check_same_ids(other, track)
        if track.pins:
            held.append(track)
    return Lock(tuple(map(build_locked, chain)), longest(held))


def check_same_ids(known: LockTrack, found: LockTrack) -> None:
    """Raise DriftError where the same migrations give other ids to the same base."""
    if known.fingerprint != found.fingerprint:
        return
    for pinned, new in zip(known.pins, found.pins, strict=False):
        if pinned.revision != new.revision:
            return
        check_new_ids(pinned, new)
        check_fingerprint(pinned, new)


def check_new_ids(pinned: PinnedIds, found: PinnedIds) -> None:
    """Raise DriftError where a new text gets another id than was pinned."""
    wanted = {token: number for number, token in pinned.new_ids}
    actual = {token: number for number, token in found.new_ids}
    for token in dict.fromkeys([*wanted, *actual]):
        if wanted.get(token) != actual.get(token):
            effect = f"pins it to id {wanted[token]}" if token in wanted else "does not know it"
            came = f"would get id {actual[token]}" if token in actual else "would get none"
            raise DriftError(
                f"'{token}' {came} in migration {pinned.revision}, and the lock {effect}",
                where=_where(pinned),
                hint=_HINT,
            )


def check_fingerprint(pinned: PinnedIds, found: PinnedIds) -> None:
    """Raise DriftError where any token of the tokenizer afterwards has another id than was pinned."""
    if pinned.fingerprint != found.fingerprint:
        raise DriftError(
            f"tokens that were there before get other ids in migration {pinned.revision} than the lock says",
            where=_where(pinned),
            hint=_HINT,
        )


def longest(tracks: Iterable[LockTrack]) -> tuple[LockTrack, ...]:
    """Return the tracks without those that another one begins with."""
    kept: list[LockTrack] = []
    for track in sorted(tracks, key=lambda each: -len(each.pins)):
        if not any(track.begins(longer) for longer in kept):
            kept.append(track)
    return tuple(sorted(kept, key=lambda each: (each.fingerprint, each.revisions)))


def _where(pinned: PinnedIds) -> str:
    return f"{FILE}:{pinned.line}:1" if pinned.line else FILE
