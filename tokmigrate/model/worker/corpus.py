"""A corpus: a text file of any size, read as lines, a block of them at a time.

A line ends with `\\n` or `\\r\\n`, the last one also without; a byte order mark before the first is not a text. Lines
without text are counted and passed over.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokmigrate.errors import FileProblems, Problem, StorageError, UsageError
from tokmigrate.files import open_for_reading

BLOCK = 2**19
"""About how many bytes of lines are held at once."""

LONGEST_LINE = 2**23
"""The bytes that a line may have; a tokenizer needs about 130 times as much memory to tokenize one."""


@dataclass(frozen=True)
class Block:
    """Lines that follow each other: those with text and their numbers from 1, and how many have none.

    `text_bytes` leaves out line ends; `read` are all bytes that were read for it.
    """

    lines: tuple[tuple[int, str], ...]
    empty: int
    text_bytes: int
    read: int


def corpus_bytes(path: Path) -> int:
    """Return the size of a corpus; raises UsageError where it is not a file that can be read."""
    try:
        with open_for_reading(path) as file:
            return os.fstat(file.fileno()).st_size
    except StorageError as error:
        raise UsageError(error.message, where=str(path), hint="give a text file, a line for each text") from error


def blocks(path: Path) -> Iterator[Block]:
    """Yield the lines in blocks; raises FileProblems where one is not UTF-8, or longer than `LONGEST_LINE`."""
    lines: list[tuple[int, str]] = []
    empty = text_bytes = read = number = 0
    with open_for_reading(path) as file:
        while line := file.readline(LONGEST_LINE + len(b"\r\n")):
            number += 1
            read += len(line)
            held = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            held = held.removesuffix(b"\n").removesuffix(b"\r") if held.endswith(b"\n") else held
            if held:
                lines.append((number, _text(path, number, held)))
                text_bytes += len(held)
            else:
                empty += 1
            if read >= BLOCK:
                yield Block(tuple(lines), empty, text_bytes, read)
                lines, empty, text_bytes, read = [], 0, 0, 0
    if read:
        yield Block(tuple(lines), empty, text_bytes, read)


def _text(path: Path, number: int, line: bytes) -> str:
    if len(line) > LONGEST_LINE:
        what = f"the line is longer than {LONGEST_LINE:,} bytes"
        raise FileProblems([Problem(str(path), number, 1, what, "break the text into lines")])
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        column = len(line[: error.start].decode("utf-8")) + 1
        what = f"the byte 0x{line[error.start]:02x} is not UTF-8"
        raise FileProblems([Problem(str(path), number, column, what, "convert the file to UTF-8")]) from error
