"""The tokens of a tokenizer with their counts in a corpus, and what a user says of them: which stay then, and why."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from blake3 import blake3

from tokmigrate import __version__
from tokmigrate.apply.durable import write_durably
from tokmigrate.errors import FileProblems, Problem, StorageError, UsageError, in_one_line, suggest
from tokmigrate.files import exists, read_file, read_if_present, storage_errors
from tokmigrate.model.documents.chat_template import find_literals, read_chat_templates
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.model.worker.corpora import STDIN, Corpus, stream_shares
from tokmigrate.operations.token_choice import Reason, Wanted, choose_tokens
from tokmigrate.operations.token_lists import read_tokens
from tokmigrate.operations.token_patterns import find_matches, is_pattern
from tokmigrate.settings import Workspace
from tokmigrate.state.rows import library_versions

CHAT_ROLES = ("system", "user", "assistant", "tool", "developer")
"""The roles that a chat template writes for a message without naming them."""

_RACY_NS = 2_000_000_000
"""A file that was changed less long ago may be changed again without another time."""

_NAMED = 10  # How many lines of a file that are no tokens an error names


@dataclass(frozen=True)
class Selection:
    """Tokens that a user wants to keep or to drop.

    Args:
        keep: Files with a token in each line, and patterns as `find_matches` takes them; so is `drop`.
        keep_texts: Text files whose tokens stay.
    """

    keep: Sequence[str] = ()
    drop: Sequence[str] = ()
    keep_texts: Sequence[Path] = ()


@dataclass(frozen=True)
class CountedTokens:
    """The tokens of a tokenizer that a corpus may need.

    Args:
        name: What the user calls the tokenizer.
        counts: How often each token occurs in the corpus.
        stay: Those that stay anyhow, with the reason.
        drop: Those that go however often they occur.
        text_bytes: The bytes of text that were counted.
    """

    name: str
    state: ModelState = field(repr=False)
    counts: Mapping[str, float] = field(repr=False)
    stay: Mapping[str, Reason] = field(repr=False)
    drop: frozenset[str] = field(repr=False)
    text_bytes: int

    def choose(self, wanted: Wanted) -> dict[str, Reason]:
        """Return the tokens that stay, each with the reason.

        Raises:
            UsageError: No token is removed, or more have to stay than are wanted.
        """
        kept = choose_tokens(self.state, self.counts, wanted, self.stay, self.drop)
        if len(kept) == len(self.state.tokenizer.ids):
            raise UsageError("no token would be removed", where=self.name, hint="keep fewer tokens, or give less text")
        if wanted.tokens is not None and len(kept) > wanted.tokens:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(Counter(kept.values()).items()))
            raise UsageError(
                f"{len(kept):,} tokens have to stay ({reasons}), which is more than {wanted.tokens:,}",
                where=self.name,
                hint=f"at most {len(self.state.tokenizer.ids) - len(kept):,} can go; remove fewer, or keep fewer",
            )
        return kept

    def keep(self, tokens: Iterable[str]) -> CountedTokens:
        """Return the same where the corpus needs these tokens."""
        return replace(self, stay={**dict.fromkeys(tokens, "corpus"), **self.stay})

    def drop_rarest(self, most: int, gone: Iterable[str]) -> CountedTokens:
        """Return the same with only the rarest of the tokens to drop that go, of equal ones the highest ids."""
        ids = self.state.tokenizer.ids
        dropped = sorted(self.drop.intersection(gone), key=lambda token: (self.counts.get(token, 0), -ids[token]))
        return replace(self, drop=frozenset(dropped[:most]))

    def count_kept_of_drop(self, kept: Mapping[str, Reason]) -> Mapping[Reason, int]:
        """Return how many of the tokens to drop stay for each reason."""
        return Counter(sorted(kept[token] for token in self.drop if token in kept))

    def format_reasons(self, kept: Mapping[str, Reason]) -> str:
        """Return a line for each token that stays: its old id, it as JSON, how often it occurs, and the reason."""
        ids = self.state.tokenizer.ids
        lines = (
            f"{ids[token]}\t{json.dumps(token, ensure_ascii=False)}\t{self.counts.get(token, 0)}\t{kept[token]}\n"
            for token in sorted(kept, key=ids.__getitem__)
        )
        return "".join(("id\ttoken\tcount\treason\n", *lines))


def count_tokens(
    workspace: Workspace,
    name: str,
    state: ModelState,
    corpus: Corpus,
    selection: Selection,
    count_bytes: Callable[[int], None],
) -> CountedTokens:
    """Count the tokens of a corpus, and find those that a user names.

    The counts are kept in the workspace, for the next command with the same tokenizer and corpus.

    Args:
        count_bytes: What hears how many more bytes are read.

    Raises:
        UsageError: The corpus has no text, or a word selects nothing.
        FileProblems: A file of the corpus is not text, or a file with tokens is none, or lists one that is unknown.
    """
    stay = _find_staying(state, selection)
    drop = frozenset(token for word in selection.drop for token in _select(state, word))
    learned = _count(workspace, state, corpus, count_bytes)
    if not learned["counts"]:
        raise UsageError("the corpus has no text", where=corpus.name, hint="name files with text")
    counts = {state.tokenizer.texts[number]: occurrences for number, occurrences in learned["counts"]}
    return CountedTokens(name, state, counts, stay, drop, learned["text_bytes"])


def _count(
    workspace: Workspace, state: ModelState, corpus: Corpus, count_bytes: Callable[[int], None]
) -> Mapping[str, Any]:
    """Return the answer of the counting worker, or the same as the workspace has it from the last command."""
    path = workspace.root / ".tokmigrate" / "counts.json"
    digest, kept = _describe_counting(corpus, state.documents[FILE]), None
    with suppress(StorageError, ValueError):
        kept = json.loads(read_if_present(path) or b"null") if digest else None
    if isinstance(kept, dict) and kept.get("digest") == digest:
        count_bytes(corpus.size)
        return dict(kept["answer"])
    request = {"document": state.documents[FILE]}
    learned = _add_up(stream_shares("count_tokens", corpus, request, count_bytes, state.traits.worker))
    if digest:
        # Without the file the next command counts again.
        with suppress(StorageError), storage_errors("write the file", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, json.dumps({"digest": digest, "answer": learned}).encode())
    return learned


def _add_up(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how often each token occurs in all shares of a corpus, weighted, and the bytes of their texts."""
    found: dict[float, Counter[int]] = {}
    for weight, held in chain.from_iterable(answer["counts"] for answer in answers):
        found.setdefault(weight, Counter()).update(dict(held))
    counts: defaultdict[int, float] = defaultdict(int)
    # Sums of fractions depend on their order.
    for weight, occurrences in sorted(found.items()):
        for number, count in occurrences.items():
            counts[number] += count * weight
    return {"counts": sorted(counts.items()), "text_bytes": sum(answer["text_bytes"] for answer in answers)}


