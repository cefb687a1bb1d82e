"""Does a model have already what migrations do that it is said to lack? Asked of what another program wrote.

Tokens that come, go or get another text are signs. Settings are none: another program may have set them just so, and
to set them again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tokmigrate.errors import TokmigrateError
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.add_role_tokens import AddRoleTokens
from tokmigrate.operations.add_tokens import AddTokens
from tokmigrate.operations.base import Operation
from tokmigrate.operations.remove_tokens import RemoveTokens
from tokmigrate.operations.rename_tokens import RenameTokens
from tokmigrate.plan.evidence import absence
from tokmigrate.revision.migration import Migration


@dataclass(frozen=True)
class Signs:
    """What is there of migrations that a model is said to lack.

    Args:
        revisions: The migrations of which something is there, in order.
        there: What that is.
        reached: The revision up to which all is there, None where a part is.
        lacking: What is not there of the last of them, None where all is.
    """

    revisions: tuple[str, ...]
    there: tuple[str, ...]
    reached: str | None
    lacking: str | None

    def __str__(self) -> str:
        done = f"{' and '.join(self.revisions)} {'does' if len(self.revisions) == 1 else 'do'}"
        more = f" and {len(self.there) - 3} more" if len(self.there) > 3 else ""
        there = f"{'; '.join(self.there[:3])}{more}"
        if self.lacking is None:
            return f"what {done} is there: {there}"
        return f"part of what {done} is there: {there}; but {self.lacking}"


def signs_of(state: ModelState, had: Sequence[Migration], lacked: Sequence[Migration]) -> Signs | None:
    """Return what is there of migrations that a model is said to lack, None where nothing is.

    Args:
        state: The model.
        had: The migrations that it is said to have, in order.
        lacked: Those that follow.
    """
    expected = _Expected()
    found: dict[str, tuple[str, ...]] = {}
    for migration in lacked:
        try:
            operations = [planned.operation for planned in migration.recorded(state.tokenizer)]
        except TokmigrateError:
            # Python that cannot be run on this model tells nothing of it.
            continue
        signs = tuple(dict.fromkeys(sign for each in operations for sign in expected.signs(state, each)))
        if signs:
            found[migration.revision] = signs
    if not found:
        return None
    last = next(place for place, migration in enumerate(lacked) if migration.revision == tuple(found)[-1])
    lacking = absence(state, (*had, *lacked[: last + 1]))
    there = tuple(sign for signs in found.values() for sign in signs)
    return Signs(tuple(found), there, None if lacking else lacked[last].revision, lacking)


@dataclass
class _Expected:
    """What the migrations that are looked at made of tokens so far, had they been applied."""

    gone: set[str] = field(default_factory=set)
    come: set[str] = field(default_factory=set)

    def signs(self, state: ModelState, operation: Operation) -> Iterator[str]:
        """Yield what an operation does that is there, and expect it from then on."""
        match operation:
            case AddTokens() if operation.existing == "refuse":
                yield from self._added(state, [new.content for new in operation.tokens])
            case AddRoleTokens() if operation.existing == "refuse":
                yield from self._added(state, operation.form().tokens)
            case RenameTokens():
                yield from self._added(state, list(operation.tokens.values()))
                yield from self._removed(state, operation.tokens)
            case RemoveTokens():
                yield from self._removed(state, operation.tokens)

    def _added(self, state: ModelState, tokens: Sequence[str]) -> Iterator[str]:
        for token in tokens:
            if token in state.tokenizer.ids and token not in self.gone:
                yield f"the token '{token}' is there"
            self.come.add(token)

    def _removed(self, state: ModelState, tokens: Iterable[str]) -> Iterator[str]:
        for token in tokens:
            if token not in state.tokenizer.ids and token not in self.come:
                yield f"the token '{token}' is gone"
            self.gone.add(token)
