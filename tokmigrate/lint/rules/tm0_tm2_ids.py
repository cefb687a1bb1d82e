"""TM0 and TM2: whether a migration can be applied, and ids with the rows that belong to them."""

from __future__ import annotations

from collections.abc import Iterator

from tokmigrate.formatting import format_count, format_quoted
from tokmigrate.init import InitSpec
from tokmigrate.init.strategies import Zeros
from tokmigrate.lint.rule import ERROR, WARNING, Found, operations, rule
from tokmigrate.lint.subjects import Failure, Location, MigrationFile, OnModel, parse_location
from tokmigrate.operations.operation import RiskLevel

_MULTIPLE = 64
"""Matrix products are fastest where the vocabulary is a multiple of it (NVIDIA, Deep Learning Performance Guide)."""


@rule(
    "TM201",
    ERROR,
    wrong=operations('move_tokens: {tokens: {"!": 2, "\\"": 1}}'),
    right=operations('move_tokens: {tokens: {"!": 2, "\\"": 1}, acknowledge: breaking}'),
)
def moved_ids(file: MigrationFile) -> Iterator[Found]:
    """Tokens get other ids, and the migration does not acknowledge it.

    The model and its adapters follow; tokenized data sets, caches, `logit_bias` tables and servers do not, and take
    one token for another without an error. `acknowledge: breaking` confirms it.
    """
    for written in file.operations:
        if written.tokens.moved and written.operation.acknowledge is None:
            moved = tuple(written.tokens.moved)
            verb = "gets another id" if len(moved) == 1 else "get other ids"
            message = f"{format_quoted(moved)} {verb}: data tokenized before refer to other tokens"
            help_ = f"keep the ids; if it is intended, add `acknowledge: breaking` to {written.operation.name}"
            yield Found(written.location, message, help_)


@rule(
    "TM202",
    ERROR,
    given=operations('add_tokens: ["<tool>"]'),
    wrong=operations('reinit_tokens: {tokens: ["!"], init: {strategy: mean}}'),
    right=operations('reinit_tokens: {tokens: ["<tool>"], init: {strategy: mean}}'),
)
def breaking(seen: OnModel) -> Iterator[Found]:
    """An operation breaks what the model has learnt, and does not acknowledge it.

    The plan gives the same reason. `acknowledge: breaking`, a field of every operation, confirms it; without
    it such an operation is not applied.
    """
    for written, effect in seen.effects:
        # Of moved tokens TM201 tells, also where no model is there.
        if written.tokens.moved or written.operation.acknowledge is not None:
            continue
        if effect.risk.level is RiskLevel.BREAKING:
            help_ = f"leave it out; if it is intended, add `acknowledge: breaking` to {effect.operation}"
            yield Found(written.location, f"{effect.operation} breaks the model: {effect.risk.reason}", help_)


@rule("TM207", WARNING, wrong=operations("set_normalizer: {type: Lowercase}"), right=operations("set_normalizer: NFC"))
def unreachable_tokens(seen: OnModel) -> Iterator[Found]:
    """An operation leaves tokens that no text produces any more.

    Their rows stay in the model and are never used, and the texts that they stood for become other tokens than in
    training. A normalizer that folds text does that to all tokens with the letters that it folds; so does an added
    token to all whose text holds its own. Where the operation is breaking anyhow, TM202 gives the number.
    """
    for written, effect in seen.effects:
        if effect.unreachable and effect.risk.level is not RiskLevel.BREAKING:
            lost = effect.unreachable
            message = f"no text produces {format_count(len(lost), 'token')} any more: {format_quoted(lost)}"
            yield Found(written.location, message, "leave it out; if it is intended, write `# noqa: TM207` and why")


