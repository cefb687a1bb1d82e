"""What is on disk: a model directory, read once and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from tokmigrate.errors import ModelError, OutOfStepError
from tokmigrate.files import entries, read_file
from tokmigrate.model.documents.architecture_quirks import fixed_size
from tokmigrate.model.documents.pipeline_overrides import missing_files
from tokmigrate.model.documents.reading import parse_document, read_documents, read_texts, writable_names
from tokmigrate.model.documents.stamp import Stamp, read_stamp
from tokmigrate.model.documents.state import CONFIG, ModelState, Traits
from tokmigrate.model.formats.json_text import Layout, layout_of
from tokmigrate.model.model_files import check_files
from tokmigrate.model.references.config_references import check_declared
from tokmigrate.model.tokenizer.tokenizer_json import FILE as TOKENIZER
from tokmigrate.model.tokenizer.tokenizer_json import view
from tokmigrate.model.tokenizer_kinds import no_tokenizer_json
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor, ids_elsewhere
from tokmigrate.model.weights.vocabulary_tensors import find_vocabulary_tensors
from tokmigrate.model.weights.weights import Weights, read_weights
from tokmigrate.settings import ModelEntry
from tokmigrate.vocabulary.row_edit import RowEdit


@dataclass(frozen=True)
class Snapshot:
    """A model directory at one moment.

    Args:
        state: Its documents and rows, settled.
        notes: What a user should know of it.
        names: The names of all that lies in it; empty for an adapter.
    """

    directory: Path
    state: ModelState = field(repr=False)
    texts: Mapping[str, bytes] = field(repr=False)
    weights: Weights = field(repr=False)
    tensors: tuple[VocabularyTensor, ...] = field(repr=False)
    stamp: Stamp | None = field(repr=False)
    notes: tuple[str, ...]
    names: tuple[str, ...] = field(default=(), repr=False)

    @property
    def revision(self) -> str | None:
        """The revision that the stamp names, None at `base`."""
        return self.stamp.revision if self.stamp else None

    @property
    def applied(self) -> tuple[tuple[str, str], ...]:
        """The applied revisions with the checksums of their files, in order."""
        return self.stamp.applied if self.stamp else ()

    @property
    def revisions(self) -> tuple[str, ...]:
        return self.stamp.revisions if self.stamp else ()

    @property
    def generation(self) -> str | None:
        """The generation that the stamp names, None at `base`."""
        return self.stamp.generation if self.stamp else None

    def layout(self, name: str) -> Layout:
        """Return the layout in which a JSON file is written: the one recorded, the one that its text shows, or ours."""
        if name not in self._layouts:
            found = self.stamp.files[name].layout if self.stamp and name in self.stamp.files else None
            if found is None and name in self.texts:
                found = layout_of(self.texts[name].decode("utf-8"))
            self._layouts[name] = found or Layout()
        return self._layouts[name]

    @cached_property
    def tensors_by_name(self) -> Mapping[str, VocabularyTensor]:
        """The tensors with a vocabulary axis by their names."""
        return {tensor.name: tensor for tensor in self.tensors}

    @cached_property
    def _layouts(self) -> dict[str, Layout]:
        return {}

    @property
    def vocabulary_shards(self) -> tuple[str, ...]:
        """The files that hold a vocabulary tensor, sorted."""
        return tuple(sorted({tensor.file for tensor in self.tensors}))


def take_snapshot(entry: ModelEntry, earlier: Snapshot | None = None) -> Snapshot:
    """Read the model of a workspace, or return what was read of it `earlier` where no file has changed since.

    Raises ModelError where it cannot be worked on.
    """
    directory = entry.here()
    stamp = read_stamp(directory)
    if earlier is not None and _is_unchanged(earlier, directory, stamp):
        return earlier
    listed = _file_names(directory)
    texts, documents = read_documents(directory)
    check_files(directory, writable_names(texts))
    if CONFIG not in documents:
        raise ModelError("there is no config.json", where=str(directory), hint="name a transformers model directory")
    if TOKENIZER not in documents:
        raise no_tokenizer_json(directory, documents)
    weights = read_weights(directory)
    if weights.index is not None:
        text = read_file(directory / weights.index)
        texts[weights.index] = text
        documents[weights.index] = parse_document(weights.index, text, str(directory / weights.index))
    config = documents[CONFIG]
    overrides = {
        name: None if setting == "ignore" else (setting.axis, setting.side)
        for name, setting in entry.vocab_tensors.items()
    }
    read = view(documents[TOKENIZER])
    found = find_vocabulary_tensors(weights, config, overrides, entry.worker, read)
    rows = found.ids
    lineage = stamp.rows if stamp else RowEdit.identity(rows)
    if lineage.new_rows != rows:
        raise OutOfStepError(
            f"the stamp knows {lineage.new_rows} rows, the weights have {rows}",
            where=str(directory),
            hint="restore the weights that belong to the stamp",
        )
    state = ModelState(
        documents=documents,
        touched=frozenset(),
        edit=RowEdit.identity(rows),
        lineage=lineage,
        baseline_tokens=stamp.baseline_tokens if stamp else (),
        reshaped=bool(stamp and stamp.reshaped),
        init=stamp.init if stamp else None,
        traits=Traits(
            str(config.get("model_type", "")),
            found.tied,
            found.short,
            tuple(sorted({tensor.window.stop for tensor in found.tensors if tensor.window.stop is not None})),
            any(tensor.is_table for tensor in found.tensors),
            fixed_size(config),
            entry.id_fields,
            entry.worker,
        ),
    )
    check_declared(state.configurations, entry.id_fields)
    highest = state.tokenizer.check().highest
    if highest >= rows + ids_elsewhere(config):
        raise OutOfStepError(
            f"the token '{state.tokenizer.texts[highest]}' has id {highest}, the embeddings have {rows} rows",
            where=str(directory),
            hint="give the model the tokenizer that it was trained with",
        )
    if stamp is None:
        with_rows = tuple((start, min(stop, rows)) for start, stop in state.tokenizer.id_runs if start < rows)
        state = replace(state, baseline_tokens=with_rows)
    notes = (*found.notes, *missing_files(documents, directory))
    return Snapshot(directory, state, texts, weights, found.tensors, stamp, notes, listed)


def _is_unchanged(earlier: Snapshot, directory: Path, stamp: Stamp | None) -> bool:
    """Return whether every file is as it was read before: documents by their bytes, weights by header and identity."""
    weights = read_weights(directory)
    texts = read_texts(directory)
    if weights.index is not None:
        texts[weights.index] = read_file(directory / weights.index)
    check_files(directory, writable_names(texts))
    found = (directory, stamp, texts, weights, _file_names(directory))
    return found == (earlier.directory, earlier.stamp, earlier.texts, earlier.weights, earlier.names)


def _file_names(directory: Path) -> tuple[str, ...]:
    return tuple(path.name for path in entries(directory))
