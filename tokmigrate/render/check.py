"""The results of `check`, `verify` and `test`, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from tokmigrate.audit.drift import each_line, remedy
from tokmigrate.audit.ledger_check import UndoData
from tokmigrate.commands.check import Checked
from tokmigrate.errors import DriftError, UndoError, name_explanation
from tokmigrate.formatting import format_bytes, format_count, format_findings, format_list
from tokmigrate.render.escape import escape
from tokmigrate.render.training import training_content, training_lines
from tokmigrate.revision.migration import KlAtMost

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokmigrate.commands.check_target import CheckedTarget
    from tokmigrate.commands.inspect import Verified
    from tokmigrate.commands.roundtrip import RoundTrip

_MOST = 20

_NAMED = 3  # How many tensors that moved are named; JSON has all


def check_lines(found: Checked) -> Iterator[str]:
    """Yield the lines that say where a model stands."""
    place = f"{found.name}: at {found.revision or 'base'}"
    if found.exit_code == 0:
        yield f"{place}, up to date"
    elif found.exit_code == 3:
        yield f"{place}, {len(found.pending)} pending: {', '.join(each.revision for each in found.pending)}"
    elif found.broken or found.drift.breaks:
        yield f"{place}, drift"
    else:
        yield f"{place}, but undo data is lost"
    if found.detected:
        yield f"  looks like {found.detected}"
    drift = found.drift
    if drift.moved:
        yield f"  changed by training (fine): {format_tensors(drift.moved)}"
        yield from (f"  {line}" for line in training_lines(found.training))
    if drift.weights:
        yield f"  trained or saved again since (fine; which of the two is not known here): {', '.join(drift.weights)}"
    if drift.resaved:
        yield f"  saved again{'' if drift.breaks else ' with equivalent content (fine)'}: {', '.join(drift.resaved)}"
    lines = [found.broken] if found.broken else list(each_line(drift))
    yield from (f"  {line}" for line in lines[:_MOST])
    if len(lines) > _MOST:
        yield f"  … and {len(lines) - _MOST:,} more"
    if lines:
        broken = "fetch the file again, or restore it from a copy of the model"
        yield f"  what to do: {broken if found.broken else remedy(found.drift, found.name)}"
        yield f"  {name_explanation(DriftError.topic)}"
    yield from (f"  {line}" for line in undo_lines(found.undo))
    yield from (f"  warning: {note}" for note in found.notes)


def check_content(found: Checked) -> dict[str, Any]:
    """Return what `check` found as JSON."""
    return {
        "model": found.name,
        "revision": found.revision,
        "exit_code": found.exit_code,
        "pending": [migration.revision for migration in found.pending],
        **vars(found.drift),
        "training": training_content(found.training),
        "broken": found.broken,
        "detected": found.detected,
        "notes": found.notes,
        "copies": found.copies,
        "undo": undo_content(found.undo),
    }


def verified_lines(found: Verified) -> Iterator[str]:
    """Yield the lines on what changed since a model was migrated."""
    how = "saved again" if found.same_meaning else "changed"
    changes = f"{how} since it was migrated: {', '.join(found.changed)}" if found.changed else "no file changed"
    yield f"{found.model}: {found.revision or 'base'}, {changes}"
    if found.changed and found.same_meaning:
        yield "  it is equivalent to what its migrations left (`tokmigrate check`)"
    yield from (f"  {line}" for line in undo_lines(found.undo))
    yield from (f"  note: {note}" for note in found.notes)


def verified_content(found: Verified) -> dict[str, Any]:
    """Return what changed since a model was migrated as JSON."""
    return {**vars(found), "undo": undo_content(found.undo)}


def undo_lines(undo: UndoData) -> Iterator[str]:
    """Yield the lines on undo data that is not here."""
    if undo.ledger:
        yield undo.ledger
    yield from (f"the undo data of {revision} is lost: {reason}" for revision, reason in undo.lost.items())
    if undo.not_undoable:
        yield f"no downgrade from here can undo {', '.join(undo.not_undoable)}"
    if undo.breaks:
        yield "what to do: restore .tokmigrate (state.db and objects) from a backup; without one, write new migrations"
        yield name_explanation(UndoError.topic)


def undo_content(undo: UndoData) -> dict[str, Any]:
    """Return what of the undo data of a model is here, as JSON."""
    return {
        "lost": [{"revision": revision, "reason": reason} for revision, reason in undo.lost.items()],
        "not_undoable": undo.not_undoable,
        "ledger": undo.ledger,
    }


def format_tensors(names: Sequence[str]) -> str:
    """Return how many tensors there are, and the first few of them."""
    return f"{format_count(len(names), 'tensor')}: {format_list(names, _NAMED)}"


def roundtrip_lines(done: RoundTrip) -> Iterator[RenderableType]:
    """Yield what was tried, on what, and whether every byte came out as it had to."""
    count, start = len(done.migrations), done.from_revision or "base"
    if not count:
        yield Text(f"{done.model}: nothing is pending at {start}; --all tries every migration from base on")
        return
    what = f"{done.model}: {format_count(count, 'migration')} from {start} on "
    on = f", on a dummy model of {done.files} files, {format_bytes(done.bytes)}"
    if not done.mismatches:
        yield Text.assemble(what, ("passed", "good"), on)
        yield Text("  up in one run, down, up one by one, down one by one: the same bytes each time")
        libraries = "tokenizers" if done.verified == "fast" else "tokenizers and transformers"
        yield Text(f"  {libraries} load it as planned (`verify: {done.verified}`)")
    else:
        yield Text.assemble(what, ("failed", "bad"), on)
        yield from (Text(f"  {each.file}: other bytes {each.after} than {each.expected}") for each in done.mismatches)
    if done.made_of == "configuration":
        yield Text("  its weights are not here: the dummy model has the shapes that its configuration gives them")
    if any(isinstance(check, KlAtMost) for migration in done.migrations for check in migration.checks):
        yield Text("  not part of it: `kl_at_most`, which needs the weights; `upgrade` checks it")
    for adapter in done.adapters_left_out:
        yield Text(f"  not part of it: the adapter {adapter}")


def roundtrip_content(done: RoundTrip) -> dict[str, Any]:
    """Return what was tried as JSON."""
    migrations = [migration.revision for migration in done.migrations]
    return {**vars(done), "migrations": migrations, "passed": not done.mismatches}


def target_lines(checked: CheckedTarget) -> Iterator[RenderableType]:
    """Yield what the program would read, and what its rules find."""
    target, findings = checked.target, checked.findings
    yield Text(f"{checked.model}: {target.program} ({target.version}) {escape(checked.reading.summary)}")
    for finding in findings:
        severity = (finding.severity, "bad" if finding.severity == "error" else "caution")
        yield Text.assemble("  ", severity, f": {escape(finding.where)}: {escape(finding.message)}")
        yield Text.assemble(("    help: ", "bold"), escape(finding.help))
    yield f"  {format_findings(checked.errors, len(findings) - checked.errors)}"


def target_content(checked: CheckedTarget) -> dict[str, Any]:
    """Return what the program would read, and what its rules find, as JSON."""
    return {
        "model": checked.model,
        "program": checked.target.program,
        "version": checked.target.version,
        "reads": checked.reading.summary,
        "findings": [
            {"severity": each.severity, "path": each.where, "message": each.message, "hint": each.help}
            for each in checked.findings
        ],
        "errors": checked.errors,
    }
