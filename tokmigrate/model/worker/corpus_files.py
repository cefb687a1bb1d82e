"""A file of a corpus, and the texts in it, a block at a time.

A file has a text in each line; or it is JSON Lines (`.jsonl`, `.ndjson`), Parquet (`.parquet`) or Arrow as the datasets
library saves it (`.arrow`), with a text in a field of each record. Lines may be compressed (`.gz`, `.zst`). A line ends
with `\\n` or `\\r\\n`, the last one also without; a byte order mark before the first is not a text. Empty texts are
counted and passed over.
"""

from __future__ import annotations

import codecs
import gzip
import importlib.util
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from tokmigrate.errors import FileProblems, Problem, StorageError, UsageError
from tokmigrate.files import open_for_reading
from tokmigrate.formatting import format_list

BLOCK = 2**19
"""About how many bytes of text are held at once."""

LONGEST_LINE = 2**23
"""The bytes that a line or text may have; a tokenizer needs about 130 times as much memory to tokenize one."""

FIELD = "text"
"""The field of a record that has the text where no other is given."""

MESSAGES = "messages"
"""The field of a record that has the messages of a chat where no other is given."""

_JSON, _PARQUET, _TABLES, _COMPRESSED = (".jsonl", ".ndjson"), ".parquet", (".parquet", ".arrow"), (".gz", ".zst")
_SUFFIXES = (".txt", ".md", *_JSON)
KNOWN = (*_SUFFIXES, *_TABLES, *(f"{suffix}{packed}" for suffix in _SUFFIXES for packed in _COMPRESSED))
_JSON_LINES = "JSON Lines have an object in each line"
_ROWS = 256
"""How many rows of a table are held at once."""


@dataclass(frozen=True)
class CorpusFile:
    """A file of a corpus; `name` is what a user calls it, and each text of it counts `weight` times.

    With `chats` a record may have the messages of a chat, a list, in place of a text. Several readers may share a file:
    each of `shares` has its own `share` of the blocks.
    """

    path: str
    name: str
    field: str = FIELD
    weight: float = 1
    chats: bool = False
    share: int = 0
    shares: int = 1

    def choose_field(self, fields: Sequence[str]) -> str:
        """Return the field of a record that is read; the messages of a chat where there is no text."""
        has_chat = self.chats and self.field == FIELD and FIELD not in fields and MESSAGES in fields
        return MESSAGES if has_chat else self.field

    @cached_property
    def size(self) -> int:
        """The bytes of the file; raises UsageError where it cannot be read, or pyarrow is missing for it."""
        if self.path.endswith((*_TABLES, ".zst")) and importlib.util.find_spec("pyarrow") is None:
            hint = 'pip install "tokmigrate[corpus]", or convert the file to JSON Lines'
            raise UsageError("pyarrow is needed to read it", where=self.name, hint=hint)
        try:
            with open_for_reading(Path(self.path)) as file:
                return os.fstat(file.fileno()).st_size
        except StorageError as error:
            hint = "correct the path; text has a line for each, JSON Lines a record; - reads standard input"
            raise UsageError(error.message, where=self.name, hint=hint) from error


@dataclass(frozen=True)
class Block:
    """Texts that follow each other: those that are not empty and their numbers from 1, and how many are empty.

    `text_bytes` leaves out line ends; `read` are all bytes that were read of the file for it.
    """

    texts: tuple[tuple[int, str], ...]
    empty: int
    text_bytes: int
    read: int


def read_examples(file: CorpusFile) -> Iterator[tuple[int, str | list[Any]]]:
    """Yield the number of each record with its text, or the messages of its chat; empty ones are passed over.

    Raises as `read_blocks`.
    """
    with open_for_reading(Path(file.path)) as raw:
        read = _read_table if file.path.endswith(_TABLES) else _read_lines
        values = chain.from_iterable(block.read() for block in read(replace(file, chats=True), raw))
        for number, value in enumerate(values, 1):
            if isinstance(value, str):
                _measure_text(file, number, value)
            if value:
                yield number, value


