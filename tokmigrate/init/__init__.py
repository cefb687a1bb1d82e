"""Initialise new rows: strategies, what they read, and the exact arithmetic that makes the same rows everywhere."""

from __future__ import annotations

from tokmigrate.init.row_strategy import Lookup, Request, RowStrategy
from tokmigrate.init.rows import InitRecipe, initialise_rows, seed_for
from tokmigrate.init.spec import InitSpec, strategy_types
from tokmigrate.init.statistics import RowStatistics
from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.vocabulary.row_edit import Side

__all__ = [
    "InitRecipe",
    "InitSpec",
    "Lookup",
    "Matrix",
    "Request",
    "RowStatistics",
    "RowStrategy",
    "Side",
    "initialise_rows",
    "seed_for",
    "strategy_types",
]
