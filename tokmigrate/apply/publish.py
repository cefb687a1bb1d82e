"""Publishing a change: together or not at all. The order of the steps makes a crash harmless: docs/publishing.md."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from tokmigrate.apply.atomic_swap import SwapUnsupportedError, finish_two_step, swap, two_step_swap
from tokmigrate.apply.candidate import Change, Completion
from tokmigrate.apply.clone import seal_tree
from tokmigrate.apply.durable import fsync_tree_bottom_up
from tokmigrate.apply.gguf_change import GgufChange
from tokmigrate.apply.journal import UNKNOWN, Journal, JournalEntry, generation_in_place
from tokmigrate.apply.metadata_check import cannot_be_kept, find_lost_metadata
from tokmigrate.apply.stage import StagedDirectory, stage, write_file
from tokmigrate.apply.workarea import WorkArea
from tokmigrate.errors import RecoveryNeededError, StorageError
from tokmigrate.events import ActivityStarted, BytesProcessed, OnProgress, Step, StepReached, Warned
from tokmigrate.files import exists, fsync_directory, nearest_existing, storage_errors
from tokmigrate.formatting import format_bytes, format_list
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.parallel import BackgroundCall
from tokmigrate.signals import defer_signals


class RunEnd(Protocol):
    """Records how a run ended; every method may be called again after a crash."""

    def record_applied(self) -> None:
        """Write down that the candidate is in place."""
        ...

    def record_failed(self, reason: str) -> None:
        """Write down that nothing was changed, and why."""
        ...


class RunRecorder(RunEnd, Protocol):
    """Records one run in the state from its beginning."""

    def record_intent(self) -> str:
        """Record the intent and return the id of the run."""
        ...

    def record_prepared(self, generation: str | None) -> None:
        """Write down that the candidate is whole, its generation, and all that `record_applied` will need."""
        ...


class RecoveryOutcome(StrEnum):
    """What a recovery found."""

    NOTHING = "nothing"
    BEFORE = "before"
    AFTER = "after"


def publish(
    model: str,
    changes: Sequence[Change],
    recorder: RunRecorder,
    on_progress: OnProgress,
    workspace: Path,
    acceptance: BackgroundCall[Sequence[str]],
    *,
    copies: Sequence[GgufChange] = (),
    keep_owner: bool = True,
    reads_again: bool = False,
) -> Mapping[str, str]:
    """Publish the new contents of directories, or leave all as they are.

    Args:
        changes: That of the model, and after it those of its adapters.
        workspace: The directory of the workspace, within which the journal names paths relative to each other.
        acceptance: Gives notes for the user, or raises where the libraries would load something else; it runs while
            the change is staged, and its error is the one that is raised where both fail.
        copies: Those of GGUFs, which are put in place after the model too.
        keep_owner: Whether a change that would lose owner, mode or attributes of files is refused.
        reads_again: Whether staged shards are read again from the disk.

    Returns:
        The digests of the shards of the model that were written.

    Raises:
        RecoveryNeededError: The change was made, and what comes after it failed.
        TokmigrateError: Nothing was changed.
    """

    def report(step: Step) -> None:
        on_progress(StepReached(model, step))

    def journal_of(run: str, completed: Sequence[Completion] = ()) -> Journal:
        # What comes after is known when the weights were read: until then nothing that is in place can be that.
        after = [each.generation for each in completed] or [UNKNOWN] * len(changes)
        parts = [JournalEntry(change.area, change.before, to) for change, to in zip(changes, after, strict=True)]
        parts += [JournalEntry(copy.area, copy.before, copy.read_after() if completed else UNKNOWN) for copy in copies]
        return Journal(run, parts[0], tuple(parts[1:]))

    _check_room(
        [(change.area, change.candidate.bytes) for change in changes] + [(each.area, each.bytes) for each in copies]
    )
    run = recorder.record_intent()
    journal = journal_of(run)
    area = changes[0].area
    # Behind the commit point a change is finished, whatever signal comes.
    with ExitStack() as stack:
        try:
            area.write_journal(journal.to_json(workspace))
            report(Step.RECORDED)
            completed = _build(
                model, changes, copies, on_progress, acceptance, keep_owner=keep_owner, reads_again=reads_again
            )
            journal = journal_of(run, completed)
            area.write_journal(journal.to_json(workspace))
            recorder.record_prepared(journal.model.after)
            report(Step.PREPARED)
            stack.enter_context(defer_signals())
            for copy in copies:
                copy.check_untouched()
            _commit(area)
        except BaseException as error:
            with defer_signals():
                if _is_untouched(area, journal):
                    _undo_preparation(journal, recorder, str(error) or type(error).__name__)
                    raise
            raise _unfinished_error(area, error) from error
        try:
            report(Step.SWAPPED)
            _follow(journal)
            report(Step.FOLLOWED)
            recorder.record_applied()
            report(Step.APPLIED)
            _clean(journal.areas)
            report(Step.CLEANED)
        except RecoveryNeededError:
            raise
        except BaseException as error:
            raise _unfinished_error(area, error) from error
    return completed[0].digests


def recover(area: WorkArea, recorder_of: Callable[[str], RunEnd], workspace: Path) -> RecoveryOutcome:
    """Finish what an interrupted change left: the generation in place decides, the rest follows.

    Args:
        area: The work area of the model, whose lock the caller holds, and those of the adapters in its journal.

    Raises:
        RecoveryNeededError: What is in place is neither what was there before nor what was to be.
    """
    held = area.read_journal()
    if held is None:
        _clean((area,))
        return RecoveryOutcome.NOTHING
    journal = Journal.from_json(held, area, workspace)
    for each in journal.areas:
        if exists(each.aside) or not exists(each.model):
            finish_two_step(each.model, each.stage, each.aside)
    recorder = recorder_of(journal.run)
    generation = generation_in_place(area.model)
    if generation == journal.model.after:
        fsync_directory(area.model.parent)
        _follow(journal)
        recorder.record_applied()
        _clean(journal.areas)
        return RecoveryOutcome.AFTER
    if generation == journal.model.before:
        _undo_preparation(journal, recorder, "interrupted")
        return RecoveryOutcome.BEFORE
    raise _foreign(journal.model, area)


def _follow(journal: Journal) -> None:
    """Put adapters and GGUFs in place whose model is there already; what someone else changed since stays."""
    foreign: list[JournalEntry] = []
    for part in journal.adapters:
        generation = generation_in_place(part.area.model)
        if generation == part.before and exists(part.area.stage):
            _commit(part.area)
        elif generation != part.after:
            foreign.append(part)
    if foreign:
        raise _foreign(foreign[0], journal.model.area)


def _foreign(part: JournalEntry, area: WorkArea) -> RecoveryNeededError:
    """Return the error for what was changed after the interruption; `area` is that of the model."""
    return RecoveryNeededError(
        "what is in place is neither the one before nor the one after",
        where=str(part.area.model),
        hint=f"someone changed it meanwhile, and both versions are kept: compare it with {part.area.stage}, leave the"
        f" right one in place, then move that and {area.journal} away and run `tokmigrate recover`",
    )


def _commit(area: WorkArea) -> None:
    try:
        swap(area.model, area.stage)
    except SwapUnsupportedError:
        two_step_swap(area.model, area.stage, area.aside)


def _is_untouched(area: WorkArea, journal: Journal) -> bool:
    # During a two-step swap no model is in place, so there is no stamp, as at base.
    there = exists(area.model) and not exists(area.aside)
    return there and generation_in_place(area.model) == journal.model.before


def _unfinished_error(area: WorkArea, error: BaseException) -> RecoveryNeededError:
    return RecoveryNeededError(
        f"the change was made, but could not be finished: {str(error) or 'it was stopped'}",
        where=str(area.model),
        hint="run `tokmigrate recover`, which finishes it",
    )


def _undo_preparation(journal: Journal, recorder: RunEnd, reason: str) -> None:
    for area in journal.areas:
        area.remove_stage()
    recorder.record_failed(reason)
    journal.model.area.remove_journal()


def _clean(areas: Sequence[WorkArea]) -> None:
    """Remove the stages, and last the journal, which is the first one's."""
    for area in reversed(areas):
        area.remove_stage()
    areas[0].remove_journal()


