"""How the impact of a plan is measured: what is asked of the libraries, and what their answer says.

A tokenizer is measured as tokenizer.json has it, without its truncation and padding, which would cut and fill the
lines, and without the chance of a dropout. Whether a migration is measured at all is seen from the documents before
and after it, never from the names of its operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokmigrate.errors import FileProblems, Problem, TokenizerError
from tokmigrate.model.documents.longest_text import Limit, limit_of
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.byte_letters import is_byte_level, text_of_letters
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer, model_kind
from tokmigrate.plan.impact import Counts, Example, Impact, Piece, Shift, ShownCut
from tokmigrate.plan.upgrade import Plan
from tokmigrate.revision.migration import Migration

_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(0x100))


@dataclass(frozen=True)
class CutState:
    """What of a model's state decides how a text is cut, and whether it is too long.

    Args:
        tokenizer: A view of what cuts of tokenizer.json.
        limit: The most tokens that a text may have.
        made_by: The migration that leads to it, None before the plan.
    """

    tokenizer: Tokenizer
    limit: Limit | None
    made_by: Migration | None

    def cuts_like(self, other: CutState) -> bool:
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
    """The states of a plan that cut otherwise, in their order, and where each migration leads from and to.

    Args:
        plan: The plan.
        states: The states; each differs from the one before.
        steps: For each migration the places of its states, which are the same where it can do nothing to a text.
    """

    plan: Plan
    states: tuple[CutState, ...]
    steps: tuple[tuple[int, int], ...]

    @staticmethod
    def of(plan: Plan) -> Measurement:
        """Return what is to be measured of a plan."""
        states = [_cut_state(plan.snapshot.state, None)]
        steps: list[tuple[int, int]] = []
        for step in plan.steps:
            before, reached = len(states) - 1, _cut_state(step.after, step.migration)
            if not reached.cuts_like(states[-1]):
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
            TokenizerError: A tokenizer cannot cut it.
        """
        if "problem" in answer:
            raise FileProblems([Problem(**answer["problem"])])
        if "fault" in answer:
            raise self._failed(corpus, **answer["fault"])
        counts = [_counts(state, told) for state, told in zip(self.states, answer["tokenizers"], strict=True)]
        shifts = {
            (first, second): Shift(counts[first], counts[second], told["cut_otherwise"], told["other_ids"])
            for (first, second), told in zip(self._pairs, answer["pairs"], strict=True)
        }
        return Impact(
            corpus,
            answer["lines"],
            answer["empty"],
            answer["text_bytes"],
            shifts[self._pairs[0]],
            tuple((step.migration, shifts.get(pair)) for step, pair in zip(self.plan.steps, self.steps, strict=True)),
            tuple(self._example(told) for told in answer["worst"]),
        )

    def _example(self, told: Mapping[str, Any]) -> Example:
        before, after = (
            ShownCut(told[name]["tokens"], state.pieces(told[name]["shown"]), told[name]["more"])
            for name, state in (("before", self.states[0]), ("after", self.states[-1]))
        )
        return Example(told["line"], told["text"], told["skipped"], before, after)

    def _failed(self, corpus: str, tokenizer: int, line: int | None, cause: str) -> TokenizerError:
        made_by = self.states[tokenizer].made_by
        which = f"the tokenizer after migration {made_by.revision}" if made_by else "the tokenizer as it is"
        fault = "be loaded" if line is None else "cut this line"
        return TokenizerError(
            f"{which} cannot {fault}: {cause}",
            where=self.plan.model if line is None else f"{corpus}:{line}",
            hint="the tokenizers library says so; change the migration, or leave the line out",
        )


def _cut_state(state: ModelState, made_by: Migration | None) -> CutState:
    document = state.documents[FILE]
    # A decoder has no part in cutting.
    without = {**document, "truncation": None, "padding": None, "decoder": None}
    if model_kind(document) == "BPE":
        without["model"] = {**document["model"], "dropout": None}
    return CutState(Tokenizer(without), limit_of(state), made_by)


def _counts(state: CutState, told: Mapping[str, Any]) -> Counts:
    return Counts(told["tokens"], told["longest"], state.limit, told["beyond"], told["unknown"], told["byte_tokens"])
