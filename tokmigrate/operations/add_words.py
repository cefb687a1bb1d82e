"""The operation `add_words`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.formatting import format_list, format_quoted
from tokmigrate.init import InitSpec
from tokmigrate.model.documents.slow_tokenizer_files import IN_ANOTHER_FORMAT, list_slow_files
from tokmigrate.model.documents.state import VOCAB_TXT, ModelState
from tokmigrate.model.tokenizer.token_meaning import SPACE
from tokmigrate.model.tokenizer.tokenizer_json import BYTE, FILE, Tokenizer, continuing_prefix, model_kind
from tokmigrate.operations.operation import Context, Footprint, Risk, TokenChanges
from tokmigrate.operations.row_changes import with_joined_tokens
from tokmigrate.operations.token_lists import FILE_DESCRIPTION, TokenListOperation

_WORDS = "the words of the tokenizer"
_MARGIN = 1e-9
"""What a word scores more than its parts for each token that it saves: just more than the rounding of sums."""

Parts = Mapping[str, tuple[str, ...]]
"""The old tokens of each word."""


class AddWords(TokenListOperation):
    """Add whole words to the vocabulary of a WordPiece or Unigram tokenizer, and give each an id and a row.

    A word is spelled as the vocabulary spells it, with the `▁` of a Unigram, and is several tokens before. A BPE takes
    merges instead: `extend_vocab`.

    A WordPiece takes the longest token that a word begins with. So words that begin with no new one are tokenized as
    before. A longer word that does begins with the new token, as `warfage` with `warfa`, unless an old token is longer.
    What follows is tokenized as before if no old token can go over the end of the new word; the plan names the words
    where one can.

    A Unigram takes the tokens with the highest sum of scores. The score of a word is the sum of its old tokens and a
    trifle more, so it is taken where these were, and every boundary between two tokens is one that was there before.
    Only among tokenizations with the same sum another one may be taken.

    `subtokens` reads the rows of the old tokens of a word.
    """

    name: ClassVar[str] = "add_words"
    shorthand: ClassVar[str | None] = "words"
    lists: ClassVar[Mapping[str, str]] = {"words": "words_file"}

    words: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), min_length=1, description="The words, in the order of their ids."
    )
    words_file: str | None = Field(default=None, min_length=1, description=FILE_DESCRIPTION)
    init: InitSpec | None = Field(default=None, description="How the rows are initialised.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        old = state.tokenizer
        parts = _read_words(old, self.words)
        for name, _ in list_slow_files(state):
            raise OperationError("words are not written into it", where=name, hint=IN_ANOTHER_FORMAT)
        ids = {word: old.highest + 1 + place for place, word in enumerate(parts)}
        new = old.with_model_tokens(ids, _compute_scores(old, parts)).check()
        after = _with_lines(state.with_document(FILE, new.document))
        sources = {word: tuple(old.vocabulary[part] for part in parts[word]) for word in parts}
        return with_joined_tokens(state, after, context, self.init, ids, sources)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        old, reason = before.tokenizer, f"text with {format_quoted(self.words)} has fewer tokens"
        if model_kind(old.document) == "WordPiece":
            reason += ", and so do longer words that begin with one"
            if open_ended := _find_open_ended(old, _read_words(old, self.words)):
                reason += f"; after {format_quoted(open_ended)} the rest of a longer word may be tokenized differently"
        elif letters := _find_letters_inside(old, after.tokenizer):
            reason += f"; text with {format_quoted(letters)} may be tokenized differently: only longer tokens have them"
        return Risk.caution(reason)

    def token_changes(self) -> TokenChanges:
        return TokenChanges(extended=self.words)

    def footprint(self) -> Footprint:
        # Which tokens a word is made of, and what it scores, depends on the words before it.
        return Footprint.of((*Footprint.name_tokens(self.words), _WORDS), Footprint.name_init(self.init))


def _read_words(tokenizer: Tokenizer, words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return each word with its old tokens; raises OperationError, which names those that cannot be added."""
    kind = model_kind(tokenizer.document)
    if kind not in ("WordPiece", "Unigram"):
        raise OperationError(
            f"words are not looked up by a {kind} tokenizer",
            where=FILE,
            hint="append merges with extend_vocab" if kind == "BPE" else "use add_tokens",
        )
    prefix = continuing_prefix(tokenizer.document["model"])
    if kind == "WordPiece" and not prefix:
        message = "its tokens are the same at the start of a word and inside of it"
        raise OperationError(message, where=FILE, hint="use add_tokens")
    found: dict[str, tuple[str, ...]] = {}
    faults: list[tuple[str, str]] = []
    for word in words:
        parts = tuple(tokenizer.texts[number] for number in tokenizer.pieces(word.removeprefix(SPACE)))
        if word in tokenizer.ids or word in found:
            faults.append((f"'{word}' is a token already, or is listed twice", "leave it out"))
        elif fault := _find_fault(tokenizer, word, parts):
            faults.append(fault)
        found[word] = parts
    if len(faults) == 1:
        raise OperationError(faults[0][0], hint=faults[0][1])
    if faults:
        listed = format_list([what for what, _ in faults], 5, "; ")
        raise OperationError(
            f"{len(faults):,} words cannot be added: {listed}",
            hint="; ".join(dict.fromkeys(hint for _, hint in faults[:5])),
        )
    return found