def _build(
    model: str,
    changes: Sequence[Change],
    copies: Sequence[GgufChange],
    on_progress: OnProgress,
    acceptance: BackgroundCall[Sequence[str]],
    *,
    keep_owner: bool,
    reads_again: bool,
) -> list[Completion]:
    """Build the new directories beside the old ones, and verify them; the arguments are those of `publish`."""

    def wait_for_acceptance() -> None:
        if not acceptance.is_done():
            on_progress(ActivityStarted(model, "verifying"))
        acceptance.result()

    with _first_error(acceptance):
        size = sum(change.candidate.bytes for change in changes) + sum(copy.bytes for copy in copies)
        on_progress(ActivityStarted(model, "staging", size))

        def progress(count: int) -> None:
            on_progress(BytesProcessed(model, count))

        staged: list[StagedDirectory] = []
        for change in changes:
            change.area.remove_stage()
            staged.append(stage(change, change.area.stage, progress, acceptance.stopped))
        for copy in copies:
            copy.stage(progress, acceptance.stopped)
        on_progress(ActivityStarted(model, "computing the new rows"))
        # The record of the model names those of its adapters.
        completed = [part.change.complete(part.contents, wait_for_acceptance) for part in reversed(staged)]
        completed.reverse()
        for part, completion in zip(staged, completed, strict=True):
            part.complete(completion)
        on_progress(StepReached(model, Step.STAGED))
        for part, completion in zip(staged, completed, strict=True):
            part.verify(completion, reads_again=reads_again)
            part.change.read(part.path)
        wait_for_acceptance()
        for note in acceptance.result():
            on_progress(Warned(model, note))
        finished = [(copy.area.model, copy.finish(reads_again=reads_again)) for copy in copies]
    on_progress(StepReached(model, Step.VERIFIED))

    def report_lost(place: Path, lost: list[str]) -> None:
        if lost and keep_owner:
            raise cannot_be_kept(place, lost)
        if lost:
            on_progress(Warned(model, f"owner, mode or attributes are not kept: {format_list(lost)}"))

    for change, completion in zip(changes, completed, strict=True):
        _seal(change, completion)
        report_lost(change.snapshot.directory, find_lost_metadata(change))
    for path, lost in finished:
        report_lost(path, lost)
    on_progress(StepReached(model, Step.STAMPED))
    return completed


