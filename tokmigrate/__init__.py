"""Schema migrations for tokenizers and their embedding matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokmigrate.api import OpenWorkspace, open  # noqa: A004
    from tokmigrate.commands.check import Checked
    from tokmigrate.commands.downgrade import Downgraded
    from tokmigrate.commands.inspect import ModelStatus
    from tokmigrate.commands.upgrade import Upgraded
    from tokmigrate.errors import BusyError, DriftError, TokmigrateError, UsageError
    from tokmigrate.plan.plan import Plan

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("OpenWorkspace", "open"), "api"),
    **dict.fromkeys(("BusyError", "DriftError", "TokmigrateError", "UsageError"), "errors"),
    "Checked": "commands.check",
    "Downgraded": "commands.downgrade",
    "ModelStatus": "commands.inspect",
    "Plan": "plan.plan",
    "Upgraded": "commands.upgrade",
}

__all__ = [
    "BusyError",
    "Checked",
    "Downgraded",
    "DriftError",
    "ModelStatus",
    "OpenWorkspace",
    "Plan",
    "TokmigrateError",
    "Upgraded",
    "UsageError",
    "open",
]


def __getattr__(name: str) -> Any:
    """Return an exported name, imported when it is first asked for: the command line starts without them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tokmigrate' has no attribute '{name}'")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"tokmigrate.{_HOMES[name]}"), name)
