"""TM3: templates, and the tokens that have a role."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokmigrate.lint.file import MigrationFile, Written
from tokmigrate.lint.model import OnModel
from tokmigrate.lint.rule import FileRule, Found, ModelRule, Severity
from tokmigrate.model.documents.roles import ROLES, special_token, text_of
from tokmigrate.model.documents.state import CONFIG, GENERATION, ModelState
from tokmigrate.model.documents.template_tokens import CHAT, templates, written_in_templates
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.token_texts import named_tokens
from tokmigrate.model.tokenizer.tokenizer_json import FILE, post_processor_tokens
from tokmigrate.operations.add_role_tokens import AddRoleTokens
from tokmigrate.operations.add_tokens import AddTokens
from tokmigrate.operations.pipeline_part import SetPart
from tokmigrate.operations.set_chat_template import SetChatTemplate
from tokmigrate.operations.set_init import SetInit
from tokmigrate.operations.set_padding import SetPadding
from tokmigrate.operations.set_special_tokens import SetSpecialTokens

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

_CHAT_ROLES = ("bos", "eos", "sep", "cls", "mask")


def _names_no_token(seen: OnModel) -> Iterator[Found]:
    """A chat template writes `<|…|>` that is no token.

    The text is then cut into pieces that the model has never seen as a mark, and nothing fails.
    """
    known = seen.step.after.tokenizer.ids
    cause = _template_set(seen)
    if cause is None:
        return
    for template in templates(seen.step.after):
        if template.kind != CHAT or template in set(templates(seen.step.before)):
            continue
        for text in dict.fromkeys(_TOKEN_LIKE.findall(_COMMENT.sub("", template.text))):
            if text not in known:
                message = f"the chat template writes '{text}', which is no token"
                yield Found(cause.place, message, "add it with add_tokens, or correct the template")


def _template_set(seen: OnModel) -> Written | None:
    """Return the last operation that changes a chat template."""
    changed = [w for w, before, after in seen.changes if list(templates(before)) != list(templates(after))]
    return changed[-1] if changed else None


def _role_token_without_init(file: MigrationFile) -> Iterator[Found]:
    """A token with a role is added, and nothing says how its row starts.

    It starts as the mean of all rows, like any other: the model meets it in every text, and has to learn it from
    nothing. `description`, `copy` or `average` begin with what is known of such tokens. `{strategy: mean}` says that it
    is meant.
    """
    if file.migration.init is not None or any(_sets_init(earlier.operations) for earlier in file.earlier):
        return
    # What Python migrations set is known only for a model.
    if any(earlier.source is not None for earlier in file.earlier):
        return
    roles = {
        getattr(written.operation, role)
        for written in file.operations
        if isinstance(written.operation, SetSpecialTokens)
        for role in _CHAT_ROLES
    }
    for written in file.operations:
        operation = written.operation
        if isinstance(operation, SetInit):
            return
        if isinstance(operation, AddRoleTokens) and operation.init is None and operation.existing == "refuse":
            message = "the tokens of the roles start from the mean, because no `init:` is given"
            yield Found(written.place, message, "give `init:`, such as {strategy: mean} if it is meant")
        if isinstance(operation, AddTokens) and operation.init is None:
            for token in operation.tokens:
                if token.init is None and token.content in roles:
                    message = f"'{token.content}' gets a role, and starts from the mean, because no `init:` is given"
                    yield Found(written.spot(token.content), message, "give it an `init:`")


def _sets_init(operations: tuple[object, ...]) -> bool:
    return any(isinstance(getattr(planned, "operation", None), SetInit) for planned in operations)


def _pad_is_end(seen: OnModel) -> Iterator[Found]:
    """The pad token is the end token.

    Training masks padding, and masks the real ends with it: the model does not learn to stop.
    """
    if _pads_with_end(seen.step.before) or not _pads_with_end(seen.step.after):
        return
    cause = next(w for w, before, after in _reversed(seen) if not _pads_with_end(before) and _pads_with_end(after))
    token = special_token(seen.step.after, "pad")
    yield Found(cause.place, f"'{token}' is both the pad and the end token", "add a token for padding alone")


def _pads_with_end(state: ModelState) -> bool:
    pad = special_token(state, "pad")
    return pad is not None and pad == special_token(state, "eos")


def _reversed(seen: OnModel) -> list[tuple[Written, ModelState, ModelState]]:
    return list(seen.changes)[::-1]


def _without_use(seen: OnModel) -> Iterator[Found]:
    """A special token is added that no template and no role uses.

    A special token is written by a template, or stands for something by its role; one that is neither is never met.
    Later migrations count too. Where the model has no template, nothing is said.
    """
    final = seen.final
    texts = [template.text for template in templates(final) if template.kind == CHAT]
    if not texts:
        return
    new = {token: cause for token, cause in seen.causes.items() if isinstance(cause.operation, AddTokens)}
    special = [t for t in new if t in final.tokenizer.added and final.tokenizer.added[t][0].special]
    used = {*written_in_templates(final, special), *post_processor_tokens(final.documents[FILE])}
    used |= {text_of(entry) or "" for _, path, entry in named_tokens(final) if path[0] != "added_tokens_decoder"}
    used.add((final.documents[FILE].get("padding") or {}).get("pad_token", ""))
    used.add(final.tokenizer.unknown or "")
    for token in special:
        if token not in used and not _may_be_built(token, texts):
            message = f"'{token}' is special, but no template and no role uses it"
            yield Found(new[token].spot(token), message, "name it in the template, or under `additional:`")


def _may_be_built(token: str, texts: list[str]) -> bool:
    """Return whether a template writes the beginning of a token alone, and may put the rest behind it."""
    beginnings = [token[:end] + quote for end in range(1, len(token)) for quote in "'\""]
    return any(beginning in text for beginning in beginnings for text in texts)


def _turn_does_not_end(seen: OnModel) -> Iterator[Found]:
    """The chat template ends turns with a token at which generation does not stop.

    The model writes the end of its turn, and then goes on with the user's.
    """
    cause = _template_set(seen)
    if cause is None:
        return
    after = seen.step.after
    ids = after.tokenizer.ids
    ends = [text for text, number in ids.items() if number in _ends(after)]
    # Where the template also writes a real end, the other one may end a part of a turn.
    if written_in_templates(after, ends):
        return
    for token in written_in_templates(after, [text for text in _ENDS_A_TURN if text in ids]):
        message = f"the chat template ends turns with '{token}', but generation does not stop there"
        yield Found(cause.place, message, f'set_special_tokens: {{eos: "{token}"}}')


def _ends(state: ModelState) -> set[Json]:
    """Return the ids at which generation stops."""
    ends: set[Json] = {state.tokenizer.ids.get(special_token(state, "eos") or "")}
    for name in (CONFIG, GENERATION):
        held = (state.documents.get(name) or {}).get("eos_token_id")
        ends |= set(held) if isinstance(held, list) else {held}
    return ends


def _old_token_around_text(seen: OnModel) -> Iterator[Found]:
    """A role goes to another token, and the post-processor still puts the old one around texts.

    Every text then begins or ends with a token that has no role any more.
    """
    around = set(post_processor_tokens(seen.step.after.documents[FILE]))
    for role in ROLES:
        old, new = special_token(seen.step.before, role), special_token(seen.step.after, role)
        if old in around and new not in (None, old):
            causes = [w for w, _, after in seen.changes if special_token(after, role) == new]
            message = f"the {role} token is '{new}', but the post-processor still puts '{old}' around a text"
            yield Found(causes[0].spot(str(new)), message, "set_post_processor with the new token")


def _said_twice(file: MigrationFile) -> Iterator[Found]:
    """The same thing is set twice in one file.

    Only the last one counts; who reads the first is misled.
    """
    said: dict[str, Written] = {}
    for written in file.operations:
        for what in _settings(written):
            if what in said:
                message = f"{what} is set here, and was set in line {said[what].place.line} already"
                yield Found(written.place, message, "leave one of the two out")
            said[what] = written


def _settings(written: Written) -> Iterator[str]:
    operation = written.operation
    if isinstance(operation, SetPart):
        yield f"the {operation.section}"
    if isinstance(operation, SetChatTemplate) or (isinstance(operation, AddRoleTokens) and operation.template == "set"):
        yield "the chat template"
    if isinstance(operation, SetSpecialTokens):
        yield from (f"the {role} token" for role in ROLES if getattr(operation, role) is not None)
    if isinstance(operation, SetPadding) and operation.token is not None:
        yield "the pad token"


RULES = (
    ModelRule(
        "TM301",
        "names-no-token",
        Severity.ERROR,
        _names_no_token,
        wrong="""\
