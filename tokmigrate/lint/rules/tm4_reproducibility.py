"""TM4: whether a migration means the same everywhere, and says what it is for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from tokmigrate.lint.python_ast import find_imports, outside_reads, set_orders, world_reads
from tokmigrate.lint.rule import ERROR, WARNING, Found, operations, rule, upgrade
from tokmigrate.lint.subjects import Location, MigrationFile
from tokmigrate.revision.conditions import Encodes


@rule(
    "TM401",
    ERROR,
    wrong=operations('add_tokens: ["<tool>", "<result>"]  # <result> was added later'),
    right=operations('add_tokens: ["<tool>"]'),
    beside="a model that it was applied to",
)
def edited_after_applied(file: MigrationFile) -> Iterator[Found]:
    """A migration was edited after it was applied.

    Models that have it no longer match the file, and no command but `downgrade` will work on them. Comments,
    `message` and `author` may change.
    """
    if file.edited_on:
        message = f"it was applied to {', '.join(file.edited_on)} before it was edited"
        hint = "put it back with `tokmigrate restore` where it was applied, and write a new migration"
        yield Found(Location(1, 1), message, hint)


@rule(
    "TM411",
    ERROR,
    wrong=operations('add_tokens: ["<tool>", "<result>"]  # the branch has it without <result>'),
    right=operations('add_tokens: ["<tool>"]  # only this comment is new'),
    beside="the lock of the branch that `--git-base` names",
    branch="main",
)
def edited_after_shared(file: MigrationFile) -> Iterator[Found]:
    """A migration was edited that the branch given by `--git-base` has.

    Others have applied it, or will; their models then do not match the file, and commands refuse them.
    Comments, `message` and `author` may change.
    """
    if file.edited_since is not None:
        help_ = "restore it, and write a new migration"
        yield Found(Location(1, 1), f"'{file.edited_since}' has it with other contents", help_)


@rule(
    "TM402",
    ERROR,
    wrong=upgrade(
        'op.add_tokens(tokens=Path(__file__).with_name("tools.txt").read_text().split())', "from pathlib import Path"
    ),
    right="""\
from pathlib import Path

message = "Add the tools"
files = ["tools.txt"]


def upgrade(op):
    op.add_tokens(tokens=Path(__file__).with_name("tools.txt").read_text().split())
