"""TM3: tokens that have a role, and the chat templates that write them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokmigrate.formatting import format_quoted
from tokmigrate.lint.rule import ERROR, WARNING, Found, add_special, escape_text, operations, rule
from tokmigrate.lint.subjects import Location, MigrationFile, OnModel, Written
from tokmigrate.model.documents.chat_template import CHAT, Template, find_in_templates, templates
from tokmigrate.model.documents.roles import ROLES, special_token, text_of
from tokmigrate.model.documents.state import CONFIG, GENERATION, ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.references import ids_by_field, ids_without_token
from tokmigrate.model.references.token_texts import find_named_tokens
from tokmigrate.model.tokenizer.tokenizer_json import FILE, post_processor_tokens
from tokmigrate.operations.operation import DEFAULT_INIT
from tokmigrate.revision.migration import Migration

_CHAT_ROLES = ("bos", "eos", "sep", "cls", "mask", "chat")


@rule(
    "TM302",
    WARNING,
    wrong=operations("add_role_tokens: {preset: chatml}"),
    right=operations("add_role_tokens: {preset: chatml, init: {strategy: mean}}"),
)
def role_token_without_init(file: MigrationFile) -> Iterator[Found]:
    """A token with a role is added without `init:`.

    It gets the mean of all rows, like any other: the model meets it in every text, and has to learn it from
    nothing. `description`, `copy` or `average` begin with what is known of such tokens. `{strategy: mean}`
    confirms it.
    """
    # What Python migrations set is known only for a model.
    if file.migration.init or any(earlier.source is not None or _sets_init(earlier) for earlier in file.earlier):
        return
    named = (written.tokens.roles.get(role, ()) for written in file.operations for role in _CHAT_ROLES)
    roles = {token for tokens in named for token in tokens}
    for written in file.operations:
        if DEFAULT_INIT in written.footprint.writes:
            return
        found: dict[Location, list[str]] = {}
        if written.operation.row_init is None and not written.tokens.may_exist:
            for token in written.tokens.added:
                if token.init is None and token.content in roles:
                    found.setdefault(written.location_of(token.content), []).append(token.content)
        for place, tokens in found.items():
            verbs = "gets a role and is" if len(tokens) == 1 else "get roles and are"
            message = f"{format_quoted(tokens)} {verbs} initialised with the mean, because no `init:` is given"
            yield Found(place, message, "give `init:`, such as {strategy: mean} if it is intended")


def _sets_init(migration: Migration) -> bool:
    footprints = (planned.operation.footprint() for planned in migration.operations)
    return any(each is not None and DEFAULT_INIT in each.writes for each in footprints)


@rule(
    "TM303",
    WARNING,
    wrong=operations('set_padding: {token: "<|endoftext|>", side: left}'),
    right=operations(add_special("<|pad|>"), 'set_padding: {token: "<|pad|>", side: left}'),
)
def pad_is_end(seen: OnModel) -> Iterator[Found]:
    """The pad token is the end token.

    Training masks padding, and masks the real ends with it: the model does not learn to stop.
    """
    cause = seen.last_that(lambda old, new: _pads_with_end(new) and not _pads_with_end(old))
    if cause and _pads_with_end(seen.step.after) and not _pads_with_end(seen.step.before):
        message = f"'{special_token(seen.step.after, 'pad')}' is both the pad and the end token"
        yield Found(cause.location, message, "add a token for padding alone, and pad with it: set_padding: {token: …}")


def _pads_with_end(state: ModelState) -> bool:
    pad = special_token(state, "pad")
    return pad is not None and pad == special_token(state, "eos")


@rule(
    "TM306",
    WARNING,
    given="""\
