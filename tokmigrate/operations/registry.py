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
from tokmigrate.operations.resize_vocab import ResizeVocab
from tokmigrate.operations.set_chat_template import SetChatTemplate
from tokmigrate.operations.set_init import SetInit
from tokmigrate.operations.set_padding import SetPadding
from tokmigrate.operations.set_special_tokens import SetSpecialTokens

GROUP = "tokmigrate.operations"
BUILT_IN: tuple[type[Operation], ...] = (
    AddTokens,
    AddRoleTokens,
    SetInit,
    SetSpecialTokens,
    SetPadding,
    SetChatTemplate,
    ResizeVocab,
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
