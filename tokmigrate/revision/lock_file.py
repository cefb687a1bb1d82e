"""tokmigrate.lock: the migrations in order, and the ids that they give. As text:

    tokmigrate.lock 1
    head REVISION SEAL                       the seal is a digest of all lines below
    revision REVISION CHECKSUM LINK          in order; a link is a digest of this line and the link before it
    tokenizer FINGERPRINT                    a base tokenizer
    ids REVISION FINGERPRINT                 the tokenizer after a migration that is applied to it
    id NUMBER "TOKEN"                        an id that the migration gives to a new text, in JSON

Two branches that both add a migration write other text into `head` and after the last `revision`, so that Git
cannot merge them without a word. Lines that begin with `#` say nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

from blake3 import blake3

from tokmigrate.errors import DriftError, FileProblems, HistoryError, Problem, StorageError
from tokmigrate.files import read_if_present
from tokmigrate.formats import LOCK
from tokmigrate.revision.history import Files, History
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import Workspace

FILE = "tokmigrate.lock"

REWRITE = "`tokmigrate lock` recreates it from the migrations"
_RESTORE = "`tokmigrate rebase` takes what Git has of it; without Git, delete it, and `tokmigrate lock` recreates it"
_OTHER_IDS = (
    "the tokenizer was changed between two migrations, or another tokmigrate wrote the lock: put the tokenizer back; "
    f"only if other ids are meant, delete {FILE} and let `tokmigrate lock` write it from models at base"
)

_PREFACE = """\
# Written by tokmigrate: the order of the migrations, their checksums, and the ids that they give.
# It conflicts in Git on purpose when two branches add a migration: `tokmigrate rebase` resolves it.
"""
_TITLE = f"{FILE} {LOCK.version}"
_HEAD = re.compile(r"head (\S+) ([0-9a-f]{32})")
_REVISION = re.compile(r"revision ([0-9a-z_]{4,40}) (\S+) ([0-9a-f]{32})")
_TOKENIZER = re.compile(r"tokenizer ([0-9a-f]{32})")
_IDS = re.compile(r"ids ([0-9a-z_]{4,40}) ([0-9a-f]{32})")
_ID = re.compile(r'id (0|[1-9][0-9]*) (".*")')
_MARKER = re.compile(r"(<{7}|\|{7}|={7}|>{7})( .*)?")


@dataclass(frozen=True)
class Locked:
    """A migration as the lock knows it; `line` is where the file says so, counting from 1."""

    revision: str
    checksum: str
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class PinnedIds:
    """The ids that texts get which were no tokens before a migration, in rising order.

    `fingerprint` is that of the tokenizer afterwards, `line` where the file says so, counting from 1.
    """

    revision: str
    fingerprint: str
    new_ids: tuple[tuple[int, str], ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class LockTrack:
    """The fingerprint of a base tokenizer, and what each migration that is applied to it makes of its ids."""

    fingerprint: str
    pins: tuple[PinnedIds, ...] = ()

    @property
    def revisions(self) -> tuple[str, ...]:
        return tuple(pinned.revision for pinned in self.pins)


@dataclass(frozen=True)
class Lock:
    """The migrations from the first to the head, and the base tokenizers that ids are pinned for."""

    revisions: tuple[Locked, ...] = ()
    tracks: tuple[LockTrack, ...] = ()

    @property
    def head(self) -> str:
        return self.revisions[-1].revision if self.revisions else "base"

    def keep_valid(self, chain: Sequence[Migration]) -> Lock:
        """Return the part that holds for these migrations: up to the first that it knows otherwise."""
        pairs = zip(self.revisions, chain, strict=False)
        kept = [locked for locked, _ in takewhile(lambda pair: pair[0] == build_locked(pair[1]), pairs)]
        known = {locked.revision for locked in kept}
        tracks = (
            LockTrack(track.fingerprint, tuple(takewhile(lambda each: each.revision in known, track.pins)))
            for track in self.tracks
        )
        return Lock(tuple(kept), _longest(track for track in tracks if track.pins))

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
    """Return the lock of a chain of migrations: `tracks`, and what still holds of the pins of the lock before.

    Raises DriftError where two pins contradict each other.
    """
    held = [*known.keep_valid(chain).tracks] if known else []
    for track in tracks:
        for other in (each for each in held if each.fingerprint == track.fingerprint):
            pairs = zip(other.pins, track.pins, strict=False)
            for pinned, found in takewhile(lambda pair: pair[0].revision == pair[1].revision, pairs):
                check_new_ids(pinned, found)
                check_fingerprint(pinned, found)
        if track.pins:
            held.append(track)
    return Lock(tuple(map(build_locked, chain)), _longest(held))


def _longest(tracks: Iterable[LockTrack]) -> tuple[LockTrack, ...]:
    """Return the tracks without those that another one with the same base begins with."""
    kept: list[LockTrack] = []
    for track in sorted(tracks, key=lambda each: -len(each.pins)):
        longer = (other.revisions for other in kept if other.fingerprint == track.fingerprint)
        if not any(revisions[: len(track.pins)] == track.revisions for revisions in longer):
            kept.append(track)
    return tuple(sorted(kept, key=lambda each: (each.fingerprint, each.revisions)))


def check_new_ids(pinned: PinnedIds, found: PinnedIds) -> None:
    """Raise DriftError where a new text gets another id than was pinned."""
    wanted = {token: number for number, token in pinned.new_ids}
    actual = {token: number for number, token in found.new_ids}
    for token in dict.fromkeys([*wanted, *actual]):
        if wanted.get(token) != actual.get(token):
            effect = f"pins it to id {wanted[token]}" if token in wanted else "does not know it"
            came = f"would get id {actual[token]}" if token in actual else "would get none"
            raise _drift(pinned, f"'{token}' {came} in migration {pinned.revision}, and the lock {effect}")


def check_fingerprint(pinned: PinnedIds, found: PinnedIds) -> None:
    """Raise DriftError where any token of the tokenizer afterwards has another id than was pinned."""
    if pinned.fingerprint != found.fingerprint:
        message = f"tokens that were there before get other ids in migration {pinned.revision} than the lock says"
        raise _drift(pinned, message)


def _drift(pinned: PinnedIds, message: str) -> DriftError:
    return DriftError(message, where=f"{FILE}:{pinned.line}:1" if pinned.line else FILE, hint=_OTHER_IDS)


def lock_text(lock: Lock) -> str:
    """Return the text of a lock file."""
    body: list[str] = []
    link = ""
    for locked in lock.revisions:
        link = _link(link, locked)
        body.append(f"revision {locked.revision} {locked.checksum} {link}")
    for track in _longest(lock.tracks):
        body.append(f"tokenizer {track.fingerprint}")
        for pinned in track.pins:
            body.append(f"ids {pinned.revision} {pinned.fingerprint}")
            body += (f"id {number} {_quote(token)}" for number, token in pinned.new_ids)
    return _PREFACE + "\n".join([_TITLE, f"head {lock.head} {_digest(body)}", *body]) + "\n"


def parse_lock(text: str, shown: str) -> Lock:
    """Return what a lock file says, with any line ends.

    Raises FileProblems where it has conflict markers, or is not as tokmigrate wrote it.
    """
    lines = list(enumerate(text.splitlines(), 1))
    marker = next((number for number, line in lines if _MARKER.fullmatch(line)), None)
    if marker is not None:
        raise _wrong(shown, marker, "Git left a conflict here", "`tokmigrate rebase` resolves it")
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    number, title = lines[0] if lines else (1, "")
    if title != _TITLE:
        version = title.removeprefix(f"{FILE} ")
        hint = LOCK.hint(int(version)) if version.isdecimal() else _RESTORE
        raise _wrong(shown, number, f"expected '{_TITLE}', found '{title}'", hint)
    number, line = lines[1] if len(lines) > 1 else (number, "")
    head = _HEAD.fullmatch(line)
    if head is None:
        raise _wrong(shown, number, f"expected 'head REVISION SEAL', found '{line}'")
    lock = _parse_body(lines[2:], shown)
    if head[1] != lock.head:
        raise _wrong(shown, number, f"the head is '{head[1]}' here, and '{lock.head}' by the lines below")
    if head[2] != _digest(line for _, line in lines[2:]):
        raise _wrong(shown, number, "the lock was edited by hand: the seal is that of other lines")
    return lock


def _parse_body(lines: Iterable[tuple[int, str]], shown: str) -> Lock:
    revisions: dict[str, Locked] = {}
    # Each base with its migrations, and each of these with its ids.
    tracks: list[tuple[str, list[tuple[PinnedIds, list[tuple[int, str]]]]]] = []
    link = ""
    for number, line in lines:
        pins = tracks[-1][1] if tracks else []
        if (found := _REVISION.fullmatch(line)) and not tracks:
            locked = Locked(found[1], found[2], number)
            link = _link(link, locked)
            if found[3] != link:
                raise _wrong(shown, number, "the chain breaks here: this line or one above it was edited by hand")
            if locked.revision in revisions:
                raise _wrong(shown, number, f"revision '{locked.revision}' appears a second time")
            revisions[locked.revision] = locked
        elif found := _TOKENIZER.fullmatch(line):
            tracks.append((found[1], []))
        elif tracks and (found := _IDS.fullmatch(line)):
            pins.append((PinnedIds(found[1], found[2], (), number), []))
        elif pins and (found := _ID.fullmatch(line)):
            try:
                pins[-1][1].append((int(found[1]), str(json.loads(found[2]))))
            except ValueError as error:
                raise _wrong(shown, number, f"{found[2]} is not a text in JSON") from error
        else:
            raise _wrong(shown, number, f"this line means nothing here: '{line}'")
    held = (
        LockTrack(base, tuple(replace(pinned, new_ids=tuple(new_ids)) for pinned, new_ids in pins))
        for base, pins in tracks
    )
    return Lock(tuple(revisions.values()), tuple(held))


def _wrong(shown: str, number: int, message: str, hint: str = _RESTORE) -> FileProblems:
    return FileProblems([Problem(shown, number, 1, message, hint)])


def conflict_sides(text: str) -> tuple[str, str]:
    """Return the two texts that Git could not merge; twice the same where there is no conflict."""
    ours: list[str] = []
    theirs: list[str] = []
    into: tuple[list[str], ...] = (ours, theirs)
    for line in text.splitlines():
        if _MARKER.fullmatch(line):
            into = {"<": (ours,), "|": (), "=": (theirs,), ">": (ours, theirs)}[line[0]]
        else:
            for side in into:
                side.append(line)
    return "\n".join(ours) + "\n", "\n".join(theirs) + "\n"


def _link(before: str, locked: Locked) -> str:
    return _digest([f"{before} {locked.revision} {locked.checksum}"])


def _digest(lines: Iterable[str]) -> str:
    return blake3("\n".join(lines).encode("utf-8")).hexdigest()[:32]


def _quote(token: str) -> str:
    # What some programs take for the end of a line is escaped, so that a token stays in its line.
    text = json.dumps(token, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


def lock_path(workspace: Workspace) -> Path:
    return workspace.migrations / FILE


def lock_shown(workspace: Workspace) -> str:
    """Return the lock's name in messages."""
    return os.path.relpath(lock_path(workspace), workspace.root)


