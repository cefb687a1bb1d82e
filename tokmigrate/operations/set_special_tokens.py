"""The operation `set_special_tokens`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.config_fields import ROLES_BY_ID, can_be_set
from tokmigrate.model.documents.roles import (
    ROLES,
    Role,
    list_of_specials,
    special_token,
    text_of,
    with_listed_specials,
    with_role,
    with_special_flag,
    without_listed_specials,
)
from tokmigrate.model.documents.state import SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.references.id_settings import ListChange, Setting, tokens_in, with_setting
from tokmigrate.model.tokenizer.tokenizer_json import FILE, post_processor_tokens
from tokmigrate.operations.operation import Context, Footprint, Operation, Risk, TokenChanges
from tokmigrate.operations.padding_and_truncation import with_pad_token
from tokmigrate.operations.token_checks import id_of, risk_of_added
from tokmigrate.strict_yaml.validation import Closed


class Change(Closed):
    """Tokens that come to a list, and tokens that go from it."""

    add: tuple[str, ...] = Field(default=(), description="Tokens that come to the list.")
    remove: tuple[str, ...] = Field(default=(), description="Tokens that go from the list.")

    @model_validator(mode="after")
    def _says_something(self) -> Change:
        if not self.add and not self.remove:
            raise ValueError("a change of a list gives `add` or `remove`")
        return self

    def to_setting(self) -> ListChange:
        return ListChange(self.add, self.remove)


def _check_name(name: str) -> str:
    if not can_be_set(name):
        raise PydanticCustomError("extra_forbidden", "unknown field")
    return name


Name = Annotated[str, AfterValidator(_check_name)]
Tokens = tuple[str, ...]


class SetSpecialTokens(Operation):
    """Say which token begins, ends, pads, masks … a text, in every file that says so.

    Where a file holds a list of ids (the ends of a generation), the new id goes first and the others stay.

    Other tokens that configurations name by id are set by what stands before `_token_id`, `_token_index` or `_id`, or
    by the name of the field: `image`, `video`, `audio`, `boi`, `eoi`, `decoder_start`, `forced_bos`, `suppress_tokens`,
    `lang_to_id` and so on, and fields that `id_fields` of tokmigrate.yaml declares. Each takes a token; a field that
    holds a list takes a list, which replaces it, or `{add: […], remove: […]}`; a map takes `{name: token}` or the same.
    The model must have such a field, or transformers a default for it.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: ClassVar[str] = "set_special_tokens"
    further_fields: ClassVar[tuple[str, ...]] = ROLES_BY_ID

    __pydantic_extra__: dict[Name, str | Tokens | Change | dict[str, str]] = Field(init=False)

    bos: str | None = Field(default=None, description="Begins a text.")
    eos: str | None = Field(default=None, description="Ends a text or a turn.")
    unk: str | None = Field(default=None, description="Stands for what has no token.")
    sep: str | None = Field(default=None, description="Stands between two texts.")
    pad: str | None = Field(default=None, description="Fills a batch; as `set_padding: {token: …}`.")
    cls: str | None = Field(default=None, description="Stands for the whole text.")
    mask: str | None = Field(default=None, description="Stands for a hidden token.")
    additional: Tokens | Change | None = Field(
        default=None, description="All further special tokens, in place of those listed; or what changes of the list."
    )

    @property
    def settings(self) -> dict[str, Setting]:
        """The fields that hold ids beside those of the roles, with what they are set to."""
        given: dict[str, Any] = self.model_extra or {}
        return {name: held.to_setting() if isinstance(held, Change) else held for name, held in given.items()}

    def roles(self) -> dict[Role, str]:
        """Return the token of each role that is given."""
        return {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}

    def token_changes(self) -> TokenChanges:
        listed = self.additional.to_setting() if isinstance(self.additional, Change) else self.additional or ()
        roles: dict[str, tuple[str, ...]] = {role: (content,) for role, content in self.roles().items()}
        roles |= {name: tokens_in(setting) for name, setting in {**self.settings, "additional": listed}.items()}
        return TokenChanges(roles=roles)

    def footprint(self) -> Footprint:
        replaces = [f"the {role} token" for role in self.roles()]
        # What only changes a list does not replace it.
        replaces += [_name_field(name) for name, held in self.settings.items() if not isinstance(held, ListChange)]
        writes = [_name_field(name) for name in self.settings]
        writes += [] if self.additional is None else ["the list of special tokens"]
        return Footprint.of(writes, Footprint.name_tokens(self._list_tokens()), replaces)

    def _list_tokens(self) -> tuple[str, ...]:
        return tuple(token for tokens in self.token_changes().roles.values() for token in tokens)

    def apply(self, state: ModelState, context: Context) -> ModelState:  # noqa: ARG002
        if not self.roles() and self.additional is None and not self.settings:
            raise OperationError("set_special_tokens names no token", hint="give one of " + ", ".join(ROLES))
        for token in self._list_tokens():
            id_of(state, token)
        for role, content in self.roles().items():
            state = with_pad_token(state, content) if role == "pad" else with_role(state, role, content)
        for name, setting in self.settings.items():
            state = with_setting(state, name, setting)
        if self.additional is None:
            return state
        contents = self.additional.add if isinstance(self.additional, Change) else self.additional
        for content in contents:
            state = with_special_flag(state, content)
        if isinstance(self.additional, Change) and TOKENIZER_CONFIG in state.documents:
            return with_listed_specials(without_listed_specials(state, self.additional.remove), contents)
        return _with_list(state, contents)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        if (risk := risk_of_added(before, after)) is not None:
            return risk
        around = set(post_processor_tokens(before.documents[FILE]))
        for role in ("bos", "eos", "sep", "cls"):
            old, new = special_token(before, role), getattr(self, role)
            if new is not None and old in around and old != new:
                return Risk.caution(
                    f"the post-processor of tokenizer.json still puts '{old}' around a text, and not '{new}'",
                )
        if self.eos is not None:
            return Risk.caution("generation ends at another token, which the model must have learnt")
        return Risk.caution("the model must have been trained with these tokens")


def _name_field(name: str) -> str:
    return f"the id field '{name}'"


def _with_list(state: ModelState, contents: tuple[str, ...]) -> ModelState:
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
        document = state.documents.get(name)
        if document is None and name == SPECIAL_TOKENS_MAP:
            continue
        key = list_of_specials(state, name) or ("additional_special_tokens" if document else "extra_special_tokens")
        held = {text_of(entry): entry for entry in (document or {}).get(key) or []}
        # An entry that gives flags keeps them.
        state = state.with_value(name, (key,), [held.get(content, content) for content in contents])
    return state
