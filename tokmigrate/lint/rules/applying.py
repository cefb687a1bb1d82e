"""TM0: whether a migration can be applied at all."""

from __future__ import annotations

from collections.abc import Iterator

from tokmigrate.lint.file import Failure, Place, place_of
from tokmigrate.lint.rule import ERROR, Found, rule


@rule(
    "TM001",
    "cannot-be-applied",
    ERROR,
    wrong="""\
operations:
  - set_special_tokens: {eos: "<|end_of_turn|>"}
""",
    right="""\
operations:
  - add_tokens:
      tokens:
        - {content: "<|end_of_turn|>", special: true, init: {strategy: mean}}
  - set_special_tokens: {eos: "<|end_of_turn|>"}
""",
)
def cannot_be_applied(failure: Failure) -> Iterator[Found]:
    """A model of the workspace refuses the migration.

    What `tokmigrate upgrade` would say of it is said before anyone waits for it. Later migrations cannot be looked at
    on that model.
    """
    where = failure.error.where or ""
    shown = failure.file.migration.shown
    place = place_of(where.removeprefix(shown)) if where.startswith(shown) else Place(1, 1)
    yield Found(place, f"it cannot be applied: {failure.error.message}", failure.error.hint)
