"""What an operation lays claim to, so that two branches can be told to have nothing to do with each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tokmigrate.initialise import InitSpec
from tokmigrate.operations.add_role_tokens import AddRoleTokens
from tokmigrate.operations.add_tokens import AddTokens
from tokmigrate.operations.base import Operation
from tokmigrate.operations.move_tokens import MoveTokens
from tokmigrate.operations.pipeline_part import SetPart
from tokmigrate.operations.reinit_tokens import ReinitTokens
from tokmigrate.operations.remove_tokens import RemoveTokens
from tokmigrate.operations.rename_tokens import RenameTokens
from tokmigrate.operations.resize_vocab import ResizeVocab
from tokmigrate.operations.set_chat_template import SetChatTemplate
from tokmigrate.operations.set_init import SetInit
from tokmigrate.operations.set_padding import SetPadding
from tokmigrate.operations.set_special_tokens import SetSpecialTokens
from tokmigrate.operations.set_token_flags import SetTokenFlags
from tokmigrate.operations.set_truncation import SetTruncation

DEFAULT_INIT = "the default start of rows"
_TEMPLATE = "the chat template"
_IDS = "the ids of all tokens"


@dataclass(frozen=True)
class Claims:
    """What is changed and what is relied on, in words.

    Args:
        changes: Tokens, ids, roles, parts of the tokenizer.
        relies_on: What has to stay as it is for that.
    """

    changes: frozenset[str] = frozenset()
    relies_on: frozenset[str] = frozenset()

    def __or__(self, other: Claims) -> Claims:
        return Claims(self.changes | other.changes, self.relies_on | other.relies_on)

    def shared(self, other: Claims) -> tuple[str, ...]:
        """Return what one changes and the other changes or relies on, sorted."""
        either = self.changes & (other.changes | other.relies_on) | other.changes & self.relies_on
        return tuple(sorted(either))


def claims_of(operation: Operation) -> Claims | None:
    """Return what an operation claims; None for one of a plug-in, of which nobody knows."""
    init: InitSpec | None = getattr(operation, "init", None)
    read = Claims(relies_on=frozenset(_read(init)))
    match operation:
        case AddTokens():
            specs = [token.init or init for token in operation.tokens]
            changes = _tokens(token.content for token in operation.tokens)
            return Claims(changes, frozenset(text for spec in specs for text in _read(spec)))
        case AddRoleTokens():
            form = operation.form()
            changed = [*_tokens(form.tokens), *(["the eos token"] if form.end else [])]
            changed += [_TEMPLATE] if operation.template == "set" else []
            return Claims(frozenset(changed)) | read
        case SetInit():
            return Claims(frozenset({DEFAULT_INIT}), frozenset(_read(init)))
        case SetSpecialTokens():
            return _roles(operation)
        case SetPadding():
            pad = ["the pad token"] if operation.token else []
            return Claims(frozenset({"padding", *pad}), _tokens([operation.token] if operation.token else []))
        case SetTruncation():
            return Claims(frozenset({"truncation"}))
        case SetChatTemplate():
            return Claims(frozenset({_TEMPLATE}))
        case ResizeVocab():
            return Claims(frozenset({"the number of rows"})) | read
        case RenameTokens():
            changes = _tokens([*operation.tokens, *operation.tokens.values()])
            began = read if operation.init else Claims()
            return Claims(changes | ({_TEMPLATE} if operation.in_template else set())) | began
        case ReinitTokens():
            return Claims(_tokens(operation.tokens)) | read
        case SetTokenFlags():
            return Claims(_tokens(operation.tokens))
        case MoveTokens():
            numbers = {f"id {number}" for number in operation.tokens.values()}
            return Claims(_tokens(operation.tokens) | numbers, frozenset({_IDS}))
        case RemoveTokens():
            return Claims(_tokens(operation.tokens) | ({_IDS} if operation.ids == "compact" else set()))
        case SetPart():
            # A post-processor names ids.
            return Claims(frozenset({f"the {operation.section}"}), frozenset({_IDS}))
    return None


def _roles(operation: SetSpecialTokens) -> Claims:
    changes = {f"the {role} token" for role in (*operation.roles(), *operation.settings)}
    changes |= {"the list of special tokens"} if operation.additional is not None else set()
    return Claims(frozenset(changes), _tokens(operation.tokens()))


def _tokens(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(f"the token '{text}'" for text in texts)


def _read(init: InitSpec | None) -> Iterator[str]:
    """Yield what the start of a row relies on."""
    if init is None:
        yield DEFAULT_INIT
        return
    yield from _tokens(_named(init.model_dump(mode="json")))


def _named(held: Any) -> Iterator[str]:
    """Yield the tokens that a strategy names."""
    if isinstance(held, dict):
        for key, value in held.items():
            if key == "token":
                yield value
            elif key == "tokens":
                yield from value
            else:
                yield from _named(value)