def _describe_counting(corpus: Corpus, document: Mapping[str, Any]) -> str | None:
    """Return the digest of what counts follow from: libraries, tokenizer.json, and files by inode, size and times.

    None where the files cannot be distinguished from later ones: standard input, and files that were changed only just
    now.
    """
    files: list[Any] = []
    for file in corpus.files:
        with storage_errors("look at the file", Path(file.path)):
            held = os.stat(file.path)  # noqa: PTH116 - a file of the corpus may be a link
        times = (held.st_mtime_ns, held.st_ctime_ns)
        if file.name == STDIN or time.time_ns() - max(times) < _RACY_NS:
            return None
        files.append([file.path, file.field, file.weight, held.st_dev, held.st_ino, held.st_size, *times])
    # The order of a vocabulary and of settings may matter to the library, so that the text counts.
    return blake3(json.dumps([__version__, dict(library_versions()), files, document]).encode()).hexdigest()


def _find_staying(state: ModelState, selection: Selection) -> dict[str, Reason]:
    """Return the tokens that stay because a user or a chat template needs them, each with the reason."""
    literals = [text for template in read_chat_templates(state.documents).values() for text in find_literals(template)]
    kept = _tokens_of(state, (_read_text(path) for path in selection.keep_texts))
    kept |= {token for word in selection.keep for token in _select(state, word)}
    templates = _tokens_of(state, [*literals, *CHAT_ROLES] if literals else [])
    return {**dict.fromkeys(templates, "template"), **dict.fromkeys(kept, "keep")}


def _read_text(path: Path) -> str:
    """Return the text of a file; raises UsageError where it is none."""
    try:
        return read_file(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("the file is not UTF-8", where=str(path), hint="give a text file") from error


def _tokens_of(state: ModelState, texts: Iterable[str]) -> set[str]:
    return {state.tokenizer.texts[number] for text in texts for number in state.tokenizer.pieces(text)}


def _select(state: ModelState, word: str) -> tuple[str, ...]:
    """Return the tokens that a word of the command line names: a pattern, or a file with a token in each line."""
    if is_pattern(word):
        return find_matches(state, word)
    if not exists(Path(word)):
        hint = "patterns begin with re:, script: or preset:"
        raise UsageError(f"'{word}' is neither a file with tokens nor a pattern", hint=hint)
    tokens = read_tokens(word, read_file(Path(word)))
    missing = [(number, token) for number, token in enumerate(tokens, 1) if token not in state.tokenizer.ids]
    if missing:
        raise FileProblems(_describe_missing(state, word, missing))
    return tokens


def _describe_missing(state: ModelState, file: str, missing: Sequence[tuple[int, str]]) -> Iterator[Problem]:
    """Yield what is wrong with the first lines of a file that are no tokens, and how many more there are."""
    for number, token in missing[:_NAMED]:
        hint = suggest(token, state.tokenizer.ids) or "a token is written as tokenizer.json spells it"
        yield Problem(file, number, 1, f"'{in_one_line(token)}' is not a token of this tokenizer", hint)
    if len(missing) > _NAMED:
        yield Problem(file, missing[_NAMED][0], 1, f"{len(missing) - _NAMED:,} more lines are not tokens of it")
