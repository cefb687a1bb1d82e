"""The runs of a workspace, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from tokmigrate.render.escape import escape
from tokmigrate.render.terminal import Hanging, indent_line, moment
from tokmigrate.render.text import format_revision

if TYPE_CHECKING:
    from tokmigrate.audit.runs import Run
    from tokmigrate.state.provenance import Provenance

_STYLE = {"APPLIED": "green", "FAILED": "bold red"}
_MINUTE = 60


def log_text(runs: Sequence[Run]) -> RenderableType:
    """Return the runs, the newest first, a block of lines for each."""
    if not runs:
        return Text("no runs yet")
    return Group(*(line for run in runs for line in _lines(run)))


def _lines(run: Run) -> Iterator[RenderableType]:
    row = run.row
    took = "" if row.duration_s is None else f", {_duration(row.duration_s)}"
    way = (
        ""
        if row.direction.value == "adopt"
        else f" {format_revision(row.from_revision)} → {format_revision(row.to_revision)}"
    )
    headline = Text.assemble(
        (moment(row.started), "dim"),
        f"  {escape(run.model.name)}: {row.direction.value}{way}  ",
        (row.status.value, _STYLE.get(row.status.value, "yellow")),
        took,
    )
    yield Hanging(headline, 4)
    if row.direction.value == "adopt":
        yield indent_line(f"the state follows the stamp of the model: {', '.join(row.revisions)}", 4)
    yield indent_line(f"{row.id} by {_who(row.provenance)}", 4)
    yield indent_line(f"{_versions(row.provenance)}", 4)
    if run.ledger is not None:
        yield indent_line(f"from the ledger {run.ledger[:10]}, {escape(run.model.path)}", 4)
    if run.undone_by is not None:
        what = "reverted" if len(run.undone) == len(row.revisions) else f"{', '.join(run.undone)} reverted"
        yield indent_line(f"{what} by {run.undone_by}", 4)
    if row.error:
        yield indent_line(f"error: {escape(row.error)}", 4, "red")


def _who(who: Provenance) -> str:
    commit = f", workspace at commit {who.git_commit[:10]}" if who.git_commit else ""
    return f"{escape(who.user)} on {escape(who.host)}, process {who.pid}{commit}"


def _versions(who: Provenance) -> str:
    libraries = " ".join(f"{name} {version}" for name, version in who.libraries.items())
    return f"tokmigrate {who.tool_version}, {libraries}" if libraries else f"tokmigrate {who.tool_version}"


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    return f"{minutes} min {rest} s"


def run_content(run: Run) -> dict[str, Any]:
    """Return a run as JSON."""
    row = run.row
    return {
        "run": row.id,
        "model": run.model.name,
        "path": run.model.path,
        "lineage": run.model.lineage or None,
        "ledger": run.ledger,
        "direction": row.direction.value,
        "from_revision": row.from_revision,
        "to_revision": row.to_revision,
        "revisions": list(row.revisions),
        "status": row.status.value,
        "user": row.provenance.user,
        "host": row.provenance.host,
        "pid": row.provenance.pid,
        "git_commit": row.provenance.git_commit,
        "tool_version": row.provenance.tool_version,
        "libraries": dict(row.provenance.libraries),
        "started": row.started.isoformat(),
        "finished": row.finished.isoformat() if row.finished else None,
        "duration_s": row.duration_s,
        "undone_by": run.undone_by,
        "undone": list(run.undone),
        "error": row.error,
    }
