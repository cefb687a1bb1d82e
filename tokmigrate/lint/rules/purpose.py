"""TM4: whether a migration says what it is for, and for whom."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokmigrate.lint.file import MigrationFile
from tokmigrate.lint.rule import WARNING, Found, rule
from tokmigrate.revision.conditions import Encodes

_SEGMENTATION = frozenset({"the normalizer", "the pre_tokenizer"})
"""What decides how text is tokenized, in the words of footprints."""

_EMPTY_WORDS = re.compile(
    r"(what it is for|(new |a |the |add |my )?(migration|revision|change|update|fix(es)?|token|wip|todo|test)s?"
    r"|initial|.{0,2})[.!]?",
    re.IGNORECASE,
)


@rule(
    "TM407",
    "message-says-nothing",
    WARNING,
    wrong="""\
message: update
operations:
  - set_init: {strategy: mean}
""",
    right="""\
message: Start new rows from the mean
operations:
  - set_init: {strategy: mean}
""",
)
def message_says_nothing(file: MigrationFile) -> Iterator[Found]:
    """The message does not say what the migration is for.

    It is what `history`, `log` and the ledger show in a year.
    """
    message = file.migration.message
    if _EMPTY_WORDS.fullmatch(message.strip()):
        shown = f"the message '{message}' does not say" if message.strip() else "no message says"
        yield Found(file.spot("message"), f"{shown} what it is for", "say which tokens, and what for")


_FILL_IN = "fill it in; or delete the file, if it was not applied and no migration follows it"


@rule(
    "TM408",
    "does-nothing",
    WARNING,
    wrong="""\
operations: []
""",
    right="""\
operations:
  - set_init: {strategy: mean}
""",
)
def does_nothing(file: MigrationFile) -> Iterator[Found]:
    """A migration has no operations.

    It is mostly one that was made and not filled in.
    """
    if not file.is_python and not file.operations:
        yield Found(
            file.spot("operations"),
            "it has no operations",
            _FILL_IN,
        )


@rule(
    "TM410",
    "pipeline-without-check",
    WARNING,
    wrong="""\
operations:
  - set_normalizer: NFKC
""",
    right="""\
operations:
  - set_normalizer: NFKC
verify:
  - encodes: {text: "①", tokens: ["1"]}
""",
)
def pipeline_without_check(file: MigrationFile) -> Iterator[Found]:
    """How text is tokenized changes, and no `encodes` under `verify:` says what comes out.

    Whoever reviews it sees what is meant, and a version of the library that tokenizes differently is noticed before a
    model is published.
    """
    if any(isinstance(check, Encodes) for check in file.migration.checks):
        return
    for written in file.operations:
        if written.footprint.writes & _SEGMENTATION:
            message = f"{written.operation.name} changes how text is tokenized, and no example says how"
            yield Found(written.place, message, "verify: [{encodes: {text: …, tokens: […]}}]")


@rule(
    "TM409",
    "for-no-model",
    WARNING,
    wrong="""\
models: [dmeo]
operations:
  - set_init: {strategy: mean}
""",
    right="""\
models: [demo]
operations:
  - set_init: {strategy: mean}
""",
    beside="the models that the workspace lists",
)
def for_no_model(file: MigrationFile) -> Iterator[Found]:
    """`models` names something that is no model and no tag of the workspace.

    A misspelt name makes the migration one for no model: it is passed over without a word.
    """
    if not file.known_models:
        return
    for place, name in enumerate(file.migration.models):
        if name not in {"*", *file.known_models}:
            known = ", ".join(sorted(file.known_models))
            message = f"'{name}' is no model and no tag of the workspace"
            yield Found(file.spot("models", place), message, f"known are {known}")
