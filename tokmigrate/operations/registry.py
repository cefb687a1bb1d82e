"""Which operations there are: the package's own, and those of plug-ins."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache

from tokmigrate.operations.add_tokens import AddTokens
from tokmigrate.operations.add_words import AddWords
from tokmigrate.operations.chat import AddRoleTokens, SetChatTemplate
from tokmigrate.operations.extend_vocab import ExtendVocab
from tokmigrate.operations.move_tokens import MoveTokens
from tokmigrate.operations.operation import Operation
from tokmigrate.operations.padding_and_truncation import SetPadding, SetTruncation
from tokmigrate.operations.pipeline import SetDecoder, SetNormalizer, SetPostProcessor, SetPreTokenizer
from tokmigrate.operations.remove_tokens import RemoveTokens
from tokmigrate.operations.rename_tokens import RenameTokens
from tokmigrate.operations.row_operations import ReinitTokens, ResizeVocab, SetInit
from tokmigrate.operations.set_special_tokens import SetSpecialTokens
from tokmigrate.operations.set_token_flags import SetTokenFlags
from tokmigrate.operations.transplant import Transplant
from tokmigrate.plugins import OPERATIONS, load_plugins

BUILT_IN: tuple[type[Operation], ...] = (
    AddTokens,
    AddRoleTokens,
    SetInit,
    SetSpecialTokens,
    SetPadding,
    SetChatTemplate,
    ResizeVocab,
    RenameTokens,
    ReinitTokens,
    SetTokenFlags,
    SetNormalizer,
    SetPreTokenizer,
    SetPostProcessor,
    SetDecoder,
    SetTruncation,
    MoveTokens,
    RemoveTokens,
    ExtendVocab,
    AddWords,
    Transplant,
)


def operation_types() -> Mapping[str, type[Operation]]:
    """Return every operation by the name that migrations use; raises PluginError for a plug-in that cannot be used."""
    return _types(tuple(sys.path))


# Plug-ins are found on `sys.path`, so the result holds as long as that does.
@cache
def _types(_path: tuple[str, ...]) -> Mapping[str, type[Operation]]:
    built_in = {kind.name: kind for kind in BUILT_IN}
    return load_plugins(OPERATIONS, Operation, built_in, lambda kind: getattr(kind, "name", None))
