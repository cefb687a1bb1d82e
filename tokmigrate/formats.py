"""The formats of what tokmigrate writes, with their versions; docs/formats.md has the policy."""

from __future__ import annotations

from dataclasses import dataclass

from tokmigrate.errors import FormatError, TokmigrateError


@dataclass(frozen=True)
class FileFormat:
    """A format.

    Args:
        reads: The older versions that are read too.
        older: What to do about an older one that is not read.
    """

    name: str
    version: int
    reads: tuple[int, ...] = ()
    older: str = "use the tokmigrate that wrote it"

    def hint(self, found: object) -> str:
        """Return what to do about a version that is not read."""
        newer = isinstance(found, int) and found > self.version
        return "upgrade tokmigrate: a newer version wrote it" if newer else self.older


SETTINGS = FileFormat("tokmigrate.yaml", 1)
MIGRATION = FileFormat("migration", 1)
LOCK = FileFormat("tokmigrate.lock", 1)
STAMP = FileFormat("stamp", 1)
STATE = FileFormat(
    "state database",
    2,
    older="with the version that wrote it run `tokmigrate downgrade base`, then move the state away and upgrade again; "
    "or only move it away, with .tokmigrate/objects: models keep their revisions, without undo data",
)
JOURNAL = FileFormat(
    "journal of an interrupted change", 2, older="finish it with the version that began it: its `tokmigrate recover`"
)
MIGRATIONS_JOURNAL = FileFormat("journal of the migrations", 1)
UNDO_RECORD = FileFormat("undo record", 2, reads=(1,))
GGUF_UNDO_RECORD = FileFormat("undo record of a GGUF", 1)
PLAN_FILE = FileFormat("plan file", 2, older="make and review a new one: `tokmigrate plan -o FILE`")
LEDGER_EXPORT = FileFormat("ledger export", 2, older="export it again: `tokmigrate log --export FILE` in its workspace")
COEFFICIENTS = FileFormat("coefficients file", 1)
JSON_OUTPUT = FileFormat("JSON output", 1)


def check_version(written: FileFormat, found: object, where: str, error: type[TokmigrateError] = FormatError) -> None:
    """Raise an error where a file has a version of its format that this tokmigrate does not read."""
    if found is True or found not in (written.version, *written.reads):
        message = f"the {written.name} has format version {found!r}, and this tokmigrate reads "
        known = " and ".join(map(str, (*written.reads, written.version)))
        raise error(message + known, where=where, hint=written.hint(found))
