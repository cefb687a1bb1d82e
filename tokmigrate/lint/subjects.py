"""What rules look at: a migration file, what it makes of a model, and its failure on one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from tokmigrate.errors import TokmigrateError
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.operation import Footprint, NewToken, Operation, TokenChanges
from tokmigrate.plan.steps import Effect, Step
from tokmigrate.revision.migration import Migration, PlannedOperation
from tokmigrate.strict_yaml.tree import Node, Tree
from tokmigrate.vocabulary.ids import AddedToken

_YAML_LINE = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_PYTHON_LINE = re.compile("\r\n|\r|\n")
_PLACE = re.compile(r":(\d+)(?::(\d+))?")


@dataclass(frozen=True, order=True)
class Location:
    """A line and a column of a file, both counting from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Written:
    """An operation, where it begins, and what the file says about it; None in a Python migration."""

    operation: Operation
    location: Location
    node: Node | None = None

    def location_of(self, *texts: str) -> Location:
        """Return where the operation writes the first of `texts` that it does write; else where it begins."""
        return next((self._locations[text] for text in texts if text in self._locations), self.location)

    @cached_property
    def _locations(self) -> Mapping[str, Location]:
        places = list(self.node.places()) if self.node else []
        return {text: Location(line, column) for text, line, column in reversed(places)}

    @cached_property
    def tokens(self) -> TokenChanges:
        return self.operation.token_changes() or TokenChanges()

    @cached_property
    def footprint(self) -> Footprint:
        return self.operation.footprint() or Footprint()


@dataclass(frozen=True)
class MigrationFile:
    """A migration file with what a workspace knows of it.

    Args:
        tree: The places of its values; None for Python.
        operations: What it does; of a Python migration only where a model is there.
        earlier: The migrations before it, from the first on.
        edited_on: The models that it was applied to before it was edited.
        not_in_git: The files that it refers to and Git does not keep.
        edited_since: The branch that has it with other contents, None where none is known to.
    """

    migration: Migration
    text: str
    tree: Tree | None
    operations: tuple[Written, ...]
    earlier: tuple[Migration, ...] = ()
    known_models: frozenset[str] = frozenset()
    edited_on: tuple[str, ...] = ()
    not_in_git: frozenset[str] = frozenset()
    edited_since: str | None = None

    @cached_property
    def lines(self) -> tuple[str, ...]:
        return tuple((_PYTHON_LINE if self.is_python else _YAML_LINE).split(self.text))

    @property
    def is_python(self) -> bool:
        return self.tree is None

    @property
    def added_tokens(self) -> Iterator[tuple[Written, NewToken]]:
        return ((written, token) for written in self.operations for token in written.tokens.added)

    def with_operations(self, operations: tuple[PlannedOperation, ...]) -> MigrationFile:
        """Return the file with what its code does to a model; what a YAML file does is the same for all."""
        written = tuple(Written(each.operation, parse_location(each.place)) for each in operations)
        return replace(self, operations=written) if self.is_python else self

    def location_of(self, *steps: str | int) -> Location:
        """Return the place of a field, or of a value in it; of the file's start where it does not stand there."""
        if self.tree is not None and self.tree.root.child(steps[0]) is not None:
            return Location(*self.tree.place(steps))
        line = next((n for n, line in enumerate(self.lines, 1) if line.startswith(f"{steps[0]} =")), 1)
        return Location(line, 1)


@dataclass(frozen=True)
class Failure:
    """A migration that a model refuses."""

    file: MigrationFile
    model: str
    error: TokmigrateError


@dataclass(frozen=True)
class Sighting:
    """In which texts that hold an added token the tokenizers library finds it, and in which not.

    `sought` is the text that is looked for: what the normalizer makes of the token's, where it is normalised.
    """

    found: tuple[str, ...]
    missed: tuple[str, ...]
    sought: str


Sightings = Mapping[str, Sighting]


@dataclass(frozen=True)
class OnModel:
    """A migration on one model.

    Args:
        final: The state after all pending migrations.
        before: The sightings before it; empty, as those `after` it, where it changes nothing about them.
        template_error: Why the default chat template cannot be used after it; None where it can, or stays as it is.
        removed_of_templates: The removed tokens that chat templates were tokenized as.
    """

    file: MigrationFile
    model: str
    step: Step
    final: ModelState
    before: Sightings = field(default_factory=dict)
    after: Sightings = field(default_factory=dict)
    template_error: str | None = None
    removed_of_templates: tuple[str, ...] = ()

    @property
    def effects(self) -> Iterator[tuple[Written, Effect]]:
        return zip(self.file.operations, self.step.effects, strict=True)

    def last_that(self, happens: Callable[[ModelState, ModelState], bool]) -> Written | None:
        """Return the last operation with whose states before and after something happens; None where it never does."""
        effects = reversed([*self.effects])
        return next((written for written, effect in effects if happens(effect.before, effect.after)), None)

    @cached_property
    def removed(self) -> tuple[str, ...]:
        """The tokens that are gone after it, or have another text, by their ids."""
        return list_removed(self.step)

    def find_removal(self, *tokens: str) -> Written:
        """Return the first operation that removes one of `tokens`, by default of all that are removed."""
        gone = frozenset(tokens or self.removed)
        effects = (
            (written, effect.before.tokenizer.ids, effect.after.tokenizer.ids) for written, effect in self.effects
        )
        return next(written for written, before, after in effects if not gone.isdisjoint(before.keys() - after.keys()))

    @cached_property
    def causes(self) -> Mapping[str, Written]:
        """Each added token that the migration brings, or gives another text, with the operation that does."""
        left = self.step.after.tokenizer.added.keys()
        found: dict[str, Written] = {}
        for written, effect in self.effects:
            held, added = effect.before.tokenizer.added, effect.after.tokenizer.added
            found |= {token: written for token in added if token in left and token not in held}
        return found


def list_removed(step: Step) -> tuple[str, ...]:
    """Return the tokens that a step removes or gives another text, by their ids."""
    before, after = step.before.tokenizer.ids, step.after.tokenizer.ids
    return () if before is after else tuple(sorted(before.keys() - after.keys(), key=before.__getitem__))


def list_operations(migration: Migration, tree: Tree | None) -> tuple[Written, ...]:
    """Return the operations of a YAML migration with what the file says about each; none of a Python one."""
    if tree is None:
        return ()
    return tuple(
        Written(planned.operation, parse_location(planned.place), tree.at(("operations", number)).root)
        for number, planned in enumerate(migration.operations)
    )


def texts_with(token: AddedToken) -> tuple[str, ...]:
    """Return texts in which a token has to be found: alone, inside a text, and between words."""
    between = f"x {token.content} x"
    return (token.content, between) if token.single_word else (token.content, f"x{token.content}x", between)


def parse_location(where: str | None) -> Location:
    """Return the place in `file:line:column`, perhaps with words after it; the first one where there is none."""
    found = _PLACE.search(where or "")
    return Location(int(found[1]), int(found[2] or 1)) if found else Location(1, 1)
