"""The workspace: `tokmigrate.yaml`, which says what models there are, and where migrations and state live."""

from tokmigrate.settings.reading import STATE_VARIABLE, find_workspace, read_workspace
from tokmigrate.settings.workspace import (
    FILE_NAME,
    NEW_WORKSPACE,
    FieldShape,
    LintSetting,
    ModelCopy,
    ModelEntry,
    VocabTensorSetting,
    WorkerLimits,
    Workspace,
)

__all__ = [
    "FILE_NAME",
    "NEW_WORKSPACE",
    "STATE_VARIABLE",
    "FieldShape",
    "LintSetting",
    "ModelCopy",
    "ModelEntry",
    "VocabTensorSetting",
    "WorkerLimits",
    "Workspace",
    "find_workspace",
    "read_workspace",
]
