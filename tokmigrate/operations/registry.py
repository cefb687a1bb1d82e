"""Which operations there are: the package's own, and those of plug-ins."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType

from tokmigrate.errors import UsageError
from tokmigrate.operations.add_role_tokens import AddRoleTokens
from tokmigrate.operations.add_tokens import AddTokens
from tokmigrate.operations.base import Operation
from tokmigrate.operations.move_tokens import MoveTokens
from tokmigrate.operations.reinit_tokens import ReinitTokens
from tokmigrate.operations.remove_tokens import RemoveTokens
from tokmigrate.operations.rename_tokens import RenameTokens
from tokmigrate.operations.resize_vocab import ResizeVocab
from tokmigrate.operations.set_chat_template import SetChatTemplate
from tokmigrate.operations.set_decoder import SetDecoder
from tokmigrate.operations.set_init import SetInit
from tokmigrate.operations.set_normalizer import SetNormalizer
from tokmigrate.operations.set_padding import SetPadding
from tokmigrate.operations.set_post_processor import SetPostProcessor
from tokmigrate.operations.set_pre_tokenizer import SetPreTokenizer
from tokmigrate.operations.set_special_tokens import SetSpecialTokens
from tokmigrate.operations.set_token_flags import SetTokenFlags
from tokmigrate.operations.set_truncation import SetTruncation

GROUP = "tokmigrate.operations"
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
)


@cache
def operation_types() -> Mapping[str, type[Operation]]:
    """Return every operation by the name that migrations use; raises UsageError for a bad plug-in."""
    found: dict[str, type[Operation]] = {kind.name: kind for kind in BUILT_IN}
    for point in entry_points(group=GROUP):
        kind = point.load()
        if not (isinstance(kind, type) and issubclass(kind, Operation)):
            raise UsageError(f"the plug-in '{point.name}' is no Operation", where=point.value)
        if point.name in found:
            raise UsageError(f"two operations are called '{point.name}'", where=point.value)
        found[point.name] = kind
    return MappingProxyType(found)
