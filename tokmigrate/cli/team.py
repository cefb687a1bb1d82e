"""Commands for several people on one history: lock, rebase, squash, validate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tokmigrate.cli.completion import complete_revision
from tokmigrate.cli.options import AsJson, Models, settled_workspace, workspace
from tokmigrate.cli.output import print_json, say

if TYPE_CHECKING:
    from tokmigrate.runner.team.rebase import Rebased


def lock(model: Models = None, as_json: AsJson = False) -> None:
    """Update tokmigrate.lock; run it after you edit a migration.

    What was pinned before stays pinned as long as the migrations up to
    there are the same. `upgrade` never writes it: it checks that every id comes
    out as pinned, and stops before anything is written where one does not.
    """
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.report.lock import relocked_content, relocked_lines  # noqa: PLC0415
    from tokmigrate.revision.lock_file import lock_path, lock_shown, read_lock  # noqa: PLC0415
    from tokmigrate.runner.team.relock import relock  # noqa: PLC0415

    place = settled_workspace()
    done = relock(place, place.select(model or []), read_lock(place))
    if as_json:
        print_json(document("lock", **relocked_content(done, str(lock_path(place)))))
        return
    for line in relocked_lines(done, lock_shown(place)):
        say(line)


def squash(
    revisions: Annotated[
        str, typer.Argument(metavar="FIRST:LAST", help="The range, both included, by any names of revisions.")
    ],
    message: Annotated[str | None, typer.Option("--message", "-m", help="What the new migration is for.")] = None,
    model: Models = None,
    as_json: AsJson = False,
) -> None:
    """Put one migration in the place of several, once it is proven to lead models to the same end.

    It is tried on the models that are here, as they are before the first of
    them: the same files, rows that start in the same way from the same seeds,
    and the same defaults, or nothing is changed. Of a model whose weights are
    not here, tokenizer and config are enough: it is tried on a stand-in, and the
    result says so. It keeps the id of the last one. A model that has all of
    them counts as being there, one that has none runs the new one; no model may
    be in the middle.
    """
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.report.lock import squashed_content, squashed_lines  # noqa: PLC0415
    from tokmigrate.runner.team.squash import squash as put_together  # noqa: PLC0415

    first, colon, last = revisions.partition(":")
    if not (first and colon and last):
        raise UsageError(f"'{revisions}' is no range", hint="FIRST:LAST, for example 0002:0005")
    place = settled_workspace()
    done = put_together(place, place.select(model or []), first, last, message)
    if as_json:
        print_json(document("squash", **squashed_content(done)))
        return
    for line in squashed_lines(done):
        say(line)


def validate(as_json: AsJson = False) -> None:
    """Check migrations and lock, for CI: order, one head, checksums, ids. No model is needed."""
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.report.lock import valid_content, valid_lines  # noqa: PLC0415
    from tokmigrate.revision.validate import validate as found  # noqa: PLC0415

    valid = found(workspace())
    if as_json:
        print_json(document("validate", **valid_content(valid)))
        return
    for line in valid_lines(valid):
        say(line)


def rebase(
    revision: Annotated[
        str | None,
        typer.Argument(
            help="A migration of the branch that moves; by default the one that nobody else has yet.",
            autocompletion=complete_revision,
        ),
    ] = None,
    onto: Annotated[
        str | None,
        typer.Option(
            "--onto", help="The head that it goes behind; by default the other one.", autocompletion=complete_revision
        ),
    ] = None,
    model: Models = None,
    as_json: AsJson = False,
) -> None:
    """Put migrations that no model has yet behind the new head, and settle a conflict in the lock.

    In the file that moves only the value of `down_revision` changes; numbers of
    files that do not fit any more follow. Which branch moves is the one that no
    model has and, by Git, the upstream branch has not; else name it.
    """
    from tokmigrate.runner.team.rebase import rebase as put_behind  # noqa: PLC0415

    place = settled_workspace()
    _show_rebased(put_behind(place, place.select(model or []), revision, onto), as_json)


def _show_rebased(done: Rebased, as_json: bool) -> None:
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.report.lock import rebased_content, rebased_lines  # noqa: PLC0415
    from tokmigrate.revision.lock_file import lock_path, lock_shown  # noqa: PLC0415

    place = workspace()
    if as_json:
        print_json(document("rebase", **rebased_content(done, str(lock_path(place)))))
        return
    for line in rebased_lines(done, lock_shown(place)):
        say(line)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (lock, rebase, squash):
        app.command(rich_help_panel="Author")(command)
    app.command(rich_help_panel="CI")(validate)
