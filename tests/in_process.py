"""The command line without a process of its own, for tests that type many commands."""

from __future__ import annotations

from workspaces import Workspace

Here = Workspace
