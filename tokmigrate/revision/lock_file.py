"""tokmigrate.lock on disk and as text:

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
from collections.abc import Iterator, Sequence
from pathlib import Path

from blake3 import blake3

from tokmigrate.errors import FileProblems, Problem, StorageError
from tokmigrate.files import read_if_present
from tokmigrate.formats import LOCK
from tokmigrate.revision.history import Files
from tokmigrate.revision.lock import FILE, Lock, Locked, LockTrack, PinnedIds, longest
from tokmigrate.settings import Workspace

REWRITE = "`tokmigrate lock` recreates it from the migrations"
RESTORE = "`tokmigrate rebase` takes what Git has of it; without Git, delete it, and `tokmigrate lock` recreates it"

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


def lock_text(lock: Lock) -> str:
    """Return the text of a lock file."""
    body = list(_body(lock))
    return _PREFACE + "\n".join([_TITLE, f"head {lock.head} {_seal(body)}", *body]) + "\n"


def parse_lock(text: str, shown: str) -> Lock:
    """Return what a lock file says.

    Args:
        text: Its text, with any line ends.
        shown: The name that messages give the file.

    Raises:
        FileProblems: It has conflict markers, or is not as tokmigrate wrote it.
    """
    lines = text.splitlines()
    marker = next((number for number, line in enumerate(lines, 1) if _MARKER.fullmatch(line)), None)
    if marker is not None:
        problem = Problem(shown, marker, 1, "Git left a conflict here", "`tokmigrate rebase` resolves it")
        raise FileProblems([problem])
    return _Reading(shown, lines).lock()


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


def _body(lock: Lock) -> Iterator[str]:
    link = ""
    for locked in lock.revisions:
        link = _link(link, locked)
        yield f"revision {locked.revision} {locked.checksum} {link}"
    for track in longest(lock.tracks):
        yield f"tokenizer {track.fingerprint}"
        for pinned in track.pins:
            yield f"ids {pinned.revision} {pinned.fingerprint}"
            for number, token in pinned.new_ids:
                yield f"id {number} {_quoted(token)}"


class _Ids:
    """The pinned ids of a migration while their lines are read."""

    def __init__(self, revision: str, fingerprint: str, line: int) -> None:
        self.revision = revision
        self.fingerprint = fingerprint
        self.line = line
        self.new_ids: list[tuple[int, str]] = []

    def pinned(self) -> PinnedIds:
        return PinnedIds(self.revision, self.fingerprint, tuple(self.new_ids), self.line)


class _Reading:
    """Reads the lines of a lock in one pass."""

    def __init__(self, shown: str, lines: Sequence[str]) -> None:
        self._shown = shown
        self._lines = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
        self._revisions: list[Locked] = []
        self._tracks: list[tuple[str, int, list[_Ids]]] = []
        self._link = ""

    def lock(self) -> Lock:
        """Return the whole of it."""
        number, title = self._lines[0] if self._lines else (1, "")
        if title != _TITLE:
            version = title.removeprefix(f"{FILE} ")
            hint = LOCK.hint(int(version)) if version.isdecimal() else RESTORE
            raise self._wrong(number, f"expected '{_TITLE}', found '{title}'", hint)
        number, line = self._lines[1] if len(self._lines) > 1 else (number, "")
        head = _HEAD.fullmatch(line)
        if head is None:
            raise self._wrong(number, f"expected 'head REVISION SEAL', found '{line}'")
        for place, each in self._lines[2:]:
            self._take(place, each)
        tracks = (LockTrack(base, tuple(ids.pinned() for ids in held), place) for base, place, held in self._tracks)
        lock = Lock(tuple(self._revisions), tuple(tracks))
        if head[1] != lock.head:
            raise self._wrong(number, f"the head is '{head[1]}' here, and '{lock.head}' by the lines below")
        if head[2] != _seal([each for _, each in self._lines[2:]]):
            raise self._wrong(number, "the lock was edited by hand: the seal is that of other lines")
        return lock

    def _take(self, number: int, line: str) -> None:
        held = self._tracks[-1][2] if self._tracks else []
        if (found := _REVISION.fullmatch(line)) and not self._tracks:
            locked = Locked(found[1], found[2], number)
            self._link = _link(self._link, locked)
            if found[3] != self._link:
                raise self._wrong(number, "the chain breaks here: this line or one above it was edited by hand")
            if any(each.revision == locked.revision for each in self._revisions):
                raise self._wrong(number, f"revision '{locked.revision}' appears a second time")
            self._revisions.append(locked)
        elif found := _TOKENIZER.fullmatch(line):
            self._tracks.append((found[1], number, []))
        elif self._tracks and (found := _IDS.fullmatch(line)):
            held.append(_Ids(found[1], found[2], number))
        elif held and (found := _ID.fullmatch(line)):
            held[-1].new_ids.append((int(found[1]), self._token(number, found[2])))
        else:
            raise self._wrong(number, f"this line means nothing here: '{line}'")

    def _token(self, number: int, quoted: str) -> str:
        try:
            return str(json.loads(quoted))
        except ValueError as error:
            raise self._wrong(number, f"{quoted} is not a text in JSON") from error

    def _wrong(self, number: int, message: str, hint: str = RESTORE) -> FileProblems:
        return FileProblems([Problem(self._shown, number, 1, message, hint)])


def _link(before: str, locked: Locked) -> str:
    return _digest(f"{before} {locked.revision} {locked.checksum}")


def _seal(body: Sequence[str]) -> str:
    return _digest("\n".join(body))


def _digest(text: str) -> str:
    return blake3(text.encode("utf-8")).hexdigest()[:32]


def _quoted(token: str) -> str:
    # What some programs take for the end of a line is escaped, so that a token stays in its line.
    text = json.dumps(token, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


def lock_path(workspace: Workspace) -> Path:
    """Return where the lock of a workspace is."""
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
        raise FileProblems([Problem(lock_shown(workspace), 1, 1, f"cannot be read: {reason}", RESTORE)]) from error


def lock_files(workspace: Workspace, lock: Lock) -> Files:
    """Return what has to be written for the workspace to have this lock: nothing where it says the same already."""
    path = lock_path(workspace)
    data = lock_text(lock).encode("utf-8")
    # A checkout may have given it other line ends.
    held = read_if_present(path)
    if held is not None and held.replace(b"\r\n", b"\n") == data:
        return {}
    return {path: data}
