"""How new rows start: strategies, what they read, and the exact arithmetic that makes the same rows everywhere."""

from __future__ import annotations

from tokmigrate.initialise.begin import begin_rows, seed_for
from tokmigrate.initialise.lookup import Lookup
from tokmigrate.initialise.registry import strategy_types
from tokmigrate.initialise.spec import InitSpec
from tokmigrate.initialise.statistics import RowStatistics
from tokmigrate.initialise.strategies import RowStrategy

__all__ = [
    "InitSpec",
    "Lookup",
    "RowStatistics",
    "RowStrategy",
    "begin_rows",
    "seed_for",
    "strategy_types",
]
