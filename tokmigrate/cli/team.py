"""Commands for several people on one history: lock, validate."""

from __future__ import annotations

import typer

from tokmigrate.cli.options import AsJson, Models, workspace
from tokmigrate.cli.output import print_json


def lock(model: Models = None, as_json: AsJson = False) -> None:
    """Write tokmigrate.lock: the migrations as they are, and the ids that they give on the models that are here.

    What was promised before stays promised as long as the migrations up to
    there are the same. `upgrade` never writes it: it checks that every id comes
    out as promised, and stops before anything is written where one does not.
    """
    from tokmigrate.report.lock import relocked_content, relocked_lines  # noqa: PLC0415
    from tokmigrate.report.machine import document  # noqa: PLC0415
    from tokmigrate.revision.lock_file import lock_path, lock_shown, read_lock  # noqa: PLC0415
    from tokmigrate.runner.relock import relock  # noqa: PLC0415

    place = workspace()
    done = relock(place, place.select(model or []), read_lock(place))
    if as_json:
        print_json(document("lock", **relocked_content(done, str(lock_path(place)))))
        return
    for line in relocked_lines(done, lock_shown(place)):
        typer.echo(line)


def validate(as_json: AsJson = False) -> None:
    """Check migrations and lock, for CI: order, one head, checksums, ids. No model is needed."""
    from tokmigrate.report.lock import valid_content, valid_lines  # noqa: PLC0415
    from tokmigrate.report.machine import document  # noqa: PLC0415
    from tokmigrate.revision.validate import validate as found  # noqa: PLC0415

    valid = found(workspace())
    if as_json:
        print_json(document("validate", **valid_content(valid)))
        return
    for line in valid_lines(valid):
        typer.echo(line)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Author")(lock)
    app.command(rich_help_panel="Gate")(validate)
