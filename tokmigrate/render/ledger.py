"""What the ledger knows: the runs, and the history of tokens, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from tokmigrate.render.escape import escape, escape_quoted
from tokmigrate.render.terminal import Hanging, format_time, indent_line
from tokmigrate.render.training import format_figures, format_init, format_training

if TYPE_CHECKING:
    from tokmigrate.audit.blame import BlameEvent, BlameModel, BlameResult, BlameToken
    from tokmigrate.audit.runs import Run
    from tokmigrate.git import LineAuthor
    from tokmigrate.state.rows import TokenEvent

_STYLE = {"APPLIED": "good", "FAILED": "bad"}
_MINUTE = 60
_ORIGINS = {None: "not on record", True: "migration", False: "baseline"}


def log_text(runs: Sequence[Run]) -> RenderableType:
    """Return the runs, the newest first, a block of lines for each."""
    if not runs:
        return Text("no runs yet")
    return Group(*(line for run in runs for line in _run_lines(run)))


def _run_lines(run: Run) -> Iterator[RenderableType]:
    row, who = run.row, run.row.provenance
    is_adopted = row.direction.value == "adopt"
    way = "" if is_adopted else f" {row.from_revision or 'base'} → {row.to_revision or 'base'}"
    took = "" if row.duration_s is None else f", {row.duration_s:.1f} s"
    if row.duration_s is not None and row.duration_s >= _MINUTE:
        minutes, seconds = divmod(round(row.duration_s), _MINUTE)
        took = f", {minutes} min {seconds} s"
    headline = Text.assemble(
        (format_time(row.started), "dim"),
        f"  {escape(run.model.name)}: {row.direction.value}{way}  ",
        (row.status.value, _STYLE.get(row.status.value, "caution")),
        took,
    )
    yield Hanging(headline, 4)
    if is_adopted:
        yield indent_line(f"the state follows the stamp of the model: {', '.join(row.revisions)}", 4)
    commit = f", workspace at commit {who.git_commit[:10]}" if who.git_commit else ""
    yield indent_line(f"{row.id} by {escape(who.user)} on {escape(who.host)}, process {who.pid}{commit}", 4)
    libraries = " ".join(f"{name} {version}" for name, version in who.libraries.items())
    yield indent_line(", ".join(filter(None, [f"tokmigrate {who.tool_version}", libraries])), 4)
    if run.ledger is not None:
        yield indent_line(f"from the ledger {run.ledger[:10]}, {escape(run.model.path)}", 4)
    if run.undone_by is not None:
        what = "reverted" if len(run.undone) == len(row.revisions) else f"{', '.join(run.undone)} reverted"
        yield indent_line(f"{what} by {run.undone_by}", 4)
    if row.error:
        yield indent_line(f"error: {escape(row.error)}", 4, "bad")


def run_content(run: Run) -> dict[str, Any]:
    """Return a run as JSON."""
    content = {**vars(run.row), **vars(run.row.provenance), "undone_by": run.undone_by, "undone": run.undone}
    for name in ("id", "model_id", "provenance", "payload"):
        del content[name]
    model = {"model": run.model.name, "path": run.model.path, "lineage": run.model.lineage or None}
    return {"run": run.row.id, **model, "ledger": run.ledger, **content}


def format_blame(found: BlameResult) -> RenderableType:
    """Return the history of the tokens of a model, for a terminal."""
    if not found.tokens:
        return Text(f"{_format_model(found.model)}: no such token, now or before")
    return Group(*(line for token in found.tokens for line in _format_token(found, token)))


def _format_token(found: BlameResult, token: BlameToken) -> Iterator[RenderableType]:
    yield Hanging(Text(f"{_format_model(found.model)}: {_headline(token)}", style="bold"), 4)
    if not token.added:
        yield indent_line(_origin(token), 2)
    for event in token.events:
        when = f"  {format_time(event.row.recorded_at)}"
        yield Hanging(Text.assemble((when, "dim"), "  ", _format_event(event.row.event)), 6)
        yield from (indent_line(line, 6) for line in _details(event))


def _format_model(model: BlameModel) -> str:
    """Return a model's name; of one of an imported ledger also where it is, since names are not unique there."""
    if model.ledger is None:
        return model.model
    parts = [escape(f"{model.host or ''}:{model.path}"), f"ledger {model.ledger[:10]}"]
    parts += [f"lineage {model.lineage[:10]}"] if model.lineage else []
    parts += [f"the same model as {', '.join(model.same_as)}"] if model.same_as else []
    return f"{escape(model.model)} ({', '.join(parts)})"


