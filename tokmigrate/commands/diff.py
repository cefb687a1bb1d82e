"""Two tokenizers side by side: of two directories, or of one model at two revisions. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tokmigrate.apply.build_downgrade import build_downgrade
from tokmigrate.apply.candidate import Candidate
from tokmigrate.audit.run_status import reading
from tokmigrate.commands.models import open_model_or_dummy
from tokmigrate.commands.plan import plan
from tokmigrate.commands.records import find_undo_records
from tokmigrate.commands.tag import list_tags
from tokmigrate.commands.targets import way_down
from tokmigrate.errors import ModelError, UnknownNameError
from tokmigrate.files import has_directory
from tokmigrate.model.documents import state as names
from tokmigrate.model.documents.declared import Documents
from tokmigrate.model.documents.reading import read_documents, with_files
from tokmigrate.model.documents.semantic_diff import Difference, differences
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.model.tokenizer_kinds import no_tokenizer_json
from tokmigrate.plan.progress import check_progress
from tokmigrate.revision.history import History
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore


@dataclass(frozen=True)
class Side:
    """A tokenizer to be compared.

    Args:
        name: What a user calls it.
        documents: Its parsed files by name.
        model: The model of the workspace that has it, None for another directory.
    """

    name: str
    documents: Documents
    model: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two tokenizers and their semantic difference."""

    before: str
    after: str
    differences: tuple[Difference, ...]


def compare(before: Side, after: Side) -> Comparison:
    """Return in what two tokenizers differ."""
    return Comparison(before.name, after.name, differences(before.documents, after.documents))


def side_of(directory: Path) -> Side:
    """Return the tokenizer of a directory, which needs no weights; raises ModelError where it has none."""
    with reading(ModelEntry(str(directory), directory)):
        if not has_directory(directory):
            raise ModelError("no such directory", where=str(directory))
        _, documents, _ = read_documents(directory, None)
    if FILE not in documents:
        if names.CONFIG in documents:
            raise no_tokenizer_json(directory, documents)
        raise ModelError(f"there is no {FILE}", where=str(directory), hint="name the directory of a tokenizer or model")
    return Side(str(directory), documents)


def choose_sides(workspace: Workspace | None, first: str, second: str) -> tuple[Side, Side]:
    """Return what two words on a command line mean: directories, models of the workspace, or a model and a revision.

    Args:
        workspace: The workspace, None outside of one.
        first: A model's name, or a directory.
        second: Likewise, or a revision of the first.

    Raises:
        UnknownNameError: A word means nothing.
    """
    if workspace is None or second in workspace.models or "/" in second:
        return resolve_side(workspace, first), resolve_side(workspace, second)
    (entry,) = workspace.select([first])
    try:
        return sides_of(workspace, entry, second)
    except UnknownNameError as error:
        if Path(second).is_dir():
            return resolve_side(workspace, first), resolve_side(workspace, second)
        raise UnknownNameError(
            f"'{second}' is not a revision, a model of this workspace or a directory", hint=error.hint
        ) from error


def sides_of(workspace: Workspace, entry: ModelEntry, revision: str) -> tuple[Side, Side]:
    """Return a model as it is, and as it is planned to be or once was at a revision.

    Args:
        workspace: The workspace.
        entry: The model.
        revision: A revision by any of its names.

    Raises:
        UndoError: It is older than the model's own, and the undo data is missing here.
    """
    with reading(entry):
        snapshot = take_snapshot(entry)
    here = Side(f"{entry.name} at {snapshot.revision or 'base'}", snapshot.state.documents)
    history = History.read(workspace)
    target = history.resolve(revision, snapshot.revision, list_tags(workspace))
    applied = [each.revision for each in check_progress(snapshot, history.chain_for(entry)).applied]
    name = f"{entry.name} at {target or 'base'}"
    if target == snapshot.revision:
        return here, Side(name, here.documents)
    if target is None or target in applied:
        return here, Side(name, _documents_before(workspace, entry, snapshot, revision))
    # Who compares sees what is there: drift is a part of it.
    return here, Side(name, plan(replace(workspace, drift="accept"), entry, revision).final.documents)


def read_recorded_state(workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, revision: str) -> Candidate:
    """Return a model as the undo records have it for a revision that it had; raises UndoError where they do not."""
    _, revisions = way_down(workspace, entry, snapshot, revision)
    records = find_undo_records(workspace, entry, snapshot, revisions)
    return build_downgrade(snapshot, records, ObjectStore(workspace.objects)).candidate


def _documents_before(workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, revision: str) -> Documents:
    files = read_recorded_state(workspace, entry, snapshot, revision).files
    return with_files(snapshot.state.documents, files)


def side_at_head(workspace: Workspace, word: str) -> Side:
    """Return the tokenizer that a new migration would be applied to.

    Args:
        workspace: The workspace.
        word: A model of it, which is planned up to the head; or a directory, taken as it is.

    Raises:
        UnknownNameError: It is neither.
    """
    entry = workspace.models.get(word)
    if entry is None or not History.read(workspace).chain_for(entry):
        return resolve_side(workspace, word)
    with open_model_or_dummy(entry) as here:
        return replace(sides_of(workspace, here, "head")[1], model=entry.name)


def resolve_side(workspace: Workspace | None, word: str) -> Side:
    """Return the tokenizer of a model of the workspace, or of a directory; raises UnknownNameError for neither."""
    if workspace is not None:
        (entry,) = workspace.select([word])
        model = entry.name if workspace.models.get(entry.name) == entry else None
        return Side(word, side_of(entry.path).documents, model)
    if not Path(word).is_dir():
        raise UnknownNameError(
            f"'{word}' is not a directory", hint="models have names in a workspace, and here is none"
        )
    return side_of(Path(word))
