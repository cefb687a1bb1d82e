"""A model as operations see it: its documents and the history of its rows, as one pure value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from tokmigrate.model.formats.json_text import Json, replace_at
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer, view
from tokmigrate.settings import FieldShape, WorkerLimits
from tokmigrate.vocabulary.ids import Run
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, Recipe, RowEdit, join_pieces

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
GENERATION = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"
TEMPLATE = "chat_template.jinja"
LEGACY_TEMPLATE = "chat_template.json"
PROCESSOR = "processor_config.json"
PREPROCESSOR = "preprocessor_config.json"
SENTENCE_TRANSFORMERS = "config_sentence_transformers.json"
MODULES = "modules.json"
MODULE_CONFIG = "/config.json"
"""How the names of configurations of sentence-transformers' modules end."""

MORE_TEMPLATES = "additional_chat_templates"
VOCAB_JSON = "vocab.json"
VOCAB_TXT = "vocab.txt"
MERGES = "merges.txt"


@dataclass(frozen=True)
class Made(Recipe):
    """A row that a migration made, as a model's lineage remembers it: the revision, and the token's text or `row N`."""

    revision: str
    label: str

    def rebase(self, first: RowEdit) -> Made:  # noqa: ARG002
        return self


@dataclass(frozen=True)
class Traits:
    """What stays the same about a model.

    Args:
        tied: Whether input and output embeddings are one matrix.
        short: How many of the last ids have a row in the input embeddings only.
        stops: Ids at which a tensor ends that has no rows for those from there on.
        has_tables: Whether a tensor of integers has a row for each id.
        fixed_size: Why the number of rows cannot change, None where it can.
        id_fields: What the workspace says about fields that are not known.
        worker: What the libraries may use when they work with it.
    """

    model_type: str
    tied: bool
    short: int = 0
    stops: tuple[int, ...] = ()
    has_tables: bool = False
    fixed_size: str | None = None
    id_fields: Mapping[str, FieldShape | Literal["ignore"]] = field(default_factory=dict)
    worker: WorkerLimits = field(default_factory=WorkerLimits)


@dataclass(frozen=True)
class ModelState:
    """A model between two operations.

    Args:
        documents: Parsed JSON files, text files as text, and others as bytes, by name.
        touched: The files that changed since the state was settled.
        edit: Rows now in terms of the rows when the state was settled.
        lineage: Rows now in terms of the rows of the baseline; new ones are `Made`.
        baseline_tokens: The rows of the baseline that had a token, as runs.
        reshaped: Whether the number of rows ever changed since the baseline.
        init: The strategy that `set_init` left for later migrations, as JSON.
        traits: What no operation changes.
    """

    documents: Mapping[str, Json] = field(repr=False)
    touched: frozenset[str]
    edit: RowEdit = field(repr=False)
    lineage: RowEdit = field(repr=False)
    baseline_tokens: tuple[Run, ...] = field(repr=False)
    reshaped: bool
    init: Json
    traits: Traits

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return view(self.documents[FILE])

    @property
    def rows(self) -> int:
        return self.edit.new_rows

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary as config.json gives it: the ids that can be predicted."""
        return self.rows - self.traits.short

    @property
    def configurations(self) -> dict[str, Json]:
        """The files in which ids stand under names of fields, those of sentence-transformers' modules among them."""
        known = (CONFIG, GENERATION, PROCESSOR, PREPROCESSOR, TOKENIZER_CONFIG, SENTENCE_TRANSFORMERS)
        return {name: held for name, held in self.documents.items() if name in known or name.endswith(MODULE_CONFIG)}

    def settle(self) -> ModelState:
        return replace(self, touched=frozenset(), edit=RowEdit.identity(self.rows))

    def with_document(self, name: str, value: Json) -> ModelState:
        """Return the state with the file `name` holding `value`; None removes the file."""
        if self.documents.get(name) == value:
            return self
        documents = {**self.documents, name: value}
        if value is None:
            del documents[name]
        return replace(self, documents=documents, touched=self.touched | {name})

    def with_value(self, name: str, path: tuple[str | int, ...], value: Json) -> ModelState:
        return self.with_document(name, replace_at(self.documents.get(name, {}), path, value))

    def with_rows(self, edit: RowEdit) -> ModelState:
        """Return the state after `edit`, whose new rows are `InitRecipe`."""
        pieces = (
            piece
            if isinstance(piece, CopiedRows)
            else NewRow(Made(getattr(piece.recipe, "revision", ""), getattr(piece.recipe, "label", "")))
            for piece in edit.pieces
        )
        made = RowEdit(edit.old_rows, join_pieces(pieces))
        return replace(
            self,
            edit=self.edit.then(edit),
            lineage=self.lineage.then(made),
            reshaped=self.reshaped or edit.new_rows != edit.old_rows,
        )

    @cached_property
    def population(self) -> tuple[Run, ...]:
        """The rows of the baseline vocabulary that are still there, in the baseline's order, as runs."""
        found: list[Run] = []
        kept = sorted(self.lineage.copied_rows(), key=lambda run: run[1].start)
        for start, stop in self.baseline_tokens:
            for row, piece in kept:
                first, last = max(start, piece.start), min(stop, piece.stop)
                if first < last:
                    shift = row - piece.start
                    run = (first + shift, last + shift)
                    if found and found[-1][1] == run[0]:
                        run = (found.pop()[0], run[1])
                    found.append(run)
        return tuple(found)