def read_lock(workspace: Workspace) -> Lock | None:
    """Return the workspace's lock, None where there is none; raises FileProblems for one that is not whole."""
    text = read_lock_text(workspace)
    return None if text is None else parse_lock(text, lock_shown(workspace))


def read_lock_text(workspace: Workspace) -> str | None:
    """Return the text of the lock, None where there is none; raises FileProblems for one that cannot be read."""
    try:
        data = read_if_present(lock_path(workspace))
        return None if data is None else data.decode("utf-8")
    except (StorageError, UnicodeDecodeError) as error:
        reason = error.message if isinstance(error, StorageError) else "it is not UTF-8"
        raise _wrong(lock_shown(workspace), 1, f"cannot be read: {reason}") from error


def lock_files(workspace: Workspace, lock: Lock) -> Files:
    """Return what has to be written for the workspace to have this lock: nothing where it says the same already."""
    path, data = lock_path(workspace), lock_text(lock).encode("utf-8")
    # A checkout may have given it other line ends.
    held = read_if_present(path)
    return {} if held is not None and held.replace(b"\r\n", b"\n") == data else {path: data}


@dataclass(frozen=True)
class Valid:
    """The migrations up to the head, their lock, and by base tokenizer the revisions without pinned ids."""

    chain: tuple[Migration, ...]
    lock: Lock
    unpinned: tuple[tuple[str, tuple[str, ...]], ...]


