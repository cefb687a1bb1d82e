"""The candidate of an upgrade, with the stamp and the undo record of every migration on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from blake3 import blake3

from tokmigrate.apply.build_downgrade import read_lost_rows
from tokmigrate.apply.candidate import Candidate, Change, Completion, Documents, ShardImage
from tokmigrate.apply.digests import Tables, edit_tables, lineage
from tokmigrate.apply.file_metadata import read_link_metadata, read_metadata
from tokmigrate.apply.gguf_migrations import GgufUpgrade
from tokmigrate.apply.kept_objects import NewObjects, ObjectKeeper
from tokmigrate.apply.new_rows import (
    RowBytes,
    StoredInitRows,
    find_populations,
    find_references,
    keep_init_rows,
    new_row_bytes,
    open_tensors,
    read_edited,
)
from tokmigrate.apply.shard_pass import Contents
from tokmigrate.apply.undo_record import Undo, keep
from tokmigrate.files import exists
from tokmigrate.init import InitRecipe
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import ChangedFile, ChangedShard, Stamp
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.model_files import real_path
from tokmigrate.model.weights.movement import RowFingerprint, embeddings, format_fingerprints
from tokmigrate.model.weights.tensor_rows import TensorRows, shard_digest, tensor_digest
from tokmigrate.model.weights.weights import read_adapter_weights
from tokmigrate.plan.plan import Plan
from tokmigrate.plan.shard_layout import lay_out_shards
from tokmigrate.plan.steps import Step
from tokmigrate.vocabulary.ids import Move, TokenDelta, moves_of, sort_as
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, OutputRowAdded, Recipe, RowEdit, Side


@dataclass(frozen=True)
class AppliedStep:
    """One applied migration.

    Args:
        before: The digests of files and shards before, by name.
        after: Those afterwards.
        tokens: The tokens that it adds, renames or reinitialises.
        removed: The id of each token that it removes.
    """

    revision: str
    checksum: str
    message: str
    undo: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    tokens: tuple[InitialisedToken, ...]
    moved: tuple[Move, ...] = ()
    removed: Mapping[str, int] = field(default_factory=dict)


Files = Mapping[str, bytes | None]
"""The bytes of files by name, None where there is none."""


class UpgradeBuilder:
    """The candidate of an upgrade, completed when the weights have been read; its undo records are stored then."""

    def __init__(self, plan: Plan, seed: str, objects: ObjectKeeper) -> None:
        self.adapters = tuple(UpgradeBuilder(adapter, seed, objects) for adapter in plan.adapters)
        self.copies = tuple(GgufUpgrade(copy, plan.edit) for copy in plan.copies)
        self.applied_steps: tuple[AppliedStep, ...] = ()
        """The migrations on the way, once it is completed."""
        self._plan = plan
        self._populations = find_populations(plan)
        self._seed = seed
        self._objects = objects
        self._snapshot = plan.snapshot
        self._tensors = plan.snapshot.tensors_by_name
        self._rows: Mapping[str, TensorRows] = {}
        self._made: RowBytes = {}
        self._fixed: Mapping[str, str] = {}
        self._lineage = ""

    def changes(self) -> tuple[Change, ...]:
        """Return the change of the model, and after it those of its adapters."""
        plan, snapshot = self._plan, self._snapshot
        headers = {name: layout.header for name, layout in plan.shard_layouts.items()}
        candidate = Candidate(Documents.of_plan(plan), headers=headers, removed=plan.removed_shards)
        own = Change(snapshot, candidate, self._complete, self._populations, reads_all=snapshot.stamp is None)
        beside = (replace(each.changes()[0], read=read_adapter_weights) for each in self.adapters)
        return own, *beside

    def _complete(self, contents: Contents, wait_for_acceptance: Callable[[], None]) -> Completion:
        plan, snapshot = self._plan, self._snapshot
        tables, self._fixed = contents.tables, contents.fixed
        with open_tensors(snapshot) as self._rows, self._objects.open_batch() as objects:
            if plan.writes_rows:
                self._made = new_row_bytes(plan, self._rows, self._seed, self._populations, contents.means)
            for copy in self.copies:
                copy.make_rows(self._made)
            completion = self._walk(tables, objects)
            wait_for_acceptance()
            return completion

    def _walk(self, tables: Tables, objects: NewObjects) -> Completion:
        snapshot = self._snapshot
        images = self._images(snapshot.state, snapshot.state, tables)
        stamp = snapshot.stamp
        digests = {name: image.digest for name, image in images.items()}
        self._lineage = stamp.lineage if stamp else lineage(snapshot, digests)
        edit = RowEdit.identity(snapshot.state.rows)
        texts: dict[str, bytes | None] = dict(snapshot.texts)
        applied_steps: list[AppliedStep] = []
        for step, reached in zip(self._plan.steps, self._plan.edits, strict=True):
            changes_rows = not step.after.edit.is_identity
            after_tables = tables
            after_images = images
            if changes_rows:
                after_tables = edit_tables(tables, _in_terms_of_disk(step, reached), self._tensors, self._new_row)
                after_images = self._images(step.before, step.after, after_tables)
            left = {name: self._plan.render_document(step.after, name) for name in sorted(step.after.touched)}
            after_stamp = self._stamp(stamp, step, left, after_images)
            files = {name: texts.get(name) for name in left}
            files[STAMP], left[STAMP] = stamp.encode() if stamp else None, after_stamp.encode()
            after = (after_images, after_tables)
            undo = self._undo(step, edit, (files, left), images, after, len(applied_steps), objects)
            copies = {
                copy.copy.lineage: copy.keep_undo(
                    len(applied_steps), edit, step.after.edit, _in_terms_of_disk(step, reached), objects
                )
                for copy in self.copies
            }
            undo = replace(undo, init_rows=self._keep_init_rows(step, edit, reached, objects), copies=copies)
            delta = step.delta
            applied_steps.append(
                AppliedStep(
                    revision=step.migration.revision,
                    checksum=step.migration.checksum,
                    message=step.migration.message,
                    undo=keep(undo, objects),
                    before=_digests(undo.files, undo.shards),
                    after={
                        **_digests({name: data for name, data in undo.left.items() if name != STAMP}, {}),
                        **undo.left_shards,
                    },
                    tokens=self._list_initialised(step, delta, reached),
                    moved=moves_of((token, *ids) for token, ids in delta.moved.items()),
                    removed=delta.removed,
                )
            )
            tables, images, stamp, edit = after_tables, self._select(after_images), after_stamp, reached
            texts |= left
        if stamp is None:
            raise ValueError("a plan without steps has no upgrade")
        self.applied_steps = tuple(applied_steps)
        digests = {name: stamp.shards[name].digest for name in self._plan.shard_layouts}
        return Completion(stamp.encode(), digests, self._new_row)

    def _new_row(self, tensor: str, recipe: Recipe) -> bytes:
        return self._made[tensor][recipe]

    def _images(self, before: ModelState, after: ModelState, tables: Tables) -> dict[str, ShardImage]:
        if not tables:
            return {}
        return {
            file: ShardImage(found.header, shard_digest(found.header, tables, self._fixed))
            for file, found in lay_out_shards(self._snapshot, before, after).items()
        }

    def _select(self, images: Mapping[str, ShardImage]) -> dict[str, ShardImage]:
        """Return the shards that the next step may change: those with a vocabulary tensor."""
        return {
            name: image
            for name, image in images.items()
            if any(entry.name in self._tensors for entry in image.header.entries)
        }

    def _stamp(self, last: Stamp | None, step: Step, left: Files, images: Mapping[str, ShardImage]) -> Stamp:
        files = dict(last.files) if last else {}
        for name, data in left.items():
            is_json = not isinstance(step.after.documents.get(name), str | bytes)
            files[name] = ChangedFile.of(data, self._snapshot.layout(name) if is_json else None)
        shards = dict(last.shards) if last else {}
        if not step.after.edit.is_identity:
            starts = {name: found.baseline_start for name, found in self._plan.shard_layouts.items()}
            shards |= {name: ChangedShard(image.digest, starts[name]) for name, image in images.items()}
            # A program that saved the model again may have left shards out.
            there = self._snapshot.weights.files - self._plan.removed_shards
            shards = {name: shard for name, shard in shards.items() if name in there or name in starts}
        applied = last.applied if last else ()
        return Stamp(
            lineage=self._lineage,
            applied=(*applied, (step.migration.revision, step.migration.checksum)),
            files=files,
            shards=shards,
            baseline_tokens=step.after.baseline_tokens,
            rows=step.after.lineage,
            reshaped=step.after.reshaped,
            init=step.after.init,
            tokenizer=last.tokenizer if last else self._snapshot.state.tokenizer.fingerprint,
        )

    def _undo(
        self,
        step: Step,
        edit: RowEdit,
        documents: tuple[Files, Files],
        images: Mapping[str, ShardImage],
        after: tuple[Mapping[str, ShardImage], Tables],
        number: int,
        objects: NewObjects,
    ) -> Undo:
        files, left = documents
        left_images, left_tables = after
        directory = self._snapshot.directory
        changes_rows = not step.after.edit.is_identity
        shards = dict(images) if changes_rows else {}
        left_shards = {name: image.digest for name, image in left_images.items()} if changes_rows else {}
        left_tensors: dict[str, str] = {}
        if changes_rows:
            left_tensors = {name: tensor_digest(table) for name, table in left_tables.items()}
            written = {entry.name for image in left_images.values() for entry in image.header.entries}
            left_tensors |= {name: digest for name, digest in self._fixed.items() if name in written}
        present = [name for name in (*files, *shards) if exists(directory / name)]
        saved = {
            name: objects.put_parts(
                read_lost_rows(
                    step.after.edit, self._tensors[name].window, rows.geometry.row_bytes, self._reader(name, edit)
                )
            )
            for name, rows in sorted(self._rows.items() if changes_rows else ())
        }
        metadata = {name: read_metadata(real_path(directory, name)) for name in present}
        links = {name: link for name in present if (link := read_link_metadata(directory / name)) is not None}
        adapters = {each._lineage: each.applied_steps[number].undo for each in self.adapters}
        return Undo(files, left, metadata, step.after.edit, saved, shards, left_shards, left_tensors, adapters, links)

    def _reader(self, tensor: str, edit: RowEdit) -> Callable[[int, int], bytes]:
        """Return what reads the rows of a tensor after `edit`, from one up to another."""
        return read_edited(self._rows[tensor], self._made.get(tensor, {}), self._tensors[tensor].window.of(edit))

    def _keep_init_rows(
        self, step: Step, edit: RowEdit, reached: RowEdit, objects: NewObjects
    ) -> Mapping[Side, StoredInitRows]:
        """Keep the new rows of each side, with rows to compare them with."""
        found: dict[Side, StoredInitRows] = {}
        matrices = embeddings(self._snapshot.tensors)
        references = find_references(step.after)
        for side, tensor in matrices.items() if "input" in matrices else ():
            own, read = tensor.window.of(step.after.edit), self._reader(tensor.name, edit)

            def read_copied(row: int, own: RowEdit = own, read: Callable[[int, int], bytes] = read) -> bytes | None:
                before = own.row(row) if row < own.new_rows else None
                return read(before, before + 1) if isinstance(before, int) else None

            made = self._made.get(tensor.name, {})
            rows = keep_init_rows(step.after, reached, tensor.dtype, made, references, read_copied, objects)
            if rows is not None:
                found[side] = rows
        return found

    def _list_initialised(self, step: Step, delta: TokenDelta, reached: RowEdit) -> tuple[InitialisedToken, ...]:
        matrices = embeddings(self._snapshot.tensors)
        if "input" not in matrices:
            return ()

        # Many new rows may be the same.
        fingerprint = cache(RowFingerprint.of)

        def marks(recipe: InitRecipe) -> str:
            made = {side: (self._made[tensor.name].get(recipe), tensor.dtype) for side, tensor in matrices.items()}
            return format_fingerprints(
                {side: fingerprint(raw, dtype) for side, (raw, dtype) in made.items() if raw is not None}
            )

        return list_initialised_tokens(step, delta, reached, marks)


def _in_terms_of_disk(step: Step, reached: RowEdit) -> RowEdit:
    """Return the edit of a step whose new rows are found by their recipes in terms of the disk, as they are made."""
    pieces: dict[int, CopiedRows | NewRow] = dict(step.after.edit.copied_rows())
    for row, _ in step.after.edit.recipes():
        recipe, own = reached.row(row), step.after.edit.row(row)
        if isinstance(recipe, OutputRowAdded) and isinstance(own, OutputRowAdded):
            # What is there already is looked up where this step finds it.
            recipe = OutputRowAdded(own.row, recipe.init)
        if isinstance(recipe, Recipe):
            pieces[row] = NewRow(recipe)
    return RowEdit(step.after.edit.old_rows, tuple(pieces[row] for row in sorted(pieces)))


def _digests(files: Mapping[str, bytes | None], images: Mapping[str, ShardImage]) -> dict[str, str]:
    found = {name: blake3(data).hexdigest() for name, data in files.items() if data is not None}
    return found | {name: image.digest for name, image in images.items()}


@dataclass(frozen=True)
class InitialisedToken:
    """A token that a migration adds, renames or reinitialises.

    Args:
        token: Its text, after a rename the new one.
        init: How its row is initialised, as JSON; None where the row stays.
        row_fingerprint: The marks of its new row, as `format_fingerprints` writes them.
    """

    kind: Literal["added", "renamed", "reinitialised"]
    token: str
    id: int
    old_token: str | None = None
    init: Any = None
    row_fingerprint: str | None = None
    old_id: int | None = None


def list_initialised_tokens(
    step: Step, delta: TokenDelta, reached: RowEdit, digest: Callable[[InitRecipe], str]
) -> tuple[InitialisedToken, ...]:
    """Return the tokens that a step adds, renames or reinitialises.

    Args:
        digest: Gives the marks of a new row.
    """
    old_texts = {new: old for old, new in delta.renamed.items()}
    old_ids = step.before.tokenizer.ids
    new = {row for row, _ in step.after.edit.recipes()}
    found: list[InitialisedToken] = []
    describe = cache(lambda strategy: strategy.describe())
    ids, texts = step.after.tokenizer.ids, step.after.tokenizer.texts
    for token in sort_as(ids, {*old_texts, *delta.added, *(texts[row] for row in new if row in texts)}):
        number = ids[token]
        recipe = reached.row(number) if number in new else None
        init = row_fingerprint = None
        if isinstance(recipe, InitRecipe):
            init = {"input": describe(recipe.input.strategy), "output": describe(recipe.output.strategy)}
            row_fingerprint = digest(recipe)
        if token in old_texts:
            was = old_texts[token]
            found.append(InitialisedToken("renamed", token, number, was, init, row_fingerprint, old_ids[was]))
        elif init is not None or token in delta.added:
            kind: Literal["added", "reinitialised"] = "reinitialised" if token in old_ids else "added"
            found.append(InitialisedToken(kind, token, number, None, init, row_fingerprint, old_ids.get(token)))
    return tuple(found)
