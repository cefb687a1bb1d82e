"""What a plan does to a corpus, measured by the libraries, in figures and examples.

A tokenizer is measured as tokenizer.json has it, without its truncation and padding, which would shorten and fill the
lines, and without the chance of a dropout. Whether a migration is measured at all is seen from the documents before
and after it, never from the names of its operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokmigrate.errors import FileProblems, Problem, TokenizerError, UsageError
from tokmigrate.events import CorpusMeasured, CorpusOpened, CorpusRead, OnProgress, no_progress
from tokmigrate.model.documents.sizes import Limit, limit_of
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.byte_letters import is_byte_level, text_of_letters
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer, model_kind
from tokmigrate.model.worker.corpus import corpus_bytes
from tokmigrate.model.worker.worker import stream_worker
from tokmigrate.plan.plan import Plan
from tokmigrate.revision.migration import Migration

_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(0x100))


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
class CorpusChange:
    """How the tokenization of a corpus changes from one state to another.

    Args:
        before: The counts before.
        after: The counts after.
        tokenized_differently: The lines whose text becomes other tokens, whatever ids these have.
        other_ids: The lines for which a model gets other ids, be it that tokens were moved or put around them.
    """

    before: Counts
    after: Counts
    tokenized_differently: int
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
class ExampleTokens:
    """A part of a line as it is tokenized.

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
    """A line that is tokenized differently, shown around the first token that differs.

    Args:
        line: Its number.
        text: The part that is shown.
        skipped: How many tokens come before that part.
        before: The part as it was tokenized.
        after: The part as it will be.
    """

    line: int
    text: str
    skipped: int
    before: ExampleTokens
    after: ExampleTokens


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
        worst: The lines that the whole plan tokenizes differently, the worst first: those that grow most, then those
            with the most tokens of either side that the other has not, then the first ones. Each text is there once.
    """

    corpus: str
    lines: int
    empty: int
    text_bytes: int
    whole: CorpusChange
    migrations: tuple[tuple[Migration, CorpusChange | None], ...]
    worst: tuple[Example, ...]


def measure(plan: Plan, corpus: Path, on_progress: OnProgress = no_progress) -> Impact | None:
    """Return what a plan does to a corpus, None where no migration of it can do anything to a text.

    The corpus is read once, and not held; nothing is written.

    Args:
        plan: The plan.
        corpus: A text file in UTF-8, a line for each text.
        on_progress: Receives the progress of reading.

    Raises:
        UsageError: The corpus cannot be read, or has no text.
        FileProblems: A line of it is not UTF-8, or too long.
        TokenizerError: A tokenizer cannot be loaded, or cannot tokenize a line.
        LimitError: It needs more than a worker may have.
    """
    size = corpus_bytes(corpus)
    measurement = Measurement.of(plan)
    if not measurement.is_needed:
        return None
    on_progress(CorpusOpened(plan.model, size))
    try:
        answer = stream_worker(
            "impact",
            measurement.request(str(corpus)),
            lambda count: on_progress(CorpusRead(plan.model, count)),
            plan.snapshot.state.traits.worker,
        )
    finally:
        on_progress(CorpusMeasured(plan.model))
    impact = measurement.impact(str(corpus), answer)
    if not impact.lines:
        raise UsageError("no line of it has text", where=str(corpus), hint="give a text file, a line for each text")
    return impact


@dataclass(frozen=True)
class _TokenizerState:
    """What of a model's state decides how a text is tokenized, and whether it is too long.

    Args:
        tokenizer: A view of what tokenizes of tokenizer.json.
        limit: The most tokens that a text may have.
        made_by: The migration that leads to it, None before the plan.
    """

    tokenizer: Tokenizer
    limit: Limit | None
    made_by: Migration | None

    def tokenizes_like(self, other: _TokenizerState) -> bool:
        """Return whether no text can tell the two apart."""
        return self.limit == other.limit and self.tokenizer == other.tokenizer

    def request(self) -> dict[str, Json]:
        """Return the tokenizer as the question `impact` takes it."""
        ids, unknown = self.tokenizer.ids, self.tokenizer.unknown
        falls_back = bool(self.tokenizer.document["model"].get("byte_fallback"))
        return {
            "document": self.tokenizer.document,
            "limit": self.limit.tokens if self.limit else None,
            "unknown": None if unknown is None else ids.get(unknown),
            "byte_tokens": [ids[token] for token in _BYTE_TOKENS if token in ids] if falls_back else [],
        }

    def pieces(self, tokens: Sequence[str]) -> tuple[Piece, ...]:
        """Return tokens with the text that they stand for."""
        if not is_byte_level(self.tokenizer.document):
            return tuple(Piece(token, token) for token in tokens)
        # An added token is written as it is.
        added = self.tokenizer.added
        return tuple(Piece(token, token if token in added else text_of_letters(token)) for token in tokens)


@dataclass(frozen=True)
class Measurement:
    """The states of a plan that tokenize differently, in their order, and where each migration leads from and to.

    Args:
        plan: The plan.
        states: The states; each differs from the one before.
        steps: For each migration the places of its states, which are the same where it can do nothing to a text.
    """

    plan: Plan
    states: tuple[_TokenizerState, ...]
    steps: tuple[tuple[int, int], ...]

    @staticmethod
    def of(plan: Plan) -> Measurement:
        """Return what is to be measured of a plan."""
        states = [_tokenizer_state(plan.snapshot.state, None)]
        steps: list[tuple[int, int]] = []
        for step in plan.steps:
            before, reached = len(states) - 1, _tokenizer_state(step.after, step.migration)
            if not reached.tokenizes_like(states[-1]):
                states.append(reached)
            steps.append((before, len(states) - 1))
        return Measurement(plan, tuple(states), tuple(steps))

    @property
    def is_needed(self) -> bool:
        """Whether any migration can do something to a text."""
        return len(self.states) > 1

    @property
    def _pairs(self) -> tuple[tuple[int, int], ...]:
        """The states that are compared: the first and the last, and those around each migration that matters."""
        around = [(first, second) for first, second in self.steps if first != second]
        return tuple(dict.fromkeys([(0, len(self.states) - 1), *around]))

    def request(self, corpus: str) -> dict[str, Json]:
        """Return what the question `impact` is asked of a corpus."""
        return {
            "corpus": corpus,
            "tokenizers": [state.request() for state in self.states],
            "pairs": [list(pair) for pair in self._pairs],
        }

    def impact(self, corpus: str, answer: Mapping[str, Any]) -> Impact:
        """Return the impact that the answer tells.

        Args:
            corpus: The file.
            answer: What the question `impact` answered.

        Raises:
            FileProblems: The corpus is not text.
            TokenizerError: A tokenizer cannot tokenize it.
        """
        if "problem" in answer:
            raise FileProblems([Problem(**answer["problem"])])
        if "fault" in answer:
            raise self._corpus_error(corpus, **answer["fault"])
        counts = [_counts(state, counts) for state, counts in zip(self.states, answer["tokenizers"], strict=True)]
        changes = {
            (first, second): CorpusChange(counts[first], counts[second], **found)
            for (first, second), found in zip(self._pairs, answer["pairs"], strict=True)
        }
        return Impact(
            corpus,
            answer["lines"],
            answer["empty"],
            answer["text_bytes"],
            changes[self._pairs[0]],
            tuple((step.migration, changes.get(pair)) for step, pair in zip(self.plan.steps, self.steps, strict=True)),
            tuple(self._example(example) for example in answer["worst"]),
        )

    def _example(self, example: Mapping[str, Any]) -> Example:
        before, after = (
            ExampleTokens(example[name]["tokens"], state.pieces(example[name]["shown"]), example[name]["more"])
            for name, state in (("before", self.states[0]), ("after", self.states[-1]))
        )
        return Example(example["line"], example["text"], example["skipped"], before, after)

    def _corpus_error(self, corpus: str, tokenizer: int, line: int | None, cause: str) -> TokenizerError:
        made_by = self.states[tokenizer].made_by
        which = f"the tokenizer after migration {made_by.revision}" if made_by else "the tokenizer as it is"
        fault = "be loaded" if line is None else "tokenize this line"
        return TokenizerError(
            f"{which} cannot {fault}: {cause}",
            where=self.plan.model if line is None else f"{corpus}:{line}",
            hint="the error comes from the tokenizers library; change the migration, or leave the line out",
        )


def _tokenizer_state(state: ModelState, made_by: Migration | None) -> _TokenizerState:
    document = state.documents[FILE]
    # A decoder has no part in tokenizing.
    without = {**document, "truncation": None, "padding": None, "decoder": None}
    if model_kind(document) == "BPE":
        without["model"] = {**document["model"], "dropout": None}
    return _TokenizerState(Tokenizer(without), limit_of(state), made_by)


def _counts(state: _TokenizerState, counts: Mapping[str, Any]) -> Counts:
    return Counts(
        counts["tokens"], counts["longest"], state.limit, counts["beyond"], counts["unknown"], counts["byte_tokens"]
    )
