"""Schema migrations for tokenizers and their embedding matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokmigrate.api import OpenWorkspace, open  # noqa: A004
    from tokmigrate.errors import BusyError, DriftError, TokmigrateError, UsageError
    from tokmigrate.plan.upgrade import Plan
    from tokmigrate.runner.check import Checked
    from tokmigrate.runner.look import ModelStatus
    from tokmigrate.runner.migrate import Downgraded, Upgraded

__version__ = "0.1.0"

_HOMES = {
    "BusyError": "errors",
    "Checked": "runner.check",
    "Downgraded": "runner.migrate",
    "DriftError": "errors",
    "ModelStatus": "runner.look",
    "OpenWorkspace": "api",
    "Plan": "plan.upgrade",
    "TokmigrateError": "errors",
    "Upgraded": "runner.migrate",
    "UsageError": "errors",
    "open": "api",
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