def validate(workspace: Workspace) -> Valid:
    """Check the order of the migrations, their single head, their checksums and the ids that are pinned.

    Raises FileProblems with all that is wrong, or HistoryError where the files do not hold together.
    """
    problems: list[Problem] = []
    history = History.read(workspace)
    shown = lock_shown(workspace)
    chain: tuple[Migration, ...] = ()
    lock = Lock()
    try:
        chain = history.chain()
    except HistoryError as error:
        problems.append(Problem(error.where or shown, 1, 1, error.message, error.hint))
    try:
        held = read_lock(workspace)
        if held is None and history.migrations:
            problems.append(Problem(shown, 1, 1, "there is no lock", "`tokmigrate lock` writes it"))
        lock = held or lock
    except FileProblems as error:
        problems += error.problems
    problems = problems or [*_order_problems(lock, chain, shown), *_id_problems(lock, shown)]
    if problems:
        raise FileProblems(problems)
    order = [migration.revision for migration in chain]
    unpinned: list[tuple[str, tuple[str, ...]]] = []
    for track in lock.tracks:
        last = order.index(track.revisions[-1]) if track.pins else -1
        left = tuple(migration.revision for migration in chain[last + 1 :] if "*" in migration.models)
        unpinned += [(track.fingerprint, left)] if left else []
    return Valid(chain, lock, tuple(unpinned))