@rule(
    "TM203",
    WARNING,
    wrong=operations('add_tokens: {tokens: [{content: "<tool>", init: {strategy: zeros}}]}'),
    right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<tool>", init: {input: {strategy: zeros}, output: {strategy: mean}}}
""",
)
def zeros_as_output(file: MigrationFile) -> Iterator[Found]:
    """A row of the output embeddings is initialised with zeros.

    Its token then has the logit 0 whatever the model means, and wins wherever all other logits are negative. The mean
    of the old rows has a bound on what it does to old text; zeros have none. Where input and output embeddings are one
    matrix, that goes for both.
    """
    help_ = "use {strategy: mean}; where input and output are not tied,"
    help_ += " {input: {strategy: zeros}, output: {strategy: mean}} does it too"
    for place, row, init in _inits(file):
        if isinstance(init.side("output"), Zeros):
            yield Found(place, f"{row} is zeros as output: it may be generated at any time", help_)


def _inits(file: MigrationFile) -> Iterator[tuple[Location, str, InitSpec]]:
    """Yield each strategy that a file gives, with its place and the rows that it is for."""
    if file.migration.init is not None:
        yield file.location_of("init"), "each new row", file.migration.init
    for written in file.operations:
        if written.operation.row_init is not None:
            yield written.location_of("init", "zeros"), "each new row", written.operation.row_init
    for written, token in file.added_tokens:
        if token.init is not None:
            yield written.location_of(token.content), f"the row of '{token.content}'", token.init


@rule(
    "TM204",
    WARNING,
    wrong=operations('add_tokens: ["<tool>"]'),
    right=operations('add_tokens: ["<tool>"]', "resize_vocab: {multiple_of: 64}"),
)
def off_a_multiple(seen: OnModel) -> Iterator[Found]:
    """The number of rows was a multiple of 64, and grows to one that is not.

    The kernels that multiply by the head are much slower on such sizes, and tensor parallelism may refuse them.
    """
    cause = seen.last_that(lambda old, new: new.vocab_size > old.vocab_size)
    before, after = seen.step.before.vocab_size, seen.step.after.vocab_size
    # A later migration may round it up.
    is_off = before % _MULTIPLE == 0 and after % _MULTIPLE and seen.final.vocab_size % _MULTIPLE
    if cause and after > before and is_off:
        message = f"{before} rows were a multiple of {_MULTIPLE}, {after} are not"
        yield Found(cause.location, message, f"end with resize_vocab: {{multiple_of: {_MULTIPLE}}}")


@rule(
    "TM205",
    WARNING,
    given=operations("resize_vocab: {multiple_of: 1088}"),
    wrong=operations("resize_vocab: {rows: 1050}"),
    right=operations("resize_vocab: {multiple_of: 64}"),
)
def fewer_rows(seen: OnModel) -> Iterator[Found]:
    """The model ends with fewer rows than it had.

    Spare rows are padding that its makers put there: for kernels, for sharding over devices, for adapters and optimizer
    states that have as many rows. `resize_token_embeddings(len(tokenizer))` is how they are lost elsewhere.
    """
    cause = seen.last_that(lambda old, new: new.vocab_size < old.vocab_size)
    before, after = seen.step.before.vocab_size, seen.step.after.vocab_size
    if cause and after < before:
        message = f"the model has {after} rows instead of {before}"
        if before % _MULTIPLE == 0 and after % _MULTIPLE:
            message += f", and {after} is not a multiple of {_MULTIPLE}"
        help_ = f"keep the spare rows, later tokens use them first: end with resize_vocab: {{rows: {before}}}"
        yield Found(cause.location, message, help_)


@rule(
    "TM206",
    WARNING,
    wrong="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<tool>", init: {strategy: copy, token: "<|endoftext|>"}}
        - {content: "</tool>", init: {strategy: copy, token: "<|endoftext|>"}}
""",
    right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<tool>", init: {strategy: description, text: "a call of a tool"}}
        - {content: "</tool>", init: {strategy: copy, token: "<|endoftext|>"}}
""",
)
def same_init(file: MigrationFile) -> Iterator[Found]:
    """Several tokens are initialised as a copy of the same one.

    Until they are trained the model cannot tell them apart: each gets the same logit, also as the one that they are
    copied from.
    """
    for written in file.operations:
        copied: dict[str, str] = {}
        for token in written.tokens.added:
            init = token.init or written.operation.row_init or file.migration.init
            source = getattr(init.side("output"), "token", None) if init else None
            if source is not None and source in copied:
                message = f"'{token.content}' gets the same row as '{copied[source]}': both copy '{source}'"
                help_ = "initialise one of them with `description` or `average`"
                yield Found(written.location_of(token.content), message, help_)
            elif source is not None:
                copied[source] = token.content


@rule(
    "TM001",
    ERROR,
    wrong=operations('set_special_tokens: {eos: "<|end_of_turn|>"}'),
    right=operations(
        'add_tokens: {tokens: [{content: "<|end_of_turn|>", special: true, init: {strategy: mean}}]}',
        'set_special_tokens: {eos: "<|end_of_turn|>"}',
    ),
)
def cannot_be_applied(failure: Failure) -> Iterator[Found]:
    """A model of the workspace refuses the migration.

    Reports early what `tokmigrate upgrade` would refuse. Later migrations cannot be checked on that model.
    """
    where = failure.error.where or ""
    shown = failure.file.migration.shown
    place = parse_location(where.removeprefix(shown)) if where.startswith(shown) else Location(1, 1)
    yield Found(place, f"it cannot be applied: {failure.error.message}", failure.error.hint)
