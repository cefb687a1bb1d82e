"""The strategies that come with the package, one file for each idea."""

from __future__ import annotations

from tokmigrate.initialise.strategies.average import Average
from tokmigrate.initialise.strategies.base import RowStrategy
from tokmigrate.initialise.strategies.copy import Copy
from tokmigrate.initialise.strategies.file import File, StoredRow
from tokmigrate.initialise.strategies.mean import Mean
from tokmigrate.initialise.strategies.mean_cov import MeanCov
from tokmigrate.initialise.strategies.normal import Normal
from tokmigrate.initialise.strategies.pieces import Description, Subtokens
from tokmigrate.initialise.strategies.zeros import Zeros

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