def _order_problems(lock: Lock, chain: Sequence[Migration], shown: str) -> Iterator[Problem]:
    files = {migration.revision: migration for migration in chain}
    known = {locked.revision: locked for locked in lock.revisions}
    for migration in chain:
        if migration.revision not in known:
            yield Problem(migration.shown, 1, 1, f"the lock does not have revision {migration.revision}", REWRITE)
        elif known[migration.revision].checksum != migration.checksum:
            hint = f"put it back as it was; or, where no model has it yet, {REWRITE}"
            yield Problem(migration.shown, 1, 1, f"{migration.revision} was edited since it was locked", hint)
    for locked in lock.revisions:
        if locked.revision not in files:
            message = f"no migration file has revision {locked.revision}"
            yield Problem(shown, locked.line, 1, message, f"put its file back; or {REWRITE}")
    both = [locked for locked in lock.revisions if locked.revision in files]
    order = [migration.revision for migration in chain if migration.revision in known]
    for locked, wanted in zip(both, order, strict=True):
        if locked.revision != wanted:
            message = f"the lock has {locked.revision} where {wanted} follows by the migrations"
            yield Problem(shown, locked.line, 1, message, REWRITE)
            return


def _id_problems(lock: Lock, shown: str) -> Iterator[Problem]:
    order = {locked.revision: place for place, locked in enumerate(lock.revisions)}
    for track in lock.tracks:
        last = -1
        for pinned in track.pins:
            place = order.get(pinned.revision, -1)
            if place <= last:
                yield Problem(shown, pinned.line, 1, f"ids of {pinned.revision} are pinned out of order", REWRITE)
            last = place
            numbers = {number for number, _ in pinned.new_ids}
            tokens = {token for _, token in pinned.new_ids}
            if min(len(numbers), len(tokens)) < len(pinned.new_ids):
                yield Problem(shown, pinned.line, 1, f"{pinned.revision} pins an id, or a token, twice", REWRITE)
