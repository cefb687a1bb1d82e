"""What the rules of a program are about, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tokmigrate.model.adapter import match_tensors
from tokmigrate.model.snapshot import Snapshot


@dataclass(frozen=True)
class Finding:
    """What a program reads otherwise than transformers, or not at all: in which file, and what to do."""

    severity: Literal["error", "warning"]
    message: str
    where: str
    help: str


SET_TEMPLATE = "remove `chat_template` there, or set it again: `set_chat_template` writes all places"
"""What to do where a program takes another chat template than transformers."""


@dataclass(frozen=True)
class Loaded:
    """What transformers makes of the tokenizer.

    Args:
        check_ids: The ids of the text that llama.cpp's converter tells pre-tokenizers apart by.
        decoded: The text of each added token once it is tokenized and decoded again.
        specials: The tokens that have a role or are listed as special.
    """

    check_ids: tuple[int, ...] = ()
    decoded: Mapping[str, str] = field(default_factory=dict)
    specials: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Subject:
    """A model with its adapters, and what transformers makes of it where a program's rules need that."""

    snapshot: Snapshot
    adapters: tuple[Snapshot, ...] = ()
    loaded: Loaded = field(default_factory=Loaded)


@dataclass(frozen=True)
class Reading:
    """What a program reads, in one line, and what its rules find."""

    summary: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Target:
    """A program that reads model directories.

    Args:
        version: The version or commit of the source that its rules are taken from.
        needs_loading: Whether its rules need to know what transformers makes of the tokenizer.
    """

    program: str
    version: str
    read: Callable[[Subject], Reading]
    needs_loading: bool = False


Kind = Literal["whole", "listed", "factor"]
"""A whole matrix (`modules_to_save`), rows of listed ids (`trainable_token_indices`), or a factor that is added."""

BAKE = "write its rows into the model: `tokmigrate bake`, or merge the whole adapter"
"""What to do where a program does not take such rows."""


def find_rows(adapter: Snapshot, base: Snapshot) -> dict[Kind, str]:
    """Return the kinds of rows that an adapter has for its model's vocabulary, each with one of their tensors."""
    found: dict[Kind, str] = {}
    for tensor in match_tensors(adapter.weights, base):
        # The copy of the base in an adapter with listed rows changes nothing.
        if tensor.of is not None and "base_layer" not in tensor.entry.name:
            kind: Kind = "factor" if tensor.adds else "listed" if tensor.lists else "whole"
            found.setdefault(kind, tensor.entry.name)
    return found
