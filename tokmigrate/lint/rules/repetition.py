"""TM1 and TM3: what one file says twice."""

from __future__ import annotations

from collections.abc import Iterator

from tokmigrate.lint.file import MigrationFile, Written
from tokmigrate.lint.rule import WARNING, Found, rule
from tokmigrate.model.references.id_settings import ListChange
from tokmigrate.operations.add_role_tokens import AddRoleTokens
from tokmigrate.operations.add_tokens import AddTokens
from tokmigrate.operations.move_tokens import MoveTokens
from tokmigrate.operations.pipeline_part import SetPart
from tokmigrate.operations.reinit_tokens import ReinitTokens
from tokmigrate.operations.remove_tokens import RemoveTokens
from tokmigrate.operations.rename_tokens import RenameTokens
from tokmigrate.operations.set_chat_template import SetChatTemplate
from tokmigrate.operations.set_padding import SetPadding
from tokmigrate.operations.set_special_tokens import SetSpecialTokens
from tokmigrate.operations.set_token_flags import SetTokenFlags

_POINTLESS = {
    ("added", "renamed"): "add it with that text",
    ("added", "removed"): "leave it out",
    ("added", "begun anew"): "say with `init:` where it is added how its row starts",
    ("added", "flagged"): "give it the flags where it is added",
    ("renamed", "renamed"): "give it the last text at once",
    ("renamed", "removed"): "remove it by its old text",
    ("renamed", "begun anew"): "give rename_tokens the `init:`",
    ("begun anew", "removed"): "remove it only",
    ("begun anew", "begun anew"): "say once how its row starts",
    ("moved", "moved"): "move it once",
    ("moved", "removed"): "remove it only",
    ("removed", "added"): "reinit_tokens begins a row anew, and the id stays",
}
"""What becomes of a token in one file, one after the other, where one operation would do."""

_FATES = {
    AddTokens: "added",
    RenameTokens: "renamed",
    RemoveTokens: "removed",
    ReinitTokens: "begun anew",
    MoveTokens: "moved",
    SetTokenFlags: "flagged",
}


@rule(
    "TM113",
    "changed-twice",
    WARNING,
    wrong="""\
operations:
  - add_tokens: ["<tool>"]
  - set_token_flags: {tokens: "<tool>", special: true}
""",
    right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<tool>", special: true}
""",
)
def changed_twice(file: MigrationFile) -> Iterator[Found]:
    """A token is changed by one operation, and then by another one of the same file.

    One operation says what it shall be; a reader of two has to work it out.
    """
    history: dict[str, tuple[str, int]] = {}
    for written in file.operations:
        for text, fate in _fates(written):
            held = history.get(text)
            help_ = _POINTLESS.get((held[0], fate)) if held else None
            if held and help_:
                message = f"'{text}' is {fate} here, and was {held[0]} in line {held[1]} of the same file"
                yield Found(written.spot(text), message, help_)
            history[text] = (fate, written.place.line)
        if isinstance(written.operation, RenameTokens):
            history |= dict.fromkeys(written.operation.tokens.values(), ("renamed", written.place.line))


def _fates(written: Written) -> Iterator[tuple[str, str]]:
    """Yield each token that an operation changes, with what becomes of it."""
    operation = written.operation
    for kind, fate in _FATES.items():
        if isinstance(operation, kind):
            texts = (getattr(token, "content", token) for token in operation.tokens)
            yield from ((str(text), fate) for text in texts)


@rule(
    "TM307",
    "said-twice",
    WARNING,
    wrong="""\
operations:
  - set_normalizer: NFC
  - set_normalizer: NFKC
""",
    right="""\
operations:
  - set_normalizer: NFKC
""",
)
def said_twice(file: MigrationFile) -> Iterator[Found]:
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
        yield from (f"the {role} token" for role in operation.roles())
        # What only changes a list leaves what was said of it.
        yield from (f"'{name}'" for name, held in operation.settings.items() if not isinstance(held, ListChange))
    if isinstance(operation, SetPadding) and operation.token is not None:
        yield "the pad token"
