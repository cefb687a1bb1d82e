"""The operations on chats: `set_chat_template`, and `add_role_tokens` with the forms that model makers publish."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tokmigrate.errors import OperationError
from tokmigrate.formatting import format_quoted
from tokmigrate.init import InitSpec
from tokmigrate.model.documents.architecture_quirks import tail_move
from tokmigrate.model.documents.chat_template import with_chat_template
from tokmigrate.model.documents.roles import with_role
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.add_tokens import describe_existing, with_new_tokens
from tokmigrate.operations.operation import CHAT_TEMPLATE, Context, Footprint, NewToken, Operation, Risk, TokenChanges
from tokmigrate.operations.token_checks import risk_of_added


@dataclass(frozen=True)
class ChatForm:
    """A form of chat: its special tokens, the one that ends a turn (None: the model's own), and the Jinja template."""

    tokens: tuple[str, ...]
    end: str | None
    template: str


def _write_template(turn: str, prompt: str | None, head: str = "") -> str:
    """Return a template with a `turn` for each message; `prompt` is the expression that opens the assistant's."""
    text = f"{head}{{%- for message in messages -%}}\n{turn}{{%- endfor -%}}\n"
    if prompt is None:
        return text
    return f"{text}{{%- if add_generation_prompt -%}}{{{{- {prompt} -}}}}{{%- endif -%}}\n"


PRESETS: Mapping[str, ChatForm] = {
    "chatml": ChatForm(
        ("<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        _write_template(
            "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}\n",
            "'<|im_start|>assistant\\n'",
        ),
    ),
    "llama3": ChatForm(
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        _write_template(
            "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
            "+ (message['content'] | trim) + '<|eot_id|>' -}}\n",
            "'<|start_header_id|>assistant<|end_header_id|>\\n\\n'",
            head="{{- bos_token -}}\n",
        ),
    ),
    "gemma": ChatForm(
        ("<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        _write_template(
            "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}\n"
            "{{- '<start_of_turn>' + role + '\\n' + (message['content'] | trim) + '<end_of_turn>\\n' -}}\n",
            "'<start_of_turn>model\\n'",
            head="{{- bos_token -}}\n",
        ),
    ),
    "phi": ChatForm(
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|end|>",
        _write_template(
            "{{- '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' -}}\n", "'<|assistant|>\\n'"
        ),
    ),
    "mistral": ChatForm(
        ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        None,
        _write_template(
            "{%- if message['role'] == 'system' -%}\n"
            "{{- '[SYSTEM_PROMPT]' + message['content'] + '[/SYSTEM_PROMPT]' -}}\n"
            "{%- elif message['role'] == 'user' -%}\n"
            "{{- '[INST]' + message['content'] + '[/INST]' -}}\n"
            "{%- else -%}\n"
            "{{- message['content'] + eos_token -}}\n"
            "{%- endif -%}\n",
            prompt=None,
            head="{{- bos_token -}}\n",
        ),
    ),
}


def role_form(roles: Mapping[str, str], end: str) -> ChatForm:
    """Return the form in which each role has a token of its own, and every turn ends with `end`."""
    last = json.dumps(end, ensure_ascii=False)
    template = _write_template(
        "{%- if message['role'] not in starts -%}"
        "{{- raise_exception('unknown role: ' + message['role']) -}}{%- endif -%}\n"
        f"{{{{- starts[message['role']] + '\\n' + message['content'] + {last} + '\\n' -}}}}\n",
        "starts['assistant'] + '\\n'" if "assistant" in roles else None,
        head=f"{{%- set starts = {json.dumps(dict(roles), ensure_ascii=False)} -%}}\n",
    )
    return ChatForm((*dict.fromkeys(roles.values()), end), end, template)


class AddRoleTokens(Operation):
    """Add the tokens of a chat, make one of them the end token, and set the chat template, in one go.

    Either a `preset`, or `roles` of one's own with the token that ends a turn.
    """

    name: ClassVar[str] = "add_role_tokens"
    shorthand: ClassVar[str | None] = "preset"

    preset: Literal["chatml", "llama3", "gemma", "phi", "mistral"] | None = Field(
        default=None, description="A published form of chat."
    )
    roles: dict[str, str] | None = Field(default=None, description="The token that opens each role's turn.")
    end: str | None = Field(default=None, description="The token that ends a turn.")
    template: Literal["set", "keep"] = Field(default="set", description="Whether the chat template is set.")
    existing: Literal["refuse", "reuse"] = Field(
        default="refuse", description="What happens with a token that the tokenizer has already."
    )
    init: InitSpec | None = Field(default=None, description="How the rows are initialised.")

    @model_validator(mode="after")
    def _check_form(self) -> AddRoleTokens:
        if (self.preset is None) == (self.roles is None):
            raise ValueError("give one of `preset` and `roles`")
        if self.preset is not None and self.end not in (None, PRESETS[self.preset].end):
            raise ValueError(f"the preset '{self.preset}' ends a turn with '{PRESETS[self.preset].end}'")
        if self.preset is None and (not self.roles or self.end is None):
            raise ValueError("`roles` needs at least one role, and `end` the token that ends a turn")
        return self

    @property
    def form(self) -> ChatForm:
        return PRESETS[self.preset] if self.preset is not None else role_form(self.roles or {}, self.end or "")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        form = self.form
        known = state.tokenizer.ids
        wanted = [token for token in form.tokens if self.existing == "refuse" or token not in known]
        state = with_new_tokens(state, context, _special(wanted), self.init)
        if form.end is not None:
            state = with_role(state, "eos", form.end)
        return state if self.template == "keep" else with_chat_template(state, form.template)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        if (risk := risk_of_added(before, after)) is not None:
            return risk
        form = self.form
        known = [token for token in form.tokens if token in before.tokenizer.ids]
        new = [token for token in form.tokens if token not in known]
        reasons = ["old text is tokenized as before"]
        if form.end in new:
            reasons = ["old text is tokenized as before, but chats end at a token whose row is not trained yet"]
        elif new:
            reasons.append(f"{format_quoted(new)} is not trained yet")
        reasons += [describe_existing(known)] if known else []
        reasons += [move] if (move := tail_move(before, after)) else []
        return Risk.caution("; ".join(reasons))

    def token_changes(self) -> TokenChanges:
        form = self.form
        roles = {"chat": form.tokens} | ({"eos": (form.end,)} if form.end is not None else {})
        return TokenChanges(added=_special(form.tokens), may_exist=self.existing == "reuse", roles=roles)

    def footprint(self) -> Footprint:
        form = self.form
        writes = [*Footprint.name_tokens(form.tokens), *(["the eos token"] if form.end else [])]
        return Footprint.of(writes, Footprint.name_init(self.init), [CHAT_TEMPLATE] if self.template == "set" else [])

    def expected(self, state: ModelState, context: Context) -> ModelState:
        return self.model_copy(update={"existing": "reuse"}).apply(state, context)


def _special(contents: Iterable[str]) -> tuple[NewToken, ...]:
    return tuple(NewToken(content=content, special=True) for content in contents)


class SetChatTemplate(Operation):
    """Set the chat template, given here or as a file beside the migration."""

    name: ClassVar[str] = "set_chat_template"
    shorthand: ClassVar[str | None] = "template"

    template: str | None = Field(default=None, description="The Jinja text.")
    file: str | None = Field(default=None, description="A Jinja file, relative to the migration.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        if (self.template is None) == (self.file is None):
            hint = "`template:` is the text itself, `file:` the name of a file beside the migration"
            raise OperationError("set_chat_template takes one of `template:` and `file:`", hint=hint)
        if self.template is not None:
            return with_chat_template(state, self.template)
        try:
            text = context.attachments[str(self.file)].decode("utf-8")
        except UnicodeDecodeError as error:
            hint = "save the file as UTF-8"
            raise OperationError("the chat template is not UTF-8", where=self.file, hint=hint) from error
        return with_chat_template(state, text.replace("\r\n", "\n"))

    def risk(self, before: ModelState, after: ModelState) -> Risk:  # noqa: ARG002
        return Risk.caution("chats are rendered differently; the model must have learnt the form")

    def token_changes(self) -> TokenChanges:
        return TokenChanges()

    def footprint(self) -> Footprint:
        return Footprint.of(replaces=[CHAT_TEMPLATE])

    def references(self) -> tuple[str, ...]:
        return (self.file,) if self.file else ()