def read_blocks(file: CorpusFile) -> Iterator[Block]:
    """Yield the texts of a file, or of its share, in blocks.

    Raises FileProblems for what is no text, or longer than `LONGEST_LINE`.
    """
    first, start = 1, 0
    with open_for_reading(Path(file.path)) as raw:
        read = _read_table if file.path.endswith(_TABLES) else _read_lines
        for number, block in enumerate(read(file, raw)):
            if number % file.shares == file.share:
                texts = block.read()
                held = tuple((number, text) for number, text in enumerate(texts, first) if text)
                yield Block(held, len(texts) - len(held), _measure(file, first, texts), block.place - start)
            first, start = first + block.count, block.place
    if file.size > start and file.share == 0:
        yield Block((), 0, 0, file.size - start)


def _problem(file: CorpusFile, number: int, column: int, what: str, hint: str | None = None) -> FileProblems:
    return FileProblems([Problem(file.name, number, column, what, hint)])


def _measure(file: CorpusFile, first: int, texts: Sequence[str]) -> int:
    """Return the bytes of texts, of which the first has that number."""
    with suppress(UnicodeEncodeError):
        size = len("".join(texts).encode())
        if size <= LONGEST_LINE:
            return size
    return sum(_measure_text(file, number, text) for number, text in enumerate(texts, first))


def _measure_text(file: CorpusFile, number: int, text: str) -> int:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        what = f"U+{ord(text[error.start]):04X} is half of a surrogate pair, and no character"
        raise _problem(file, number, 1, what, "correct the text") from error
    if size > LONGEST_LINE:
        raise _problem(file, number, 1, f"the text is longer than {LONGEST_LINE:,} bytes", "break it into several")
    return size


@dataclass(frozen=True)
class _Unread:
    """Texts, or the messages of chats, that follow each other, about `BLOCK` bytes.

    Args:
        count: How many there are.
        read: Gives them.
        place: How far the file is read.
    """

    count: int
    read: Callable[[], Sequence[Any]]
    place: int


def _read_lines(file: CorpusFile, raw: BinaryIO) -> Iterator[_Unread]:
    lines, first = _decompress(file, raw), 1
    while data := _read_whole_lines(file, first, lines):
        count = data.count(b"\n") + (not data.endswith(b"\n"))
        yield _Unread(count, partial(_read_texts, file, first, data), raw.tell())
        first += count


def _read_texts(file: CorpusFile, first: int, data: bytes) -> list[Any]:
    """Return the texts of lines, of which the first has that number."""
    texts = _decode(file, first, data.removeprefix(codecs.BOM_UTF8) if first == 1 else data)
    if not file.path.removesuffix(".gz").removesuffix(".zst").endswith(_JSON):
        return texts
    records = enumerate(texts, first)
    return [_text_of_record(file, number, text) if text.strip() else text for number, text in records]


def _read_whole_lines(file: CorpusFile, first: int, lines: BinaryIO) -> bytes:
    """Return the next lines, of which the first has that number; the last ends early where it is too long."""
    try:
        data = lines.read(BLOCK)
        return data if data[-1:] in b"\n" else data + lines.readline(LONGEST_LINE + len(b"\r\n"))
    # Each library has errors of its own for damaged data.
    except (OSError, EOFError, zlib.error) as error:
        raise _problem(file, first, 1, f"the file cannot be decompressed: {error}") from error


def _decompress(file: CorpusFile, raw: BinaryIO) -> BinaryIO:
    if file.path.endswith(".gz"):
        return gzip.GzipFile(fileobj=raw, mode="rb")  # type: ignore[return-value]
    if file.path.endswith(".zst"):
        import pyarrow  # noqa: PLC0415 - an extra

        return io.BufferedReader(pyarrow.input_stream(raw, compression="zstd"))
    return raw


def _decode(file: CorpusFile, first: int, data: bytes) -> list[str]:
    """Return lines as texts; the first has that number."""
    if len(data) <= LONGEST_LINE:
        with suppress(UnicodeDecodeError):
            return _split(data.decode())
    # What is no text stays as it is until its line is known.
    lines = (line.encode("utf-8", "surrogateescape") for line in _split(data.decode("utf-8", "surrogateescape")))
    return [_decode_line(file, number, line) for number, line in enumerate(lines, first)]


