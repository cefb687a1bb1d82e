"""The operation `set_chat_template`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.chat_template import with_chat_template
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.operation import CHAT_TEMPLATE, Context, Footprint, Operation, Risk, TokenChanges


class SetChatTemplate(Operation):
    """Set the chat template, given here or as a file beside the migration."""

    name: ClassVar[str] = "set_chat_template"
    shorthand: ClassVar[str | None] = "template"

    template: str | None = Field(default=None, description="The Jinja text.")
    file: str | None = Field(default=None, description="A Jinja file, relative to the migration.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        if (self.template is None) == (self.file is None):
            raise OperationError("set_chat_template takes one of `template:` and `file:`")
        if self.template is not None:
            return with_chat_template(state, self.template)
        try:
            text = context.attachments[str(self.file)].decode("utf-8")
        except UnicodeDecodeError as error:
            raise OperationError("the chat template is not UTF-8", where=self.file) from error
        return with_chat_template(state, text.replace("\r\n", "\n"))

    def risk(self, before: ModelState, after: ModelState) -> Risk:  # noqa: ARG002
        return Risk.caution("chats are rendered differently; the model must have learnt the form")

    def token_changes(self) -> TokenChanges:
        return TokenChanges()

    def footprint(self) -> Footprint:
        return Footprint.of(replaces=[CHAT_TEMPLATE])

    def references(self) -> tuple[str, ...]:
        return (self.file,) if self.file else ()
