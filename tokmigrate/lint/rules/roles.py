"""TM3: tokens that have a role."""

from __future__ import annotations

from collections.abc import Iterator

from tokmigrate.formatting import format_quoted
from tokmigrate.lint.file import MigrationFile, Place
from tokmigrate.lint.model import OnModel
from tokmigrate.lint.rule import WARNING, Found, rule
from tokmigrate.model.documents.roles import ROLES, special_token
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.references.references import ids_without_token
from tokmigrate.model.tokenizer.tokenizer_json import FILE, post_processor_tokens
from tokmigrate.operations.base import DEFAULT_INIT
from tokmigrate.revision.migration import Migration

_CHAT_ROLES = ("bos", "eos", "sep", "cls", "mask", "chat")


@rule(
    "TM302",
    "role-token-without-init",
    WARNING,
    wrong="""\
operations:
  - add_role_tokens: {preset: chatml}
""",
    right="""\
operations:
  - add_role_tokens: {preset: chatml, init: {strategy: mean}}
""",
)
def role_token_without_init(file: MigrationFile) -> Iterator[Found]:
    """A token with a role is added, and nothing says how its row starts.

    It starts as the mean of all rows, like any other: the model meets it in every text, and has to learn it from
    nothing. `description`, `copy` or `average` begin with what is known of such tokens. `{strategy: mean}` says that it
    is meant.
    """
    if file.migration.init is not None or any(_sets_init(earlier) for earlier in file.earlier):
        return
    # What Python migrations set is known only for a model.
    if any(earlier.source is not None for earlier in file.earlier):
        return
    named = (written.tokens.roles.get(role, ()) for written in file.operations for role in _CHAT_ROLES)
    roles = {token for tokens in named for token in tokens}
    for written in file.operations:
        if DEFAULT_INIT in written.footprint.writes:
            return
        found: dict[Place, list[str]] = {}
        if written.operation.row_init is None and not written.tokens.may_exist:
            for token in written.tokens.added:
                if token.init is None and token.content in roles:
                    found.setdefault(written.spot(token.content), []).append(token.content)
        for place, tokens in found.items():
            verbs = "gets a role and starts" if len(tokens) == 1 else "get roles and start"
            message = f"{format_quoted(tokens)} {verbs} from the mean, because no `init:` is given"
            yield Found(place, message, "give `init:`, such as {strategy: mean} if it is meant")


def _sets_init(migration: Migration) -> bool:
    footprints = (planned.operation.footprint() for planned in migration.operations)
    return any(each is not None and DEFAULT_INIT in each.writes for each in footprints)


@rule(
    "TM303",
    "pad-is-end",
    WARNING,
    wrong="""\
operations:
  - set_padding: {token: "<|endoftext|>", side: left}
""",
    right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<|pad|>", special: true}
  - set_padding: {token: "<|pad|>", side: left}
""",
)
def pad_is_end(seen: OnModel) -> Iterator[Found]:
    """The pad token is the end token.

    Training masks padding, and masks the real ends with it: the model does not learn to stop.
    """
    cause = seen.last_that(_becomes_one)
    if cause and _becomes_one(seen.step.before, seen.step.after):
        token = special_token(seen.step.after, "pad")
        yield Found(
            cause.place,
            f"'{token}' is both the pad and the end token",
            "add a token for padding alone, and pad with it: set_padding: {token: …}",
        )


def _becomes_one(before: ModelState, after: ModelState) -> bool:
    """Return whether pad and end become the same token."""
    return _pads_with_end(after) and not _pads_with_end(before)


def _pads_with_end(state: ModelState) -> bool:
    pad = special_token(state, "pad")
    return pad is not None and pad == special_token(state, "eos")


@rule(
    "TM306",
    "old-token-around-text",
    WARNING,
    given="""\
operations:
  - set_post_processor:
      type: TemplateProcessing
      single: [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
      pair: [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]
      special_tokens: {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}
""",
    wrong="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<|begin|>", special: true}
  - set_special_tokens: {bos: "<|begin|>"}
""",
    right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<|begin|>", special: true}
  - set_special_tokens: {bos: "<|begin|>"}
  - set_post_processor: null
""",
)
def old_token_around_text(seen: OnModel) -> Iterator[Found]:
    """A role goes to another token, and the post-processor still puts the old one around texts.

    Every text then begins or ends with a token that has no role any more.
    """
    around = set(post_processor_tokens(seen.step.after.documents[FILE]))
    for role in ROLES:
        old, new = special_token(seen.step.before, role), special_token(seen.step.after, role)
        if old in around and new not in (None, old):
            cause = next(w for w, _, after in seen.changes if special_token(after, role) == new)
            message = f"the {role} token is '{new}', but the post-processor still puts '{old}' around a text"
            number = seen.step.after.tokenizer.ids.get(str(new))
            help_ = f"set_post_processor with '{new}' (id {number}) in the place of '{old}', or null"
            yield Found(cause.spot(str(new)), message, help_)


@rule(
    "TM308",
    "id-without-token",
    WARNING,
    beside="what it makes of a model that lacks it, here one whose config.json has `image_token_index: 1200`",
    wrong="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<image>", special: true}
""",
    right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<image>", special: true}
  - set_special_tokens: {image: "<image>"}
""",
)
def id_without_token(seen: OnModel) -> Iterator[Found]:
    """A field of a configuration holds an id that no token of the model has at the end.

    A processor that puts the id of `image_token_index` into a text then gives the model a row that stands for nothing,
    or one that is not there. Migrations that add the token do not set the field by themselves.
    """
    if seen.step.after is not seen.final:
        return
    cause = seen.last_that(lambda before, after: before.tokenizer.ids != after.tokenizer.ids)
    place = cause.place if cause else seen.file.spot("operations")
    for found in ids_without_token(seen.final):
        yield Found(place, str(found), f"name its token: set_special_tokens: {{{found.role}: …}}")