def _find_fault(tokenizer: Tokenizer, word: str, parts: Sequence[str]) -> tuple[str, str] | None:
    """Return why a word that is tokenized as `parts` cannot be added, and what to do; None where it can."""
    prefix = continuing_prefix(tokenizer.document["model"])
    if any(part == tokenizer.unknown or BYTE.fullmatch(part) for part in parts):
        return f"'{word}' has a letter that is not in the vocabulary", "use add_tokens for it"
    is_continued = [bool(prefix) and part.startswith(prefix) for part in parts]
    spelled = "".join(
        part.removeprefix(prefix) if continued else part for part, continued in zip(parts, is_continued, strict=True)
    )
    is_whole = all(is_continued[1:]) if prefix else SPACE not in spelled[1:]
    if not is_whole or not tokenizer.added.keys().isdisjoint(parts):
        what = f"'{word}' is not one word: it is tokenized as {format_quoted(parts, 10)}"
        return what, "list its words, or add it with add_tokens, which takes any text"
    if spelled != word:
        return f"this tokenizer spells '{word}' as '{spelled}'", f"write '{spelled}'"
    return None


def _compute_scores(tokenizer: Tokenizer, parts: Parts) -> dict[str, float]:
    """Return the score of each word of a Unigram; nothing for a WordPiece, which has none."""
    vocabulary = tokenizer.document["model"]["vocab"]
    if not isinstance(vocabulary, list):
        return {}
    scores = {text: float(score) for text, score in vocabulary}
    # A word that another begins with saves fewer tokens, and scores less with the rest than the other.
    return {word: sum(scores[part] for part in held) + _MARGIN * (len(held) - 1) for word, held in parts.items()}


def _find_open_ended(tokenizer: Tokenizer, parts: Parts) -> list[str]:
    """Return the words at whose end, in a longer word, an old token of a WordPiece can go on.

    It begins where a token of the word does, with all that is left of the word, and is longer than that.
    """
    prefix = continuing_prefix(tokenizer.document["model"])
    tokens = (token.removeprefix(prefix) for token in tokenizer.vocabulary if token.startswith(prefix))
    starts = {token[:length] for token in tokens for length in range(1, len(token))}
    found = []
    for word, held in parts.items():
        rests = ("".join(part.removeprefix(prefix) for part in held[start:]) for start in range(1, len(held)))
        if not starts.isdisjoint(rests):
            found.append(word)
    return found


def _find_letters_inside(before: Tokenizer, after: Tokenizer) -> list[str]:
    """Return the letters that only longer tokens of a Unigram have, where unknown letters score less than before.

    An unknown letter scores less than the lowest score of the vocabulary, and it is the other way to tokenize those.
    """
    lowest = [min(score for _, score in each.document["model"]["vocab"]) for each in (before, after)]
    if lowest[1] >= lowest[0]:
        return []
    tokens = before.vocabulary.keys() - before.added.keys()
    return sorted({letter for token in tokens for letter in token} - tokens)


def _with_lines(state: ModelState) -> ModelState:
    """Return the state with a line of vocab.txt, where there is one, for each token behind its last."""
    if VOCAB_TXT not in state.documents:
        return state
    text, tokenizer = str(state.documents[VOCAB_TXT]), state.tokenizer
    behind = range(len(text.removesuffix("\n").split("\n")), tokenizer.highest + 1)
    if any(number not in tokenizer.texts for number in behind):
        raise OperationError("a line would be left without a token", where=VOCAB_TXT, hint=IN_ANOTHER_FORMAT)
    lines = "".join(f"\n{tokenizer.texts[number]}" for number in behind)
    end = "\n" if text.endswith("\n") else ""
    return state.with_document(VOCAB_TXT, f"{text.removesuffix(end)}{lines}{end}")