def _headline(token: BlameToken) -> str:
    names, training = token.names, token.training
    if token.token is None or token.id is None:
        first = f", formerly {escape_quoted(names[0])}" if len(names) > 1 else ""
        return f"{escape_quoted(names[-1])}, removed{first}"
    parts = [escape_quoted(token.token), f"id {token.id}"]
    former = ", ".join(escape_quoted(name) for name in names if name != token.token)
    parts += [f"formerly {former}"] if former else []
    if training is not None:
        parts += filter(None, [format_training(training), format_figures(training.figures)])
        parts += [f"because {training.why}"] if training.why else []
    return ", ".join(parts)


def _origin(token: BlameToken) -> str:
    if token.added is None:
        return f"migration {token.initialised_by} initialised its row; the ledger here has no record of that"
    if token.events:
        first = token.events[0].row.event
        return f"in the baseline, with id {first.old_id if first.old_id is not None else first.token_id}"
    return f"in the baseline, id {token.id}; no migration changed it"


def _format_event(event: TokenEvent) -> str:
    match event.event.value:
        case "added":
            row = f"row initialised by {format_init(event.init)}" if event.init else "with a row that was there"
            return f"added with id {event.token_id}, {row}"
        case "renamed":
            row = f", row initialised by {format_init(event.init)}" if event.init else ""
            moved = f", moved from id {event.old_id} to {event.token_id}" if event.old_id != event.token_id else ""
            return f"renamed from {escape_quoted(event.old_token or '')} to {escape_quoted(event.token)}{moved}{row}"
        case "moved":
            return f"moved from id {event.old_id} to {event.token_id}"
        case "reinitialised":
            return f"row initialised again by {format_init(event.init)}"
        case "removed":
            return f"removed, its id was {event.old_id}"
        case "trained":
            return "found trained"
    return f"reverted: {_format_revert(event)}"


def _format_revert(event: TokenEvent) -> str:
    if event.token_id is None:
        return f"removed again, its id was {event.old_id}"
    if event.old_id is None:
        return f"restored, its id is {event.token_id}"
    if event.old_token is not None:
        return f"{escape_quoted(event.old_token)} is {escape_quoted(event.token)} again"
    if event.old_id != event.token_id:
        return f"moved from id {event.old_id} to {event.token_id}"
    return "its former row is back"


def _details(event: BlameEvent) -> Iterator[str]:
    yield f"{event.row.event.revision} {event.message}".rstrip()
    if event.edited:
        yield "its file was edited since, so the line is not known"
    if event.location is not None:
        does = f": {event.location.does}" if event.location.does else ""
        yield f"{event.location}{does}{_format_author(event.author)}"
    run = event.run
    if run is not None:
        by = run.provenance
        commit = f", at commit {by.git_commit[:10]}" if by.git_commit else ""
        yield f"run {run.id} by {by.user} on {by.host}, tokmigrate {by.tool_version}{commit}"


def _format_author(author: LineAuthor | str | None) -> str:
    if author is None:
        return ""
    if isinstance(author, str):
        return f" ({author})"
    return f", by {author.author}, {author.when:%Y-%m-%d}, in {author.commit[:10]} {escape_quoted(author.summary)}"


def blame_content(found: BlameResult) -> dict[str, Any]:
    """Return the history of the tokens of a model as JSON."""
    return {
        **vars(found.model),
        "tokens": [
            {
                **vars(token),
                "origin": _ORIGINS[token.added],
                "training": token.training.training.value if token.training else None,
                "figures": token.training.figures if token.training else {},
                "events": [_event_content(event) for event in token.events],
            }
            for token in found.tokens
        ],
    }


def _event_content(event: BlameEvent) -> dict[str, Any]:
    row, location, author = event.row.event, event.location, event.author
    by = event.run.provenance if event.run else None
    return {
        "table": event.row.table,
        "number": event.row.number,
        "event": row.event.value,
        "when": event.row.recorded_at,
        "token": row.token,
        "old_token": row.old_token,
        "id": row.token_id,
        "old_id": row.old_id,
        "init": row.init,
        "revision": row.revision,
        "message": event.message,
        "file": location.shown if location else None,
        "line": location.line if location else None,
        "does": location.does if location else None,
        "edited_since": event.edited,
        "author": _author_content(author) if author is not None and not isinstance(author, str) else None,
        "no_author": author if isinstance(author, str) else None,
        "run": event.row.run_id,
        "user": by.user if by else None,
        "host": by.host if by else None,
        "tool_version": by.tool_version if by else None,
        "workspace_commit": by.git_commit if by else None,
    }


def _author_content(author: LineAuthor) -> dict[str, Any]:
    content = dict(vars(author))
    return {"name": content.pop("author"), **content}