operations:
  - set_post_processor:
      type: TemplateProcessing
      single: [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
      pair: [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]
      special_tokens: {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}
""",
    wrong=operations(add_special("<|begin|>"), 'set_special_tokens: {bos: "<|begin|>"}'),
    right=operations(add_special("<|begin|>"), 'set_special_tokens: {bos: "<|begin|>"}', "set_post_processor: null"),
)
def old_token_around_text(seen: OnModel) -> Iterator[Found]:
    """A role moves to another token, but the post-processor still puts the old one around texts.

    Every text then begins or ends with a token that has no role any more.
    """
    around = set(post_processor_tokens(seen.step.after.documents[FILE]))
    for role in ROLES:
        old, new = special_token(seen.step.before, role), special_token(seen.step.after, role)
        if old in around and new not in (None, old):
            cause = next(w for w, effect in seen.effects if special_token(effect.after, role) == new)
            message = f"the {role} token is '{new}', but the post-processor still puts '{old}' around a text"
            number = seen.step.after.tokenizer.ids.get(str(new))
            help_ = f"set_post_processor with '{new}' (id {number}) in the place of '{old}', or null"
            yield Found(cause.location_of(str(new)), message, help_)


@rule(
    "TM308",
    WARNING,
    wrong=operations(add_special("<image>")),
    right=operations(add_special("<image>"), 'set_special_tokens: {image: "<image>"}'),
)
def id_without_token(seen: OnModel) -> Iterator[Found]:
    """A field of a configuration holds an id that no token of the model has at the end.

    A processor that puts the id of `image_token_index` into a text then gives the model a row without a meaning,
    or one that is not there. Migrations that add the token do not set the field by themselves.
    """
    if seen.step.after is not seen.final:
        return
    cause = seen.last_that(lambda before, after: before.tokenizer.ids != after.tokenizer.ids)
    place = cause.location if cause else seen.file.location_of("operations")
    for found in ids_without_token(seen.final):
        yield Found(place, str(found), f"name its token: set_special_tokens: {{{found.role}: …}}")


# Words in square or plain angle brackets are often no tokens: [INST] of Llama 2, <tools> of Qwen.
_TOKEN_LIKE = re.compile(r"<[|\uff5c][^\s|\uff5c<>'\"{}]+[|\uff5c]>")
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)

_ENDS_A_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eot|>",
    "<|end|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|endofturn|>",
    "<|END_OF_TURN_TOKEN|>",
)


@rule(
    "TM301",
    ERROR,
    wrong=operations('set_chat_template: "{% for m in messages %}<|turn|>{{ m.content }}{% endfor %}"'),
    right=operations(
        add_special("<|turn|>"), 'set_chat_template: "{% for m in messages %}<|turn|>{{ m.content }}{% endfor %}"'
    ),
)
def names_no_token(seen: OnModel) -> Iterator[Found]:
    """A chat template writes `<|…|>` that is not a token.

    The text is then tokenized into pieces that the model has never seen as a mark, and nothing fails.
    """
    known = seen.step.after.tokenizer.ids
    cause = _last_template_change(seen)
    if cause is None:
        return
    before = _chat_templates(seen.step.before)
    for template in _chat_templates(seen.step.after):
        if template in before:
            continue
        for text in dict.fromkeys(_TOKEN_LIKE.findall(_COMMENT.sub("", template.text))):
            if text not in known:
                message = f"the chat template writes '{text}', which is not a token"
                yield Found(cause.location, message, "add it with add_tokens, or correct the template")


def _last_template_change(seen: OnModel) -> Written | None:
    return seen.last_that(lambda before, after: _chat_templates(before) != _chat_templates(after))


def _chat_templates(state: ModelState) -> list[Template]:
    return [template for template in templates(state) if template.kind == CHAT]


@rule(
    "TM304",
    WARNING,
    wrong=operations("add_role_tokens: {preset: chatml, init: {strategy: mean}}", add_special("<|tool|>")),
    right=operations(
        "add_role_tokens: {preset: chatml, init: {strategy: mean}}",
        add_special("<|tool|>"),
        'set_special_tokens: {additional: ["<|tool|>"]}',
    ),
)
def without_use(seen: OnModel) -> Iterator[Found]:
    """A special token is added that no template and no role uses.

    A special token is written by a template, or stands for something by its role; one that is neither is never met.
    Later migrations count too. A model without a template gives no finding.
    """
    final = seen.final
    texts = [template.text for template in _chat_templates(final)]
    if not texts:
        return
    added = {token.content for _, token in seen.file.added_tokens}
    new = {token: cause for token, cause in seen.causes.items() if token in added}
    special = [t for t in new if t in final.tokenizer.added and final.tokenizer.added[t][0].special]
    used = {*find_in_templates(final, special), *post_processor_tokens(final.documents[FILE])}
    # A list has every special token, and says about none what it is for.
    used |= {text_of(entry) or "" for _, path, entry in find_named_tokens(final) if str(path[-1]).endswith("_token")}
    used |= {final.tokenizer.texts.get(number, "") for *_, ids in ids_by_field(final) for number in ids}
    for written in seen.file.operations:
        used.update(*written.tokens.roles.values())
    used.add((final.documents[FILE].get("padding") or {}).get("pad_token", ""))
    used.add(final.tokenizer.unknown or "")
    for token in special:
        if token not in used and not _may_be_built(token, texts):
            message = f"'{token}' is special, but no template and no role uses it"
            help_ = f"name it in the template, or set_special_tokens: {{additional: {{add: [{escape_text(token)}]}}}}"
            yield Found(new[token].location_of(token), message, help_)


def _may_be_built(token: str, texts: list[str]) -> bool:
    """Return whether a template writes the beginning of a token alone, and may put the rest after it."""
    beginnings = [token[:end] + quote for end in range(1, len(token)) for quote in "'\""]
    return any(beginning in text for beginning in beginnings for text in texts)


@rule(
    "TM305",
    WARNING,
    wrong=operations(
        add_special("<|end|>"), 'set_chat_template: "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"'
    ),
    right=operations(
        add_special("<|end|>"),
        'set_chat_template: "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"',
        'set_special_tokens: {eos: "<|end|>"}',
    ),
)
def turn_does_not_end(seen: OnModel) -> Iterator[Found]:
    """The chat template ends turns with a token at which generation does not stop.

    The model writes the end of its turn, and then continues with the user's.
    """
    cause = _last_template_change(seen)
    if cause is None:
        return
    after = seen.step.after
    ids = after.tokenizer.ids
    ends = [text for text, number in ids.items() if number in _ends(after)]
    # Where the template also writes a real end, the other one may end a part of a turn.
    if find_in_templates(after, ends):
        return
    for token in find_in_templates(after, [text for text in _ENDS_A_TURN if text in ids]):
        message = f"the chat template ends turns with '{token}', but generation does not stop there"
        yield Found(cause.location, message, f"set_special_tokens: {{eos: {escape_text(token)}}}")


def _ends(state: ModelState) -> set[Json]:
    """Return the ids at which generation stops."""
    ends: set[Json] = {state.tokenizer.ids.get(special_token(state, "eos") or "")}
    for name in (CONFIG, GENERATION):
        held = (state.documents.get(name) or {}).get("eos_token_id")
        ends |= set(held) if isinstance(held, list) else {held}
    return ends


@rule(
    "TM309",
    WARNING,
    wrong=operations('set_chat_template: "{% for m in messages %}{{ m.text.strip() }}{% endfor %}"'),
    right=operations('set_chat_template: "{% for m in messages %}{{ m.content.strip() }}{% endfor %}"'),
)
def cannot_be_rendered(seen: OnModel) -> Iterator[Found]:
    """The chat template cannot be rendered, or needs more than a second of CPU time.

    It is rendered as transformers does it, in the same sandbox, for one message of a user. What fails there fails for
    everybody, and full verification refuses the model; a loop or a text that does not end takes a server down.
    """
    cause = _last_template_change(seen)
    if cause is not None and seen.template_error is not None:
        help_ = "correct the template until transformers' apply_chat_template renders one message of a user"
        yield Found(cause.location, f"the chat template {seen.template_error}", help_)


@rule(
    "TM310",
    WARNING,
    given=operations('set_chat_template: "{% for m in messages %}Wait until {{ m.content }}{% endfor %}"'),
    wrong=operations('remove_tokens: {tokens: ["Ġuntil"], ids: tombstone, acknowledge: breaking}'),
    right=operations('remove_tokens: {tokens: ["Ġ417"], ids: tombstone, acknowledge: breaking}'),
)
def template_tokens_removed(seen: OnModel) -> Iterator[Found]:
    """Tokens are removed that the text of a chat template is tokenized as.

    Each conversation then has other tokens around its messages than in training.
    """
    tokens = seen.removed_of_templates
    if tokens:
        are = "is" if len(tokens) == 1 else "are"
        message = f"{format_quoted(tokens)} {are} removed, which the chat template is tokenized as"
        help_ = "keep them; if it is intended, write `# noqa: TM310` and why"
        yield Found(seen.find_removal(*tokens).location_of(*tokens), message, help_)
