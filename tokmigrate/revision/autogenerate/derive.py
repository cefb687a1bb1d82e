"""The operations that lead from one tokenizer to another, derived from what they differ in.

Each is tried on the state that the ones before it left. So what is returned can be applied, and what differs at the
end is what no operation expresses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.semantics.declared import Documents
from tokmigrate.operations.base import Context, Operation
from tokmigrate.revision.autogenerate.builder import Way
from tokmigrate.revision.autogenerate.pipeline import set_padding, set_parts, set_truncation
from tokmigrate.revision.autogenerate.roles import set_other_ids, set_role_ids, set_roles, set_template
from tokmigrate.revision.autogenerate.tokens import add, bury, make_room, move, remove, rename, resize, set_flags


@dataclass(frozen=True)
class Derived:
    """What leads from one tokenizer to another.

    Args:
        operations: What to do, in order.
        refused: Why operations that were tried could not be applied.
    """

    operations: tuple[Operation, ...]
    refused: tuple[str, ...]


def derive(before: ModelState, after: Documents, revision: str) -> Derived:
    """Return the operations that lead from a state to a tokenizer, or as near to it as operations can.

    Args:
        before: The state to begin with.
        after: The parsed files of the tokenizer to arrive at.
        revision: The id of the migration that is to hold them.
    """
    way = Way(before, after, Context(revision))
    for go in _STRETCHES:
        go(way)
    return Derived(tuple(way.operations), tuple(dict.fromkeys(way.refused)))


_STRETCHES: tuple[Callable[[Way], None], ...] = (
    bury,
    rename,
    remove,
    add,
    # A token that is listed as special cannot become another one afterwards.
    set_flags,
    set_roles,
    set_template,
    set_parts,
    set_padding,
    set_truncation,
    # What was in use before is not any more.
    bury,
    remove,
    make_room,
    move,
    set_flags,
    set_padding,
    set_role_ids,
    set_other_ids,
    resize,
)
