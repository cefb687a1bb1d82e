"""What the trial of migrations proved, as Rich renderables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from tokmigrate.change.room import human_bytes

if TYPE_CHECKING:
    from tokmigrate.runner.rehearsal import Rehearsal


def rehearsal_text(done: Rehearsal) -> RenderableType:
    """Return what was tried, on what, and whether every byte came out as it had to."""
    return Group(*_lines(done))


def _lines(done: Rehearsal) -> Iterator[Text]:
    count, start = len(done.migrations), done.start or "base"
    if not count:
        yield Text(f"{done.model}: nothing is pending at {start}; --all tries every migration from base on")
        return
    what = f"{done.model}: {count} migration{'s' if count > 1 else ''} from {start} on "
    on = f", on a {done.subject} of {done.files} files, {human_bytes(done.bytes)}"
    if not done.deviations:
        yield Text.assemble(what, ("passed", "green"), on)
        yield Text("  up in one run, down, up one by one, down one by one: the same bytes each time")
        libraries = "tokenizers and transformers" if done.verified == "full" else "tokenizers"
        yield Text(f"  {libraries} load it as planned (`verify: {done.verified}`)")
    else:
        yield Text.assemble(what, ("failed", "bold red"), on)
        yield from (Text(f"  {each.file}: other bytes {each.after} than {each.expected}") for each in done.deviations)
    if done.made_of == "configuration":
        yield Text("  its weights are not here: the stand-in has the shapes that its configuration gives them")
    for adapter in done.left_out:
        yield Text(f"  not part of it: the adapter {adapter}")


def rehearsal_content(done: Rehearsal) -> dict[str, Any]:
    """Return what was tried as JSON."""
    return {
        "model": done.model,
        "subject": done.subject,
        "made_of": done.made_of,
        "from_revision": done.start,
        "migrations": [migration.revision for migration in done.migrations],
        "passed": not done.deviations,
        "verified": done.verified,
        "files": done.files,
        "bytes": done.bytes,
        "deviations": [{"file": each.file, "after": each.after, "expected": each.expected} for each in done.deviations],
        "adapters_left_out": [str(adapter) for adapter in done.left_out],
    }
