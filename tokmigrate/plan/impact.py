"""What a plan does to a corpus, in figures and examples."""

from __future__ import annotations

from dataclasses import dataclass

from tokmigrate.model.documents.longest_text import Limit
from tokmigrate.revision.migration import Migration


@dataclass(frozen=True)
class Counts:
    """What one tokenizer makes of a corpus; special tokens around a line are counted with it.

    Args:
        tokens: All tokens.
        longest: The most tokens of a line.
        limit: The most that the model takes, None where it states none.
        beyond: The lines with more, None without a limit.
        unknown: How often the unknown token stands, None where the model has none.
        byte_tokens: How often a token for a single byte stands in for a character, None where the model has none.
    """

    tokens: int
    longest: int
    limit: Limit | None
    beyond: int | None
    unknown: int | None
    byte_tokens: int | None


@dataclass(frozen=True)
class Shift:
    """What becomes of a corpus from one state to another.

    Args:
        before: The counts before.
        after: The counts after.
        cut_otherwise: The lines whose text is cut into other tokens, whatever ids these have.
        other_ids: The lines for which a model gets other ids, be it that tokens were moved or put around them.
    """

    before: Counts
    after: Counts
    cut_otherwise: int
    other_ids: int


@dataclass(frozen=True)
class Piece:
    """A token of a line.

    Args:
        token: As the vocabulary writes it.
        text: The text that it stands for where that is written in letters for bytes, else the same.
    """

    token: str
    text: str


@dataclass(frozen=True)
class ShownCut:
    """A part of a line as it is cut.

    Args:
        tokens: All tokens of the line, with the special ones around it.
        pieces: The tokens of the part.
        more: How many tokens of the line come after the part.
    """

    tokens: int
    pieces: tuple[Piece, ...]
    more: int


@dataclass(frozen=True)
class Example:
    """A line that is cut otherwise, shown around the first token that differs.

    Args:
        line: Its number.
        text: The part that is shown.
        skipped: How many tokens come before that part.
        before: The part as it was cut.
        after: The part as it will be.
    """

    line: int
    text: str
    skipped: int
    before: ShownCut
    after: ShownCut


@dataclass(frozen=True)
class Impact:
    """What a plan does to a corpus.

    Args:
        corpus: The file.
        lines: Its lines with text.
        empty: Its lines without.
        text_bytes: The bytes of its text.
        whole: From the state before the plan to the one after.
        migrations: What each migration does alone, None where it can do nothing to a text.
        worst: The lines that the whole plan cuts otherwise, the worst first: those that grow most, then those with the
            most tokens of either side that the other has not, then the first ones. Each text is there once.
    """

    corpus: str
    lines: int
    empty: int
    text_bytes: int
    whole: Shift
    migrations: tuple[tuple[Migration, Shift | None], ...]
    worst: tuple[Example, ...]
