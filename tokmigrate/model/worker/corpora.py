"""The corpus that words name, and workers that read it side by side."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tokmigrate.errors import UsageError
from tokmigrate.files import exists, has_directory, storage_error, storage_errors
from tokmigrate.formatting import format_list
from tokmigrate.model.worker.corpus_files import FIELD, KNOWN, CorpusFile
from tokmigrate.model.worker.worker import Question, count_threads, stream_worker
from tokmigrate.parallel import run_together
from tokmigrate.settings import WorkerLimits

LARGE = 2**24
"""The bytes of a file that several workers share: those of many blocks, so that the shares are alike."""

SHARE = 2**26
"""The bytes of a corpus that are worth a worker of their own: each tokenizes words that the others have too."""

_MOST = 16
"""More workers would need memory, and each reads over the blocks of the others."""

STDIN = "-"
"""What stands for standard input in a list of files."""


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus; `name` is what a user calls all of them."""

    name: str
    files: tuple[CorpusFile, ...]

    @cached_property
    def size(self) -> int:
        """The bytes of all files; raises UsageError where one cannot be read."""
        return sum(file.size for file in self.files)

    def request(self) -> list[dict[str, Any]]:
        """Return the files as a worker takes them."""
        return [asdict(file) for file in self.files]

    def split(self, shares: int) -> list[Corpus]:
        """Return the same texts in several corpora of about the same size; fewer where some would have no file.

        Each has its share of every large file, and its own of the small ones.
        """
        split: list[list[CorpusFile]] = [[] for _ in range(shares)]
        sizes = [0] * shares
        for file in self.files:
            if file.size > LARGE:
                for share, files in enumerate(split):
                    files.append(replace(file, share=share, shares=shares))
            else:
                smallest = sizes.index(min(sizes))
                split[smallest].append(file)
                sizes[smallest] += file.size
        return [replace(self, files=tuple(files)) for files in split if files]


@contextmanager
def open_corpus(
    words: Sequence[str], field: str | None = None, weights: Mapping[str, float] | None = None
) -> Iterator[Corpus]:
    """Give the corpus that words name: files, directories, patterns, and `-` for standard input.

    Standard input is kept in a temporary file, since it is read twice; it is JSON Lines where a field is given. A
    directory gives the files in and below it whose suffixes are known, sorted by name, without hidden ones and links to
    directories.

    Args:
        field: The field of a record that has the text.
        weights: How often each text of a file, or of the files below a directory, counts; the last that fits holds.

    Raises:
        UsageError: A file cannot be read, a word or a weight names none, or pyarrow is missing for one.
    """
    with ExitStack() as kept:
        paths: dict[str, str] = {}
        for word in dict.fromkeys(words):
            if word == STDIN:
                suffix = ".jsonl" if field else ".txt"
                paths[kept.enter_context(_spool_stdin(suffix))] = STDIN
            else:
                paths |= {path: path for path in map(str, _expand(word))}
        found = tuple(CorpusFile(path, name, field or FIELD) for path, name in paths.items())
        for word, weight in (weights or {}).items():
            chosen = {file.path for file in found if _names(word, file)}
            if not chosen:
                hint = "name a file of the corpus, or a directory with some"
                raise UsageError("a weight is given for it, and it is not in the corpus", where=word, hint=hint)
            found = tuple(replace(file, weight=weight) if file.path in chosen else file for file in found)
        corpus = Corpus(format_list(words), found)
        # What cannot be read is an error before anything is computed.
        _ = corpus.size
        yield corpus


@contextmanager
def _spool_stdin(suffix: str) -> Iterator[str]:
    """Give the path of a temporary file with what standard input has."""
    with tempfile.NamedTemporaryFile(prefix="tokmigrate-", suffix=suffix) as file:
        with storage_errors("keep standard input", Path(file.name)):
            shutil.copyfileobj(sys.stdin.buffer, file)
            file.flush()
        yield file.name


def _names(word: str, file: CorpusFile) -> bool:
    path = Path(file.path)
    return word == file.name if STDIN in (word, file.name) else Path(word) in (path, *path.parents)


def _expand(word: str) -> Iterator[Path]:
    path = Path(word)
    if has_directory(path):
        found = list(_list_known(path))
        if not found:
            hint = f"name files, or a pattern such as '{word.rstrip('/')}/*'; known suffixes: {', '.join(KNOWN)}"
            raise UsageError("the directory has no file with a known suffix", where=word, hint=hint)
        yield from found
    elif any(letter in word for letter in "*?[") and not exists(path):
        # Path.glob takes hidden files too.
        matches = sorted(glob.glob(word, recursive=True))  # noqa: PTH207
        if not matches:
            raise UsageError("no file matches the pattern", where=word, hint="correct it, and quote it for the shell")
        for match in matches:
            yield from _list_known(Path(match)) if Path(match).is_dir() else (Path(match),)
    else:
        yield path


def _list_known(directory: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise storage_error("list the directory", Path(error.filename), error)

    for folder, inner, names in os.walk(directory, onerror=refuse):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(KNOWN) and not name.startswith("."))


def stream_shares(
    question: Question,
    corpus: Corpus,
    request: Mapping[str, Any],
    on_progress: Callable[[int], None],
    limits: WorkerLimits,
) -> list[dict[str, Any]]:
    """Ask a question about each share of a corpus, and return the answers; there are as many as the corpus is large.

    Args:
        request: What the question needs beside `files`.

    Raises what `stream_worker` raises; the first error ends all.
    """
    processors = count_threads()
    shares = corpus.split(max(1, min(processors, _MOST, corpus.size // SHARE)))
    threads = max(1, processors // len(shares)) if len(shares) > 1 else None
    lock = threading.Lock()

    def tell(done: int) -> None:
        with lock:
            on_progress(done)

    def ask(share: Corpus) -> dict[str, Any]:
        wanted = {**request, "files": share.request()}
        return stream_worker(question, wanted, tell, limits, threads=threads)

    return run_together([partial(ask, share) for share in shares])
