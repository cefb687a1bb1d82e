"""The lives of tokens, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from tokmigrate.report.indented import Hanging, indented, moment
from tokmigrate.report.shown import quoted, shown
from tokmigrate.report.training import SAID, figures, figures_content

if TYPE_CHECKING:
    from tokmigrate.audit.blamed import BlamedModel, BlamedToken, Event, Subject
    from tokmigrate.audit.git_lines import Written
    from tokmigrate.state.rows import TokenEvent


def blame_text(found: BlamedModel) -> RenderableType:
    """Return what befell the tokens of a model, for a terminal."""
    if not found.tokens:
        return Text(f"{_place(found.subject)}: no such token, nor was there one")
    return Group(*(line for token in found.tokens for line in _token_lines(found, token)))


def _token_lines(found: BlamedModel, token: BlamedToken) -> Iterator[RenderableType]:
    yield Hanging(Text(f"{_place(found.subject)}: {_headline(token)}", style="bold"), 4)
    if not token.added:
        yield indented(_origin(token), 2)
    for event in token.events:
        when = f"  {moment(event.row.recorded_at)}"
        yield Hanging(Text.assemble((when, "dim"), "  ", _happened(event.row.event)), 6)
        yield from (indented(line, 6) for line in _around(event))


def _place(subject: Subject) -> str:
    """Return a model's name; of one whose ledger was imported also where it is, since names are not alone there."""
    if subject.ledger is None:
        return subject.model
    place = f"{subject.host or ''}:{subject.path}"
    told = [shown(place), f"ledger {subject.ledger[:10]}"]
    told += [f"lineage {subject.lineage[:10]}"] if subject.lineage else []
    told += [f"the same model as {', '.join(subject.same_as)}"] if subject.same_as else []
    return f"{shown(subject.model)} ({', '.join(told)})"


def _headline(token: BlamedToken) -> str:
    names = token.names
    if token.token is None or token.id is None:
        was = quoted(names[-1])
        return f"{was}, which is gone" if len(names) == 1 else f"{was}, which is gone, once {quoted(names[0])}"
    parts = [quoted(token.token), f"id {token.id}"]
    parts += [f"once {', '.join(quoted(name) for name in names if name != token.token)}"] if len(names) > 1 else []
    if token.training is not None:
        parts += filter(None, [SAID[token.training.training.value], figures(token.training)])
        parts += [f"because {token.training.why}"] if token.training.why else []
    return ", ".join(parts)


def _origin(token: BlamedToken) -> str:
    if token.added is None:
        return f"migration {token.begun_by} began its row, which the ledger here does not tell of"
    if token.events:
        first = token.events[0].row.event
        number = first.old_id if first.old_id is not None else first.token_id
        return f"there since the baseline, with id {number}"
    return f"there since the baseline, id {token.id}; no migration has touched it"


def _happened(event: TokenEvent) -> str:
    match event.event.value:
        case "added":
            return f"added with id {event.token_id}, {_start(event.init)}"
        case "renamed":
            row = f", {_start(event.init)}" if event.init else ""
            moved = f", moved from id {event.old_id} to {event.token_id}" if event.old_id != event.token_id else ""
            return f"renamed from {quoted(event.old_token or '')} to {quoted(event.token)}{moved}{row}"
        case "moved":
            return f"moved from id {event.old_id} to {event.token_id}"
        case "reinitialised":
            return f"its row began anew, {_start(event.init)}"
        case "removed":
            return f"removed, its id was {event.old_id}"
        case "trained":
            return "found trained"
    return _taken_back(event)


def _taken_back(event: TokenEvent) -> str:
    if event.token_id is None:
        return f"its addition was taken back, its id was {event.old_id}"
    if event.old_id is None:
        return f"its removal was taken back, its id is {event.token_id}"
    if event.old_token is not None:
        return f"its renaming was taken back: {quoted(event.old_token)} is {quoted(event.token)} again"
    if event.old_id != event.token_id:
        return f"its move was taken back, from id {event.old_id} to {event.token_id}"
    return "its row was given back as it was before"


def _start(init: Mapping[str, Any] | None) -> str:
    sides = {side: strategy for side, strategy in (init or {}).items() if isinstance(strategy, Mapping)}
    told = {side: _strategy(strategy) for side, strategy in sides.items()}
    if len(set(told.values())) == 1:
        return f"its row starts by {next(iter(told.values()))}"
    return "its row starts by " + " and ".join(f"{text} ({side})" for side, text in told.items())


def _strategy(strategy: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {value}" for name, value in strategy.items() if name != "strategy")
    return f"{strategy.get('strategy')} ({options})" if options else str(strategy.get("strategy"))


def _around(event: Event) -> Iterator[str]:
    yield f"{event.row.event.revision} {event.message}".rstrip()
    if event.edited:
        yield "its file was edited since, so the line is not known"
    if event.place is not None:
        yield f"{event.place}{_author(event.written)}"
    run = event.operation
    if run is not None:
        commit = f", at commit {run.who.git_commit[:10]}" if run.who.git_commit else ""
        yield f"run {run.id} by {run.who.user} on {run.who.host}, tokmigrate {run.who.tool_version}{commit}"


def _author(written: Written | str | None) -> str:
    if written is None:
        return ""
    if isinstance(written, str):
        return f" ({written})"
    return f", by {written.author}, {written.when:%Y-%m-%d}, in {written.commit[:10]} {quoted(written.summary)}"


def blame_content(found: BlamedModel) -> dict[str, Any]:
    """Return what befell the tokens of a model as JSON."""
    return {
        **asdict(found.subject),
        "same_as": list(found.subject.same_as),
        "tokens": [
            {
                "token": token.token,
                "id": token.id,
                "names": list(token.names),
                "origin": {None: "not on record", True: "migration", False: "baseline"}[token.added],
                "row_begun_by": token.begun_by,
                "training": token.training.training.value if token.training else None,
                "figures": figures_content(token.training) if token.training else {},
                "events": [_event_content(event) for event in token.events],
            }
            for token in found.tokens
        ],
    }


def _event_content(event: Event) -> dict[str, Any]:
    told, run, written = event.row.event, event.operation, event.written
    return {
        "table": event.row.table,
        "number": event.row.number,
        "event": told.event.value,
        "when": event.row.recorded_at.isoformat(),
        "token": told.token,
        "old_token": told.old_token,
        "id": told.token_id,
        "old_id": told.old_id,
        "init": told.init,
        "revision": told.revision,
        "message": event.message,
        "file": event.place.shown if event.place else None,
        "line": event.place.line if event.place else None,
        "edited_since": event.edited,
        "author": None
        if written is None or isinstance(written, str)
        else {
            "name": written.author,
            "mail": written.mail,
            "when": written.when.isoformat(),
            "commit": written.commit,
            "summary": written.summary,
        },
        "no_author": written if isinstance(written, str) else None,
        "operation": event.row.operation_id,
        "who": run.who.user if run else None,
        "host": run.who.host if run else None,
        "tool_version": run.who.tool_version if run else None,
        "workspace_commit": run.who.git_commit if run else None,
    }
