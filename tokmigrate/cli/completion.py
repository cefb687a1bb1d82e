"""What a shell proposes for a word of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokmigrate.runner.proposals import Proposal
    from tokmigrate.settings import Workspace


def complete_model(incomplete: str) -> list[tuple[str, str]]:
    """Return the models whose names begin so."""
    from tokmigrate.runner.proposals import proposed_models  # noqa: PLC0415

    return _beginning(incomplete, proposed_models)


def complete_revision(incomplete: str) -> list[tuple[str, str]]:
    """Return the names of revisions that begin so, tags too."""
    from tokmigrate.runner.proposals import proposed_revisions  # noqa: PLC0415

    return _beginning(incomplete, proposed_revisions)


def complete_tag(incomplete: str) -> list[tuple[str, str]]:
    """Return the tags that begin so."""
    from tokmigrate.runner.proposals import proposed_tags  # noqa: PLC0415

    return _beginning(incomplete, proposed_tags)


def _beginning(incomplete: str, propose: Callable[[Workspace], Iterator[Proposal]]) -> list[tuple[str, str]]:
    from tokmigrate.settings import find_workspace, read_workspace  # noqa: PLC0415

    found: list[Proposal] = []
    # What goes wrong is said by the command; a shell would show it in the middle of a line.
    try:
        for word, meaning in propose(read_workspace(find_workspace(Path.cwd()))):
            if word.startswith(incomplete):
                found.append((word, meaning))
    except Exception:
        return found
    return found