operations:
  - set_chat_template: "{% for m in messages %}<|turn|>{{ m.content }}{% endfor %}"
""",
        right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<|turn|>", special: true}
  - set_chat_template: "{% for m in messages %}<|turn|>{{ m.content }}{% endfor %}"
""",
    ),
    FileRule(
        "TM302",
        "role-token-without-init",
        Severity.WARNING,
        _role_token_without_init,
        wrong="""\
operations:
  - add_role_tokens: {preset: chatml}
""",
        right="""\
operations:
  - add_role_tokens: {preset: chatml, init: {strategy: mean}}
""",
    ),
    ModelRule(
        "TM303",
        "pad-is-end",
        Severity.WARNING,
        _pad_is_end,
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
    ),
    ModelRule(
        "TM304",
        "without-use",
        Severity.WARNING,
        _without_use,
        wrong="""\
operations:
  - add_role_tokens: {preset: chatml, init: {strategy: mean}}
  - add_tokens:
      tokens:
        - {content: "<|tool|>", special: true}
""",
        right="""\
operations:
  - add_role_tokens: {preset: chatml, init: {strategy: mean}}
  - add_tokens:
      tokens:
        - {content: "<|tool|>", special: true}
  - set_special_tokens: {additional: ["<|tool|>"]}
""",
    ),
    ModelRule(
        "TM305",
        "turn-does-not-end",
        Severity.WARNING,
        _turn_does_not_end,
        wrong="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<|end|>", special: true}
  - set_chat_template: "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
""",
        right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<|end|>", special: true}
  - set_chat_template: "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
  - set_special_tokens: {eos: "<|end|>"}
""",
    ),
    ModelRule(
        "TM306",
        "old-token-around-text",
        Severity.WARNING,
        _old_token_around_text,
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
    ),
    FileRule(
        "TM307",
        "said-twice",
        Severity.WARNING,
        _said_twice,
        wrong="""\
operations:
  - set_normalizer: NFC
  - set_normalizer: NFKC
""",
        right="""\
operations:
  - set_normalizer: NFKC
""",
    ),
)