def _split(text: str) -> list[str]:
    """Return lines without their ends; the last one may have none."""
    *lines, last = text.split("\n")
    if "\r" in text:
        lines = [line.removesuffix("\r") for line in lines]
    return [*lines, last] if last or not text else lines


def _decode_line(file: CorpusFile, number: int, line: bytes) -> str:
    if len(line) > LONGEST_LINE:
        what = f"the line is longer than {LONGEST_LINE:,} bytes"
        raise _problem(file, number, 1, what, "break the text into lines")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        column = len(line[: error.start].decode("utf-8")) + 1
        what = f"the byte 0x{line[error.start]:02x} is not UTF-8"
        raise _problem(file, number, column, what, "convert the file to UTF-8") from error


def _text_of_record(file: CorpusFile, number: int, line: str) -> Any:
    try:
        # Python refuses to read an integer of many digits.
        record = json.loads(line, parse_int=float)
    except json.JSONDecodeError as error:
        raise _problem(file, number, error.colno, f"the line is not JSON: {error.msg}", _JSON_LINES) from error
    except RecursionError as error:
        raise _problem(file, number, 1, "the JSON is nested too deeply") from error
    if not isinstance(record, dict):
        raise _problem(file, number, 1, "the line is not a JSON object", _JSON_LINES)
    field = file.choose_field(list(record))
    if field not in record:
        raise _missing_field(file, number, list(record))
    return _as_text(file, number, record[field])


def _missing_field(file: CorpusFile, number: int, fields: Sequence[str]) -> FileProblems:
    hint = f"name another with --field: {format_list(fields, 8)}" if fields else None
    return _problem(file, number, 1, f"there is no field '{file.field}'", hint)


def _as_text(file: CorpusFile, number: int, value: Any) -> Any:
    if value is None:
        return ""
    if file.chats and isinstance(value, list):
        return value
    if not isinstance(value, str):
        what = f"the field '{file.field}' is not a text"
        raise _problem(file, number, 1, what, "name another with --field")
    return value


def _read_table(file: CorpusFile, raw: BinaryIO) -> Iterator[_Unread]:
    import pyarrow  # noqa: PLC0415 - an extra

    texts: list[Any] = []
    number = size = start = place = 0
    try:
        for values, place in (_read_parquet if file.path.endswith(_PARQUET) else _read_arrow)(file, raw):
            for value in values.to_pylist():
                number += 1
                text = _as_text(file, number, value)
                texts.append(text)
                size += len(text.encode()) if isinstance(text, str) else 0
                if max(size, place - start) >= BLOCK:
                    yield _Unread(len(texts), partial(list, texts), place)
                    texts, size, start = [], 0, place
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        what = f"the file is not {'Parquet' if file.path.endswith(_PARQUET) else 'Arrow'}: {error}"
        raise _problem(file, number + 1, 1, what) from error
    if texts:
        yield _Unread(len(texts), partial(list, texts), place)


def _read_parquet(file: CorpusFile, raw: BinaryIO) -> Iterator[tuple[Any, int]]:
    """Yield the values of some rows, and how far the file is read."""
    from pyarrow import parquet  # noqa: PLC0415

    table = parquet.ParquetFile(raw, pre_buffer=False, buffer_size=BLOCK)
    _find_column(file, table.schema_arrow)
    done = 0
    for batch in table.iter_batches(
        batch_size=_ROWS, columns=[file.choose_field(table.schema_arrow.names)], use_threads=False
    ):
        done += batch.num_rows
        yield batch.column(0), file.size * done // table.metadata.num_rows


def _read_arrow(file: CorpusFile, raw: BinaryIO) -> Iterator[tuple[Any, int]]:
    """Yield the same of what `save_to_disk` of the datasets library writes."""
    from pyarrow import ipc  # noqa: PLC0415

    with ipc.open_stream(raw) as stream:
        column = _find_column(file, stream.schema)
        for batch in stream:
            for start in range(0, batch.num_rows, _ROWS):
                yield batch.column(column).slice(start, _ROWS), raw.tell()


def _find_column(file: CorpusFile, schema: Any) -> int:
    if (field := file.choose_field(schema.names)) not in schema.names:
        raise _missing_field(file, 1, schema.names)
    return int(schema.get_field_index(field))