@contextmanager
def _first_error(acceptance: BackgroundCall[Sequence[str]]) -> Iterator[None]:
    """Stop the acceptance where what is inside fails, and raise its error where it failed by itself."""
    try:
        yield
    except Exception:
        acceptance.stop()
        acceptance.raise_error()
        raise


def _seal(change: Change, completion: Completion) -> None:
    staged = change.area.stage
    with storage_errors("write the stamp", staged):
        if completion.stamp is not None:
            write_file(change, staged, STAMP, completion.stamp)
    seal_tree(change.snapshot.directory, staged)
    fsync_tree_bottom_up(staged)


def _check_room(written: Sequence[tuple[WorkArea, int]]) -> None:
    """Raise StorageError where the bytes that are written beside each of several places do not fit."""
    needed: dict[int, int] = {}
    for area, size in written:
        with storage_errors("look at the directory", area.root):
            device = area.root.stat().st_dev
        needed[device] = needed.get(device, 0) + size
        check_room(area.root, needed[device] + margin_bytes(needed[device]))


def free_bytes(path: Path) -> int:
    """Return the bytes that this user may still write to the filesystem of `path`, which need not be there yet.

    Raises:
        StorageError: The filesystem does not say.
    """
    existing = nearest_existing(path)
    with storage_errors("ask for free space", existing):
        return shutil.disk_usage(existing).free


def margin_bytes(written: int) -> int:
    """Return what has to be free besides the bytes that are written, for the filesystem's own needs and the state."""
    return min(64 << 20, max(1 << 20, written // 16))


def check_room(path: Path, needed_bytes: int) -> None:
    """Raise a StorageError, naming what is needed and what is free, where `needed_bytes` do not fit."""
    free = free_bytes(path)
    if needed_bytes > free:
        raise StorageError(
            f"{format_bytes(needed_bytes)} are needed, {format_bytes(free)} are free",
            where=str(path),
            hint=f"free at least {format_bytes(needed_bytes - free)} on this filesystem",
        )
