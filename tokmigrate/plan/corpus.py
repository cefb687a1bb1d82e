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

from tokmigrate.errors import TokenizerError, UsageError
from tokmigrate.events import OnProgress, no_progress, report_activity
from tokmigrate.model.documents.config_fields import Limit, limit_of
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.byte_level import is_byte_level, text_of_letters
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer, model_kind
from tokmigrate.model.worker.corpus_files import FIELD, CorpusFile
from tokmigrate.model.worker.worker import stream_worker
from tokmigrate.plan.plan import Plan
from tokmigrate.revision.migration import Migration

_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(0x100))


@dataclass(frozen=True)
class Counts:
    """What one tokenizer makes of a corpus; special tokens around a line are counted with it.

    Args:
        longest: The most tokens of a line.
        limit: The most that the model takes; `beyond` counts the lines with more. None where the model states none.
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
    """How many lines of a corpus one state tokenizes differently than another, and how many get other ids."""

    before: Counts
    after: Counts
    tokenized_differently: int
    other_ids: int


@dataclass(frozen=True)
class ExampleTokens:
    """A part of a line as it is tokenized: of all its `tokens`, special ones too, `more` come after those `shown`.

    `texts` are what these stand for, where the vocabulary writes letters for bytes.
    """

    tokens: int
    shown: tuple[str, ...]
    texts: tuple[str, ...]
    more: int


@dataclass(frozen=True)
class Example:
    """A line that is tokenized differently, shown around the first token that differs.

    `skipped` tokens come before the part `text`.
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
        lines: How many lines have text; `empty` ones have none.
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


def measure(plan: Plan, corpus: Path, on_progress: OnProgress = no_progress, *, field: str = FIELD) -> Impact | None:
    """Return what a plan does to a corpus, None where no migration of it can do anything to a text.

    The corpus, a line for each text, is read once, and not held; nothing is written.

    Raises UsageError where it cannot be read, or has no text; FileProblems where a line is not UTF-8, or too long;
    TokenizerError for what a tokenizer cannot do; LimitError where it needs more than a worker may have.
    """
    size = CorpusFile(str(corpus), str(corpus)).size
    states, steps = _list_states(plan)
    if len(states) == 1:
        return None
    # The whole plan comes first, then each migration that can do something to a text.
    pairs = tuple(dict.fromkeys([(0, len(states) - 1), *(pair for pair in steps if pair[0] != pair[1])]))
    request: dict[str, Json] = {
        "corpus": str(corpus),
        "field": field,
        "tokenizers": [state.request() for state in states],
        "pairs": [list(pair) for pair in pairs],
    }
    with report_activity(on_progress, plan.model, "tokenizing the corpus", size) as count_bytes:
        answer = stream_worker("impact", request, count_bytes, plan.snapshot.state.traits.worker)
    if "fault" in answer:
        raise _corpus_error(plan, states, corpus, **answer["fault"])
    if not answer["lines"]:
        raise UsageError("no line of it has text", where=str(corpus), hint="give a text file, a line for each text")
    counts = [Counts(limit=state.limit, **held) for state, held in zip(states, answer["tokenizers"], strict=True)]
    changes = {
        (first, second): CorpusChange(counts[first], counts[second], **found)
        for (first, second), found in zip(pairs, answer["pairs"], strict=True)
    }
    return Impact(
        corpus=str(corpus),
        lines=answer["lines"],
        empty=answer["empty"],
        text_bytes=answer["text_bytes"],
        whole=changes[pairs[0]],
        migrations=tuple((step.migration, changes.get(pair)) for step, pair in zip(plan.steps, steps, strict=True)),
        worst=tuple(
            Example(
                before=states[0].example_tokens(example.pop("before")),
                after=states[-1].example_tokens(example.pop("after")),
                **example,
            )
            for example in answer["worst"]
        ),
    )


@dataclass(frozen=True)
class _TokenizerState:
    """What of a model's state decides how a text is tokenized, and whether it is too long.

    `tokenizer` is a view of what tokenizes; `made_by` the migration that leads to the state, None before the plan.
    """

    tokenizer: Tokenizer
    limit: Limit | None
    made_by: Migration | None

    @staticmethod
    def of(state: ModelState, made_by: Migration | None) -> _TokenizerState:
        document = state.documents[FILE]
        # A decoder has no part in tokenizing.
        without = {**document, "truncation": None, "padding": None, "decoder": None}
        if model_kind(document) == "BPE":
            without["model"] = {**document["model"], "dropout": None}
        return _TokenizerState(Tokenizer(without), limit_of(state), made_by)

    def request(self) -> dict[str, Json]:
        """Return it as the question `impact` takes it."""
        ids, unknown = self.tokenizer.ids, self.tokenizer.unknown
        falls_back = bool(self.tokenizer.document["model"].get("byte_fallback"))
        return {
            "document": self.tokenizer.document,
            "limit": self.limit.tokens if self.limit else None,
            "unknown": None if unknown is None else ids.get(unknown),
            "byte_tokens": [ids[token] for token in _BYTE_TOKENS if token in ids] if falls_back else [],
        }

    def example_tokens(self, answer: Mapping[str, Any]) -> ExampleTokens:
        """Return the tokens of an example, with the text that each stands for."""
        shown: list[str] = answer["shown"]
        # An added token is written as it is.
        is_plain, added = not is_byte_level(self.tokenizer.document), self.tokenizer.added
        texts = (token if is_plain or token in added else text_of_letters(token) for token in shown)
        return ExampleTokens(answer["tokens"], tuple(shown), tuple(texts), answer["more"])


def _list_states(plan: Plan) -> tuple[list[_TokenizerState], list[tuple[int, int]]]:
    """Return the states of a plan that tokenize differently, and for each migration the places of its two states.

    These are the same where the migration can do nothing to a text.
    """
    states = [_TokenizerState.of(plan.snapshot.state, None)]
    steps: list[tuple[int, int]] = []
    for step in plan.steps:
        before, reached = len(states) - 1, _TokenizerState.of(step.after, step.migration)
        if (reached.limit, reached.tokenizer) != (states[-1].limit, states[-1].tokenizer):
            states.append(reached)
        steps.append((before, len(states) - 1))
    return states, steps


def _corpus_error(
    plan: Plan, states: Sequence[_TokenizerState], corpus: Path, tokenizer: int, line: int | None, cause: str
) -> TokenizerError:
    made_by = states[tokenizer].made_by
    which = f"the tokenizer after migration {made_by.revision}" if made_by else "the tokenizer as it is"
    fault = "be loaded" if line is None else "tokenize this line"
    return TokenizerError(
        f"{which} cannot {fault}: {cause}",
        where=plan.model if line is None else f"{corpus}:{line}",
        hint="the error comes from the tokenizers library; change the migration, or leave the line out",
    )
