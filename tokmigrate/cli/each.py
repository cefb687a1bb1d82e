"""One command over several models: each result is shown when it is there, also if a later model fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from tokmigrate.cli.output import print_json
from tokmigrate.errors import TokmigrateError

if TYPE_CHECKING:
    from tokmigrate.settings import ModelEntry

T = TypeVar("T")


def show_each(entries: Iterable[ModelEntry], act: Callable[[ModelEntry], T], render: Callable[[T], None]) -> None:
    """Act on each model and render its result at once."""
    for entry in entries:
        render(act(entry))


def document_each(
    command: str,
    entries: Iterable[ModelEntry],
    act: Callable[[ModelEntry], T],
    content: Callable[[T], dict[str, Any]],
) -> None:
    """Act on each model and print one document; after an error it holds the models that were done before."""
    from tokmigrate.report.machine import document, error_document  # noqa: PLC0415

    done: list[dict[str, Any]] = []
    try:
        for entry in entries:
            done.append(content(act(entry)))
    except TokmigrateError as error:
        print_json({**error_document(error), "command": command, "models": done})
        raise typer.Exit(error.exit_code) from error
    print_json(document(command, models=done))
