"""Initialise new rows: strategies, what they read, and the exact arithmetic that makes the same rows everywhere."""

from __future__ import annotations

from tokmigrate.init.rows import initialise_rows, seed_for
from tokmigrate.init.spec import InitSpec, strategy_types
from tokmigrate.init.statistics import RowStatistics
from tokmigrate.init.strategies import RowStrategy
from tokmigrate.init.strategies.base import Lookup

__all__ = ["InitSpec", "Lookup", "RowStatistics", "RowStrategy", "initialise_rows", "seed_for", "strategy_types"]
