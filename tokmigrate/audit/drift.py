"""How a model differs from what its migrations left: trained, saved again, or edited by something else."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tokmigrate.apply.digests import read_contents
from tokmigrate.apply.undo_record import Left, StoredFiles
from tokmigrate.errors import UndoError
from tokmigrate.model.documents.reading import with_files
from tokmigrate.model.documents.semantic_diff import Difference, differences, without_ignorable
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import ChangedFile
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.tensor_rows import shard_digest, tensor_digest


@dataclass(frozen=True)
class Drift:
    """How a model changed since it was migrated.

    Args:
        resaved: Files with other bytes and equivalent content.
        moved: Tensors with other numbers, as after training.
        weights: Shards with other bytes of which nothing here says whether they were trained or only saved again.
        unknown: Files with other bytes of which nothing here says what they held.
        stamp: What is wrong with the stamp; `stamp_at` is the revision on record for the model, where it is missing.
    """

    resaved: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    unknown: tuple[str, ...] = ()
    stamp: str | None = None
    stamp_at: str | None = None

    @property
    def breaks(self) -> bool:
        """Whether the model is not what its migrations say; trained and re-saved models are."""
        return bool(self.differences or self.unknown or self.stamp)


def drift_of(snapshot: Snapshot, applied: Sequence[Left]) -> Drift:
    """Return how a stamped model changed since what its migrations left, as far as that is on record, in order."""
    documents = document_drift(snapshot, applied)
    recorded = {name: shard.digest for name, shard in (snapshot.stamp.shards if snapshot.stamp else {}).items()}
    if not recorded:
        return documents
    there = snapshot.weights.files
    names = {*snapshot.vocabulary_shards, *there.intersection(recorded)}
    found = read_contents(snapshot, also=names)
    headers = {name: snapshot.weights.shard(name).header for name in sorted(names)}
    digests = {name: shard_digest(header, found.tables, found.fixed) for name, header in headers.items()}
    changed = [name for name, digest in digests.items() if digest != recorded.get(name)]
    if not changed:
        return documents
    # The last migration need not have written each shard that one before it wrote.
    shards: dict[str, str] = {}
    tensors: dict[str, str] = {}
    for each in applied:
        shards |= each.shards
        tensors |= each.tensors
    if any(shards.get(name) != digest for name, digest in recorded.items()):
        return replace(documents, weights=tuple(changed))
    now = {**found.fixed, **{name: tensor_digest(table) for name, table in found.tables.items()}}
    moved = sorted(name for name, digest in tensors.items() if now.get(name, digest) != digest)
    if moved:
        return replace(documents, moved=tuple(moved))
    return replace(documents, resaved=tuple(sorted((*documents.resaved, *changed))))


def list_changed_documents(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the documents that have other bytes than the stamp says."""
    files = snapshot.stamp.files if snapshot.stamp else {}
    now = {name: ChangedFile.of(snapshot.texts.get(name), file.layout) for name, file in files.items()}
    return tuple(sorted(name for name, file in files.items() if now[name] != file))


def document_drift(snapshot: Snapshot, applied: Iterable[Left]) -> Drift:
    """Return how a stamped model changed as `drift_of` does, except for its weights, which are not read.

    Where no document changed, nothing is read of `applied`.
    """
    changed = list_changed_documents(snapshot)
    if snapshot.stamp is None or not changed:
        return Drift()
    left: dict[str, StoredFiles] = {}
    for each in applied:
        left |= dict.fromkeys(each.files, each.files)
    files = snapshot.stamp.files
    then: dict[str, bytes | None] = {}
    for name in changed:
        if name in left and left[name].digests[name] == files[name].digest:
            # `undo_data` reports what is lost of it.
            with suppress(UndoError):
                then[name] = left[name][name]
    resaved = tuple(then)
    # A file that is gone because another program does not write it is not a drift.
    unknown = tuple(name for name in changed if name in snapshot.texts and name not in resaved)
    found = differences(with_files(snapshot.state.documents, then), snapshot.state.documents)
    return Drift(resaved, differences=without_ignorable(found), unknown=unknown)


def stamp_trouble(snapshot: Snapshot, lineage: str, revisions: Sequence[str]) -> str | None:
    """Return what is wrong with the stamp of a model, by the lineage (or "") and the revisions on record for it."""
    if snapshot.stamp is None:
        if not revisions:
            return None
        return f"{STAMP} is missing; the ledger has the model at {revisions[-1]}; another program rewrote it"
    if lineage and snapshot.stamp.lineage != lineage:
        return (
            f"{STAMP} is of another model: its baseline is {snapshot.stamp.lineage[:12]},"
            f" the one on record here is {lineage[:12]}"
        )
    return None


def remedy(drift: Drift, model: str) -> str:
    """Return what to do about drift of a model, which the command line calls `model`."""
    named = shlex.quote(model)
    if drift.stamp_at:
        return (
            f"put {STAMP} back, or stamp the model as it is recorded: `tokmigrate stamp {drift.stamp_at} -M {named}`;"
            f" if the original was put in its place, migrate it again: `tokmigrate upgrade --accept-drift -M {named}`"
        )
    if drift.stamp:
        return (
            f"put the right directory in its place; or, if this is the model, remove {STAMP}, which changes nothing"
            f" else, and record the revision of the model: `tokmigrate stamp REVISION -M {named}`"
        )
    if drift.unknown:
        return "run it in the workspace where the model was upgraded"
    return (
        "put the files back from a copy of the model as it was, DIR; if the change is intended, first make it a"
        f' migration: `tokmigrate revision -m "What was changed" --autogenerate --from DIR --to {named}`'
    )


def each_line(drift: Drift) -> Iterator[str]:
    """Yield what a user should read of drift, a line for each thing."""
    if drift.stamp:
        yield drift.stamp
    yield from map(str, drift.differences)
    yield from (f"{name} was changed, and its earlier contents are unknown here" for name in drift.unknown)
