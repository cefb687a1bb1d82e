"""What a migration makes of a model, as rules see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from tokmigrate.lint.file import MigrationFile, Written
from tokmigrate.model.documents.state import ModelState
from tokmigrate.plan.steps import Effect, Step
from tokmigrate.vocabulary.ids import AddedToken


@dataclass(frozen=True)
class Sighting:
    """Where the tokenizers library finds an added token.

    Args:
        token: The token.
        found: Texts that hold the token and in which it is found.
        missed: Texts that hold the token and in which it is not.
        sought: The text that is looked for: what the normalizer makes of the token's, where it is normalised.
    """

    token: AddedToken
    found: tuple[str, ...]
    missed: tuple[str, ...]
    sought: str


Sightings = Mapping[str, Sighting]
"""By the text of the token."""


@dataclass(frozen=True)
class OnModel:
    """A migration on one model.

    Args:
        file: The migration.
        model: The model's name.
        step: What it does to the model.
        final: The state after all pending migrations.
        before: The sightings before it; empty where it changes nothing about them.
        after: The sightings after it; empty where it changes nothing about them.
        template_error: Why the default chat template cannot be used after it; None where it can, or stays as it is.
    """

    file: MigrationFile
    model: str
    step: Step
    final: ModelState
    before: Sightings = field(default_factory=dict)
    after: Sightings = field(default_factory=dict)
    template_error: str | None = None

    @property
    def changes(self) -> Iterator[tuple[Written, ModelState, ModelState]]:
        """Each operation with the states around it."""
        for written, effect in self.effects:
            yield written, effect.before, effect.after

    @property
    def effects(self) -> Iterator[tuple[Written, Effect]]:
        """Each operation with what it does."""
        return zip(self.file.operations, self.step.effects, strict=True)

    def last_that(self, happens: Callable[[ModelState, ModelState], bool]) -> Written | None:
        """Return the last operation with whose states before and after something happens; None where it never does."""
        return next((written for written, *around in [*self.changes][::-1] if happens(*around)), None)

    @cached_property
    def causes(self) -> Mapping[str, Written]:
        """Each added token that the migration brings, or gives another text, with the operation that does."""
        left = self.step.after.tokenizer.added.keys()
        found: dict[str, Written] = {}
        for written, before, after in self.changes:
            held = before.tokenizer.added
            found |= {token: written for token in after.tokenizer.added if token in left and token not in held}
        return found


def texts_with(token: AddedToken) -> tuple[str, ...]:
    """Return texts in which a token has to be found: alone, inside a text, and between words."""
    between = f"x {token.content} x"
    return (token.content, between) if token.single_word else (token.content, f"x{token.content}x", between)
