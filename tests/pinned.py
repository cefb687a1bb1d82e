"""Tests of tables and pages that are made from the transformers of constraints.txt; others have other classes."""

import re
from importlib.metadata import version

import pytest
from workspaces import REPOSITORY

PINNED = re.findall(r"^transformers==(.+)$", (REPOSITORY / "constraints.txt").read_text("utf-8"), re.MULTILINE)

with_pinned_transformers = pytest.mark.skipif(
    [version("transformers")] != PINNED, reason=f"it is about transformers {', '.join(PINNED)}"
)
