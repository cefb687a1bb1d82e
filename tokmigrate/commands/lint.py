"""Migrations are read, tried on the models that are here, and shown to the rules. Nothing is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokmigrate.audit.run_status import guard_reading
from tokmigrate.commands.models import open_model_or_dummy
from tokmigrate.errors import LimitError, OperationError, TokmigrateError
from tokmigrate.files import read_file
from tokmigrate.formatting import format_list
from tokmigrate.git import files_changed_since, find_repository, list_tracked_files, read_text_at_fork
from tokmigrate.lint import subjects
from tokmigrate.lint.linter import Finding, Seen, Selection, check
from tokmigrate.lint.subjects import Failure, MigrationFile, OnModel, Sighting, Sightings
from tokmigrate.model.documents.chat_template import chat_template, find_literals, read_chat_templates
from tokmigrate.model.documents.roles import ROLES, special_token
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.model.worker.worker import call_worker
from tokmigrate.plan.progress import compute_progress
from tokmigrate.plan.steps import Step, steps_of
from tokmigrate.revision.history import History
from tokmigrate.revision.lock_file import Lock, lock_path, lock_shown, parse_lock
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import FILE_NAME, ModelEntry, WorkerLimits, Workspace
from tokmigrate.strict_yaml.reading import decode, parse

_FOUND_BY = ("added_tokens", "normalizer")  # The parts of tokenizer.json that decide where added tokens are found

_TEMPLATE_SECONDS, _TEMPLATE_MIB = 2, 1024
"""What the rendering of a chat template may use; a limit of CPU time is kept to the second."""


@dataclass(frozen=True)
class Linted:
    """What rules found, in the order of files and places, and notes on what could not be checked.

    `root` is the directory of the paths that other programs read: the repository's, or the workspace's.
    """

    findings: tuple[Finding, ...]
    files: tuple[MigrationFile, ...]
    notes: tuple[str, ...]
    root: Path

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.is_error for finding in self.findings)

    @property
    def warnings(self) -> int:
        """How many are warnings."""
        return len(self.findings) - self.errors

    def path_of(self, finding: Finding) -> str:
        """Return the file of a finding as seen from `root`."""
        return Path(os.path.relpath(finding.file.migration.path, self.root)).as_posix()


def select_rules(workspace: Workspace) -> Selection:
    """Return the rules that the settings of a workspace want; raises UsageError where no rule has such a code."""
    return Selection.of(workspace.lint.select, workspace.lint.ignore, str(workspace.root / FILE_NAME))


def lint(
    workspace: Workspace, entries: Sequence[ModelEntry], selection: Selection, git_base: str | None = None
) -> Linted:
    """Return what rules find in the migrations of a workspace.

    Pending ones are tried on the models that are here. With `git_base` only those are checked that changed since the
    current branch left it. Raises FileProblems or HistoryError where files do not hold together, UsageError where Git
    does not know `git_base`.
    """
    history = History.read(workspace)
    chain = history.chain()
    wanted: Sequence[Migration] = chain
    locked: Mapping[str, str] = {}
    if git_base is not None:
        changed = files_changed_since(workspace.root, git_base)
        wanted = [each for each in chain if not changed.isdisjoint(_list_paths(each))]
        text = read_text_at_fork(lock_path(workspace), git_base)
        lock = parse_lock(text, f"{lock_shown(workspace)} at {git_base}") if text else Lock()
        locked = {each.revision: each.checksum for each in lock.revisions}
    trials = [_try_pending(entry, history) for entry in entries] if wanted else []
    files = [
        replace(
            _read_migration_file(each, chain, workspace),
            edited_on=tuple(trial.model for trial in trials if each in trial.edited),
            # A squashed migration is another one than those that it stands for, and has the id of the last.
            edited_since=git_base
            if locked.get(each.revision) not in (None, each.checksum, _list_replaced(each).get(each.revision))
            else None,
        )
        for each in wanted
    ]
    findings = check((item for file in files for item in _collect(file, trials)), selection)
    notes = [note for trial in trials for note in trial.notes]
    tried = {revision for trial in trials for revision in (*trial.steps, *trial.failures)}
    alone = [each.shown for each in wanted if each.revision not in tried]
    if alone:
        names = format_list(alone)
        notes.append(f"checked by their files only, since no model here has them pending: {names}")
    gone = locked.keys() - {name for each in chain for name in (each.revision, *_list_replaced(each))}
    notes += [f"'{git_base}' has the migration {name}, which is not here" for name in sorted(gone)]
    return Linted(findings, tuple(files), tuple(notes), find_repository(workspace.root) or workspace.root)


@dataclass(frozen=True)
class _Trial:
    """Pending migrations tried on a model: by revision the step that each makes, or the error that it ends with."""

    model: str
    steps: Mapping[str, Step] = field(default_factory=dict)
    failures: Mapping[str, TokmigrateError] = field(default_factory=dict)
    edited: tuple[Migration, ...] = ()
    notes: tuple[str, ...] = ()


def _try_pending(entry: ModelEntry, history: History) -> _Trial:
    chain = history.chain_for(entry)
    if not chain:
        return _Trial(entry.name)
    try:
        with guard_reading(entry), open_model_or_dummy(entry) as here:
            snapshot = take_snapshot(here)
        progress = compute_progress(snapshot, chain)
        progress.check_order()
    except TokmigrateError as error:
        return _Trial(entry.name, notes=(f"{entry.name} is not checked: {error}",))
    steps: dict[str, Step] = {}
    failures: dict[str, TokmigrateError] = {}
    state = snapshot.state
    for migration in progress.pending:
        try:
            (steps[migration.revision],) = steps_of(state, [migration])
        except TokmigrateError as error:
            failures[migration.revision] = error
            break
        state = steps[migration.revision].after
    return _Trial(entry.name, steps, failures, progress.edited)


def _list_replaced(migration: Migration) -> Mapping[str, str]:
    return {each.revision: each.checksum for each in migration.replaces}


def _collect(file: MigrationFile, trials: Sequence[_Trial]) -> Iterator[Seen]:
    yield file
    for trial in trials:
        error = trial.failures.get(file.migration.revision)
        if error is not None:
            yield Failure(file, trial.model, error)
        step = trial.steps.get(file.migration.revision)
        if step is not None:
            recorded = file.with_operations(tuple(each.planned for each in step.effects))
            if recorded is not file:
                yield recorded
            yield _on_model(recorded, trial, step)


def _on_model(file: MigrationFile, trial: _Trial, step: Step) -> OnModel:
    final, limits = list(trial.steps.values())[-1].after, step.after.traits.worker
    template_error = _template_error(step, limits)
    before, after = step.before.documents[FILE], step.after.documents[FILE]
    is_same = all(before.get(part) == after.get(part) for part in _FOUND_BY)
    sightings = {} if is_same else _sightings(step.after, limits)
    # What was not found before either is no fault of this migration.
    is_old = any(sighting.missed and text in step.before.tokenizer.added for text, sighting in sightings.items())
    old = _sightings(step.before, limits) if is_old else {}
    lost = _find_removed_of_templates(step, limits)
    return OnModel(file, trial.model, step, final, old, sightings, template_error, lost)


def _find_removed_of_templates(step: Step, limits: WorkerLimits) -> tuple[str, ...]:
    """Return the tokens that a step removes and chat templates were tokenized as."""
    removed = set(subjects.list_removed(step))
    texts: list[str] = []
    for template in read_chat_templates(step.before.documents).values() if removed else ():
        with suppress(OperationError):
            texts += find_literals(template)
    if not texts:
        return ()
    request = {"document": step.before.documents[FILE], "encode": texts}
    encodings = call_worker("tokenizer", request, limits)["encodings"]
    used = dict.fromkeys(token for encoding in encodings for token in encoding.get("tokens", ()))
    return tuple(token for token in used if token in removed)


def _template_error(step: Step, limits: WorkerLimits) -> str | None:
    """Return why the default chat template that a migration sets cannot be used, None where it can."""
    template = chat_template(step.after)
    if template is None or template == chat_template(step.before):
        return None
    tokens = {f"{role}_token": special_token(step.after, role) for role in ROLES}
    request = {"template": template, "tokens": {name: text for name, text in tokens.items() if text is not None}}
    seconds, mib = min(limits.cpu_seconds, _TEMPLATE_SECONDS), min(limits.memory_mib, _TEMPLATE_MIB)
    limits = limits.model_copy(update={"cpu_seconds": seconds, "memory_mib": mib})
    try:
        answer = call_worker("chat_template", request, limits)
    except LimitError as error:
        return f"cannot be rendered: {error.message}"
    if answer["error"] is not None:
        return f"cannot be rendered: {answer['error']}"
    if answer["cpu_seconds"] > 1:
        return f"needs {answer['cpu_seconds']:.1f} seconds of CPU time for one message"
    return None


def _sightings(state: ModelState, limits: WorkerLimits) -> Sightings:
    tokens = [token for token, _ in state.tokenizer.added.values()]
    texts = {token.content: subjects.texts_with(token) for token in tokens}
    request = {
        "document": state.documents[FILE],
        "encode": [text for each in texts.values() for text in each],
        "normalise": list(texts),
    }
    answer = call_worker("tokenizer", request, limits)
    # A text with a letter that the tokenizer does not know, and without an unknown token, has no ids.
    ids = dict(zip(request["encode"], (each.get("ids") for each in answer["encodings"]), strict=True))
    normalised: Mapping[str, str] = dict(zip(texts, answer["normalised"], strict=True))
    found = {}
    for token in tokens:
        content, number = token.content, state.tokenizer.ids[token.content]
        known = [text for text in texts[content] if text == content or ids[text] is not None]
        hits = tuple(text for text in known if number in (ids[text] or ()))
        misses = tuple(text for text in known if text not in hits)
        found[content] = Sighting(hits, misses, normalised[content] if token.normalized else content)
    return found


def _read_migration_file(migration: Migration, chain: Sequence[Migration], workspace: Workspace) -> MigrationFile:
    text = decode(read_file(migration.path), migration.shown)
    tree = parse(text, migration.shown) if migration.source is None else None
    beside = {name: migration.path.parent / name for name in migration.attachments}
    in_git = list_tracked_files(workspace.root, (migration.path, *beside.values())) if beside else frozenset()
    return MigrationFile(
        migration,
        text,
        tree,
        subjects.list_operations(migration, tree),
        earlier=tuple(chain[: chain.index(migration)]),
        known_models=frozenset(name for entry in workspace.models.values() for name in (entry.name, *entry.tags)),
        not_in_git=frozenset(name for name, path in beside.items() if migration.path in in_git and path not in in_git),
    )


def _list_paths(migration: Migration) -> frozenset[Path]:
    beside = (migration.path.parent / name for name in migration.attachments)
    return frozenset(path.resolve() for path in (migration.path, *beside))
