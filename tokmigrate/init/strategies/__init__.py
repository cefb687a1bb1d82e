"""The strategies that come with the package, one file for each idea."""

from __future__ import annotations

from tokmigrate.init.strategies.averages import Average, Description, Subtokens
from tokmigrate.init.strategies.base import RowStrategy
from tokmigrate.init.strategies.basic import Copy, Mean, MeanCov, Normal, Zeros
from tokmigrate.init.strategies.file import File, StoredRow

__all__ = [
    "Average",
    "Copy",
    "Description",
    "File",
    "Mean",
    "MeanCov",
    "Normal",
    "RowStrategy",
    "StoredRow",
    "Subtokens",
    "Zeros",
]
