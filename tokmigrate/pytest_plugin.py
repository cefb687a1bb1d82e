"""A pytest plug-in: `pytest --tokmigrate` also tests the migrations of the workspace that it runs in.

pytest imports this module whenever it starts, and so it imports nothing of tokmigrate: that takes a second.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tokmigrate", "tokmigrate")
    group.addoption("--tokmigrate", action="store_true", help="Also lint and try the migrations of the workspace.")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--tokmigrate"):
        config.pluginmanager.import_plugin("tokmigrate.pytest_items")
