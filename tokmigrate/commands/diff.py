"""Two tokenizers side by side: of two directories, or of one model at two revisions. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tokmigrate.apply.build_downgrade import build_downgrade
from tokmigrate.apply.candidate import Candidate
from tokmigrate.audit.run_status import guard_reading, read_snapshot
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
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.model.tokenizer_kinds import no_tokenizer_json
from tokmigrate.plan.progress import check_progress
from tokmigrate.revision.history import History
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore


@dataclass(frozen=True)
class Side:
    """A tokenizer to be compared, by what a user calls it.

    Args:
        model: The model of the workspace that has it, if one has.
        entry: The directory that has it, None for what only a plan or undo data has.
    """

    name: str
    documents: Documents
    model: str | None = None
    entry: ModelEntry | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The models that a migration made for it is for, as its `models:` says."""
        return (self.model,) if self.model else ("*",)


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
    entry = ModelEntry(str(directory), directory)
    with guard_reading(entry):
        if not has_directory(directory):
            hint = "name a model of the workspace, or the directory of a tokenizer"
            raise ModelError("no such directory", where=str(directory), hint=hint)
        _, documents = read_documents(directory)
    if FILE not in documents:
        if names.CONFIG in documents:
            raise no_tokenizer_json(directory, documents)
        raise ModelError(f"there is no {FILE}", where=str(directory), hint="name the directory of a tokenizer or model")
    return Side(str(directory), documents, entry=entry)


def choose_sides(workspace: Workspace | None, first: str, second: str) -> tuple[Side, Side]:
    """Return what two words on a command line mean: models or directories, the second perhaps a revision of the first.

    Raises UnknownNameError where one means nothing.
    """
    if workspace is not None and second not in workspace.models and "/" not in second:
        (entry,) = workspace.select([first])
        try:
            return sides_of(workspace, entry, second)
        except ModelError:
            # A tokenizer alone has no revisions.
            if not Path(second).is_dir():
                raise
        except UnknownNameError as error:
            if not Path(second).is_dir():
                message = f"'{second}' is not a revision, a model of this workspace or a directory"
                raise UnknownNameError(message, hint=error.hint) from error
    return resolve_side(workspace, first), resolve_side(workspace, second)


def sides_of(workspace: Workspace, entry: ModelEntry, revision: str) -> tuple[Side, Side]:
    """Return a model as it is, and as it is planned to be or once was at a revision, by any of its names.

    Raises UndoError where the revision is older than the model's own, and the undo data is missing here.
    """
    snapshot = read_snapshot(entry)
    history = History.read(workspace)
    target = history.resolve(revision, snapshot.revision, list_tags(workspace))
    applied = [each.revision for each in check_progress(snapshot, history.chain_for(entry)).applied]
    here = documents = snapshot.state.documents
    if target != snapshot.revision and (target is None or target in applied):
        documents = with_files(here, read_recorded_state(workspace, entry, snapshot, revision).documents.files)
    elif target != snapshot.revision:
        # Who compares sees what is there: drift is a part of it.
        documents = plan(replace(workspace, drift="accept"), entry, revision).final.documents
    before = Side(f"{entry.name} at {snapshot.revision or 'base'}", here)
    return before, Side(f"{entry.name} at {target or 'base'}", documents)


def read_recorded_state(workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, revision: str) -> Candidate:
    """Return a model as the undo records have it for a revision that it had; raises UndoError where they do not."""
    _, revisions = way_down(workspace, entry, snapshot, revision)
    records = find_undo_records(workspace, entry, snapshot, revisions)
    return build_downgrade(snapshot, records, ObjectStore(workspace.objects)).candidate


def side_at_head(workspace: Workspace, word: str) -> Side:
    """Return the tokenizer of a model as planned at the head, or of a directory; raises as `resolve_side`."""
    (entry,) = workspace.select([word])
    if workspace.models.get(entry.name) != entry or not History.read(workspace).chain_for(entry):
        return resolve_side(workspace, word)
    with open_model_or_dummy(entry) as here:
        return replace(sides_of(workspace, here, "head")[1], model=entry.name)


def resolve_side(workspace: Workspace | None, word: str) -> Side:
    """Return the tokenizer of a model of the workspace, or of a directory; raises UnknownNameError for neither."""
    if workspace is not None:
        (entry,) = workspace.select([word])
        model = entry.name if workspace.models.get(entry.name) == entry else None
        return Side(word, side_of(entry.path).documents, model, entry)
    if not Path(word).is_dir():
        hint = "models have names in a workspace, and here is none"
        raise UnknownNameError(f"'{word}' is not a directory", hint=hint)
    return side_of(Path(word))
