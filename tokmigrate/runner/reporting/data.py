"""What the report on one model tells, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tokmigrate.audit.training import TokenTraining, Training
from tokmigrate.model.weights.row_survey import Neighbour, Numbers
from tokmigrate.operations.base import RiskLevel
from tokmigrate.plan.steps import Effect
from tokmigrate.state.provenance import Provenance
from tokmigrate.state.rows import TokenEvent
from tokmigrate.vocabulary.recipes import Side

Kind = Literal["base", "added", "renamed", "moved", "reinitialised", "spare", "tombstone"]
"""What is at an id: a token of the baseline as it was, one that migrations made or changed, or none in use."""

_TRAINED = {Training.TRAINED: True, Training.UNTRAINED: False, Training.MOVED: False, Training.PARTLY: False}

KINDS: tuple[Kind, ...] = ("base", "added", "renamed", "moved", "reinitialised", "tombstone", "spare")


@dataclass(frozen=True)
class Recorded:
    """What the ledger knows of how a revision was applied.

    Args:
        when: When.
        who: By whom, where, and at which Git commit.
        adopted: Whether the ledger found it applied: then it knows the time of finding only.
    """

    when: datetime
    who: Provenance
    adopted: bool


@dataclass(frozen=True)
class Milestone:
    """A migration on the timeline of a model.

    Args:
        revision: Its id.
        message: What it is for.
        author: Who wrote it.
        file: Its file, relative to the workspace.
        applied: Whether the model has it.
        recorded: What the ledger knows of it.
        tokens: How many tokens it added, renamed and so on, by the ledger's words.
        effects: Of a pending one what each operation will do; none where it cannot be planned.
    """

    revision: str
    message: str
    author: str | None
    file: str
    applied: bool
    recorded: Recorded | None
    tokens: Mapping[str, int]
    effects: tuple[Effect, ...]


@dataclass(frozen=True)
class ReportedToken:
    """A token that the report has a line for.

    Args:
        token: Its text.
        id: Its id, None where it was removed and nothing holds the id.
        kind: What is at its id.
        flags: The flags of an added token that are set.
        roles: Its special roles, such as `eos`.
        events: What migrations did to it, the earliest first, as far as the ledger knows.
        revision: The last revision that did something to it, None where none is known.
        training: What became of the row that a migration began; None for rows of the baseline.
        neighbours: Of one that a migration began the nearest tokens of the baseline by the input embeddings, the
            nearest first.
        twins: How many other begun tokens have the same input row.
    """

    token: str
    id: int | None
    kind: Kind | Literal["removed"]
    flags: tuple[str, ...]
    roles: tuple[str, ...]
    events: tuple[TokenEvent, ...]
    revision: str | None
    training: TokenTraining | None
    neighbours: tuple[Neighbour, ...] = ()
    twins: int = 0

    @property
    def trained(self) -> bool | None:
        """Whether all of its row was trained since its init; None for rows of the baseline, and where it is not known.

        Of a row that a file gave nobody knows.
        """
        return _TRAINED.get(self.training.training) if self.training else None

    @property
    def init(self) -> Mapping[str, object] | None:
        """How its row started, as the ledger tells it."""
        return next((event.init for event in reversed(self.events) if event.init is not None), None)


@dataclass(frozen=True, eq=False)
class MatrixNorms:
    """How long the rows of a matrix are.

    Args:
        tensor: Its name.
        side: Whether it is an input or an output matrix.
        shared: Whether input and output are this one matrix.
        old: The finite norms of the baseline vocabulary's rows that are still there.
        new: The norm of each token's row that migrations began, by id.
        broken: The ids of rows that hold an infinity or a NaN.
    """

    tensor: str
    side: Side
    shared: bool
    old: Numbers
    new: Mapping[int, float]
    broken: tuple[int, ...]


@dataclass(frozen=True)
class Concern:
    """Something that a reader of the report should know.

    Args:
        level: How much it matters.
        subject: What it is about, in a word or two.
        text: What it is.
        tokens: The texts of the tokens that it is about.
    """

    level: RiskLevel
    subject: str
    text: str
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ReportData:
    """All that the report on one model tells.

    Args:
        model: Its name in the workspace.
        path: Its directory.
        revision: Its revision, None at `base`.
        lineage: The id of its baseline, None at `base`.
        made: When the report was made.
        rows: The ids that have a row.
        tied: Whether input and output embeddings are one matrix.
        byte_level: Whether its tokens are written in letters for bytes.
        texts: The text of every id that has a token.
        readings: By its id, what a token stands for that is written in letters for bytes and cannot be read as it is.
        timeline: Its migrations, the first first.
        tokens: The tokens that migrations touched and all added and special ones, by id; removed ones last.
        kinds: What is at each id, from 0.
        norms: The norms of its matrices.
        unlooked: How many begun tokens were not compared with the others, being too many.
        concerns: Risks, and what is untrained, the gravest first.
    """

    model: str
    path: str
    revision: str | None
    lineage: str | None
    made: datetime
    rows: int
    tied: bool
    byte_level: bool
    texts: Mapping[int, str]
    readings: Mapping[int, str]
    timeline: tuple[Milestone, ...]
    tokens: tuple[ReportedToken, ...]
    kinds: Sequence[Kind]
    norms: tuple[MatrixNorms, ...]
    unlooked: int
    concerns: tuple[Concern, ...]

    @property
    def untrained(self) -> tuple[ReportedToken, ...]:
        """The tokens whose rows are not trained since their init, whether they moved or not."""
        return tuple(token for token in self.tokens if token.trained is False)
