"""TM4: whether a migration means the same on every machine, today and in a year."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator

from tokmigrate.lint.file import MigrationFile, Place
from tokmigrate.lint.python_ast import Spot, imported_modules, outside_reads, set_orders, world_reads
from tokmigrate.lint.rule import ERROR, WARNING, Found, rule


@rule(
    "TM401",
    "edited-after-applied",
    ERROR,
    wrong="""\
operations:
  - add_tokens: ["<tool>", "<result>"]  # <result> was added later
""",
    right="""\
operations:
  - add_tokens: ["<tool>"]
""",
    beside="a model that it was applied to",
)
def edited_after_applied(file: MigrationFile) -> Iterator[Found]:
    """A migration was edited after it was applied.

    Models that have it are not what the file says any more, and no command but `downgrade` will work on them. Comments,
    `message` and `author` may change.
    """
    if file.edited_on:
        message = f"it was applied to {', '.join(file.edited_on)} before it was edited"
        hint = "put it back with `tokmigrate restore` where it was applied, and say what you want in a new migration"
        yield Found(Place(1, 1), message, hint)


@rule(
    "TM411",
    "edited-after-shared",
    ERROR,
    wrong="""\
operations:
  - add_tokens: ["<tool>", "<result>"]  # the branch has it without <result>
""",
    right="""\
operations:
  - add_tokens: ["<tool>"]  # only this comment is new
""",
    beside="the lock of the branch that `--git-base` names",
    branch="main",
)
def edited_after_shared(file: MigrationFile) -> Iterator[Found]:
    """A migration was edited that the branch given by `--git-base` has.

    Others have applied it, or will; their models are then not what the file says, and no command works on them.
    Comments, `message` and `author` may change.
    """
    if file.edited_since is not None:
        message = f"'{file.edited_since}' has it with other contents"
        yield Found(Place(1, 1), message, "put it back as it was, and say what you want in a new migration")


@rule(
    "TM402",
    "unpinned-file",
    ERROR,
    wrong="""\
from pathlib import Path

message = "Add the tools"


def upgrade(op):
    op.add_tokens(tokens=Path(__file__).with_name("tools.txt").read_text().split())
""",
    right="""\
from pathlib import Path

message = "Add the tools"
files = ["tools.txt"]


def upgrade(op):
    op.add_tokens(tokens=Path(__file__).with_name("tools.txt").read_text().split())
""",
    language="python",
)
def unpinned_file(file: MigrationFile) -> Iterator[Found]:
    """The code of a migration reads a file that the checksum does not cover.

    When that file changes the migration gives other tokens, and nothing notices. A file that is listed in `files` is
    part of the checksum.
    """
    for spot in _code(file, outside_reads):
        if not any(name in spot.texts for name in file.migration.attachments):
            message = f"{spot.what} reads a file that is not pinned"
            yield Found(spot.place, message, 'name the file at the top: files = ["…"]')


@rule(
    "TM403",
    "unpinned-world",
    ERROR,
    wrong="""\
import os

message = "Add the tools"


def upgrade(op):
    op.add_tokens(tokens=[os.environ.get("TOOL_TOKEN", "<tool>")])
""",
    right="""\
message = "Add the tools"


def upgrade(op):
    op.add_tokens(tokens=["<tool>"])
""",
    language="python",
)
def unpinned_world(file: MigrationFile) -> Iterator[Found]:
    """The code of a migration asks for the time, chance, the environment, the network or another program.

    It gives other operations elsewhere or later, so that two models with the same revision differ.
    """
    for spot in _code(file, world_reads):
        yield Found(spot.place, f"{spot.what} is not the same everywhere", "write down what it gave")


@rule(
    "TM404",
    "order-of-a-set",
    ERROR,
    wrong="""\
message = "Add the tools"


def upgrade(op):
    op.add_tokens(tokens=list({"<tool>", "<result>"}))
""",
    right="""\
message = "Add the tools"


def upgrade(op):
    op.add_tokens(tokens=sorted({"<tool>", "<result>"}))
""",
    language="python",
)
def order_of_a_set(file: MigrationFile) -> Iterator[Found]:
    """The code of a migration goes through a set.

    Python gives texts in a set another order in each process, so that tokens get other ids each time.
    """
    for spot in _code(file, set_orders):
        yield Found(spot.place, f"{spot.what} goes through a set, in any order", "sort it, or use a list")


@rule(
    "TM405",
    "imported-code",
    WARNING,
    wrong="""\
import yaml

message = "Add the tools"


def upgrade(op):
    op.add_tokens(tokens=yaml.safe_load("[<tool>]"))
""",
    right="""\
import json

message = "Add the tools"


def upgrade(op):
    op.add_tokens(tokens=json.loads('["<tool>"]'))
""",
    language="python",
)
def imported_code(file: MigrationFile) -> Iterator[Found]:
    """The code of a migration imports a module that does not come with Python or tokmigrate.

    The checksum does not cover it: with another version of it the migration may do something else.
    """
    for spot in _code(file, imported_modules):
        yield Found(spot.place, f"it imports {spot.what}, which is not pinned", "write what it needs into the file")


def _code(file: MigrationFile, find: Callable[[str], Iterable[Spot]]) -> Iterator[Spot]:
    if file.migration.source is not None:
        yield from find(file.migration.source)


@rule(
    "TM406",
    "not-in-git",
    WARNING,
    wrong="""\
operations:
  - set_chat_template: {file: ignored.jinja}  # .gitignore names it
""",
    right="""\
operations:
  - set_chat_template: {file: chat.jinja}
""",
    beside="what Git keeps",
)
def not_in_git(file: MigrationFile) -> Iterator[Found]:
    """A file that a committed migration refers to is not in Git.

    On other machines the migration cannot be read.
    """
    for name in sorted(file.not_in_git):
        yield Found(
            _reference(file, name),
            f"'{name}' is not in Git",
            f"git add -f {shlex.quote(name)}, in the folder of the migrations",
        )


def _reference(file: MigrationFile, name: str) -> Place:
    spots = [written.spot(name) for written in file.operations if name in written.operation.references()]
    return spots[0] if spots else file.spot("files" if file.is_python else "init")