""",
)
def unpinned_file(file: MigrationFile) -> Iterator[Found]:
    """The code of a migration reads a file that the checksum does not cover.

    If that file changes, the migration gives other tokens without an error. A file that is listed in `files` is
    part of the checksum.
    """
    for use in outside_reads(file.migration.source or ""):
        if not any(name in use.texts for name in file.migration.attachments):
            help_ = 'name the file at the top: files = ["…"]'
            yield Found(use.location, f"{use.what} reads a file that is not pinned", help_)


@rule(
    "TM403",
    ERROR,
    wrong=upgrade('op.add_tokens(tokens=[os.environ.get("TOOL_TOKEN", "<tool>")])', "import os"),
    right=upgrade('op.add_tokens(tokens=["<tool>"])'),
)
def unpinned_world(file: MigrationFile) -> Iterator[Found]:
    """The code of a migration uses the time, randomness, the environment, the network or another program.

    It gives other operations elsewhere or later, so that two models with the same revision differ.
    """
    for use in world_reads(file.migration.source or ""):
        yield Found(use.location, f"{use.what} is not the same everywhere", "write down what it gave")


@rule(
    "TM404",
    ERROR,
    wrong=upgrade('op.add_tokens(tokens=list({"<tool>", "<result>"}))'),
    right=upgrade('op.add_tokens(tokens=sorted({"<tool>", "<result>"}))'),
)
def order_of_a_set(file: MigrationFile) -> Iterator[Found]:
    """The code of a migration iterates over a set.

    Python gives texts in a set another order in each process, so that tokens get other ids each time.
    """
    for use in set_orders(file.migration.source or ""):
        yield Found(use.location, f"{use.what} goes through a set, in any order", "sort it, or use a list")


@rule(
    "TM405",
    WARNING,
    wrong=upgrade('op.add_tokens(tokens=yaml.safe_load("[<tool>]"))', "import yaml"),
    right=upgrade("""op.add_tokens(tokens=json.loads('["<tool>"]'))""", "import json"),
)
def imported_code(file: MigrationFile) -> Iterator[Found]:
    """The code of a migration imports a module that does not come with Python or tokmigrate.

    The checksum does not cover it: with another version of it the migration may do something else.
    """
    for use in find_imports(file.migration.source or ""):
        yield Found(use.location, f"it imports {use.what}, which is not pinned", "write what it needs into the file")


@rule(
    "TM406",
    WARNING,
    wrong=operations("set_chat_template: {file: ignored.jinja}  # .gitignore names it"),
    right=operations("set_chat_template: {file: chat.jinja}"),
    beside="what Git keeps",
)
def not_in_git(file: MigrationFile) -> Iterator[Found]:
    """A file that a committed migration refers to is not in Git.

    On other machines the migration cannot be read.
    """
    for name in sorted(file.not_in_git):
        places = (written.location_of(name) for written in file.operations if name in written.operation.references())
        place = next(places, None) or file.location_of("files" if file.is_python else "init")
        help_ = f"git add -f {shlex.quote(name)}, in the folder of the migrations"
        yield Found(place, f"'{name}' is not in Git", help_)


_EMPTY_WORDS = re.compile(
    r"(what it is for|(new |a |the |add |my )?(migration|revision|change|update|fix(es)?|token|wip|todo|test)s?"
    r"|initial|.{0,2})[.!]?",
    re.IGNORECASE,
)


@rule(
    "TM407",
    WARNING,
    wrong="message: update\n" + operations("set_init: {strategy: mean}"),
    right="message: Start new rows from the mean\n" + operations("set_init: {strategy: mean}"),
)
def message_says_nothing(file: MigrationFile) -> Iterator[Found]:
    """The message does not say what the migration is for.

    It is what `history`, `log` and the ledger show in a year.
    """
    message = file.migration.message
    if _EMPTY_WORDS.fullmatch(message.strip()):
        shown = f"the message '{message}' does not say" if message.strip() else "no message says"
        yield Found(file.location_of("message"), f"{shown} what it is for", "name the tokens and their purpose")


@rule("TM408", WARNING, wrong="operations: []\n", right=operations("set_init: {strategy: mean}"))
def does_nothing(file: MigrationFile) -> Iterator[Found]:
    """A migration has no operations.

    Usually it was created and not filled in.
    """
    if not file.is_python and not file.operations:
        help_ = "fill it in; or delete the file, if it was not applied and no migration follows it"
        yield Found(file.location_of("operations"), "it has no operations", help_)


@rule(
    "TM410",
    WARNING,
    wrong=operations("set_normalizer: NFKC"),
    right=operations("set_normalizer: NFKC") + 'verify:\n  - encodes: {text: "①", tokens: ["1"]}\n',
)
def pipeline_without_check(file: MigrationFile) -> Iterator[Found]:
    """How text is tokenized changes, and no `encodes` under `verify:` says what comes out.

    A reviewer sees the intention, and a version of the library that tokenizes differently is noticed before a
    model is published.
    """
    if any(isinstance(check, Encodes) for check in file.migration.checks):
        return
    for written in file.operations:
        if written.footprint.writes & {"the normalizer", "the pre_tokenizer"}:
            message = f"{written.operation.name} changes how text is tokenized, and no example shows how"
            yield Found(written.location, message, "verify: [{encodes: {text: …, tokens: […]}}]")


@rule(
    "TM409",
    WARNING,
    wrong="models: [dmeo]\n" + operations("set_init: {strategy: mean}"),
    right="models: [demo]\n" + operations("set_init: {strategy: mean}"),
    beside="the models that the workspace lists",
)
def for_no_model(file: MigrationFile) -> Iterator[Found]:
    """`models` names something that is neither a model nor a tag of the workspace.

    With a misspelt name the migration applies to no model, without a warning.
    """
    known = sorted(file.known_models)
    for place, name in enumerate(file.migration.models):
        if known and name not in ("*", *known):
            message = f"'{name}' is neither a model nor a tag of the workspace"
            yield Found(file.location_of("models", place), message, f"known are {', '.join(known)}")
