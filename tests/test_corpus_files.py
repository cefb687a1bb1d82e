"""The files of a corpus: what words name, the kinds of files, and what is wrong in them."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tokmigrate.errors import FileProblems, TokmigrateError, UsageError
from tokmigrate.model.worker import corpus_files
from tokmigrate.model.worker.corpora import open_corpus
from tokmigrate.model.worker.corpus_files import CorpusFile, read_blocks, read_examples

SUFFIXES = [".jsonl", ".ndjson.gz", ".jsonl.zst", ".parquet", ".arrow"]


def write(path: Path, texts: list[str | None], field: str = "text") -> Path:
    """Write texts as records, in the format of the path's suffix."""
    return write_values(path, texts, field, pyarrow.string())


def write_values(path: Path, texts: list[Any], field: str, kind: pyarrow.DataType) -> Path:
    data = "".join(json.dumps({"number": 1, field: text}) + "\n" for text in texts).encode()
    table = pyarrow.table({"number": [1] * len(texts), field: pyarrow.array(texts, kind)})
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    elif path.suffix == ".arrow":
        with pyarrow.output_stream(str(path)) as out, pyarrow.ipc.new_stream(out, table.schema) as file:
            file.write_table(table, 1000)
    elif path.suffix == ".zst":
        with pyarrow.output_stream(str(path), compression="zstd") as file:
            file.write(data)
    else:
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(path: Path, field: str = "text") -> list[tuple[int, str]]:
    return [text for block in read_blocks(CorpusFile(str(path), path.name, field)) for text in block.texts]


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(
    texts=st.lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=5), max_size=6), times=st.integers(1, 99)
)
def test_each_kind_of_file_gives_the_texts_of_its_records(suffix: str, texts: list[str | None], times: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"a{suffix}", texts * times, "body")
        blocks = list(read_blocks(CorpusFile(str(path), "a", "body")))
        assert sum(block.read for block in blocks) == path.stat().st_size
    wanted = [(number, text) for number, text in enumerate(texts * times, 1) if text]
    assert [text for block in blocks for text in block.texts] == wanted
    assert sum(block.empty for block in blocks) == len(texts * times) - len(wanted)
    assert sum(block.text_bytes for block in blocks) == sum(len(text.encode()) for _, text in wanted)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_chats_are_read_where_they_are_wanted(tmp_path: Path, suffix: str) -> None:
    chats = [[{"role": "user", "content": "Hello"}], [], [{"role": "user", "content": "Bye"}]]
    kind = pyarrow.list_(pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.string()}))
    for field in ("messages", "turns"):
        path = write_values(tmp_path / f"{field}{suffix}", chats, field, kind)
        file = CorpusFile(str(path), "a", "text" if field == "messages" else field)
        assert list(read_examples(file)) == [(1, chats[0]), (3, chats[2])]
        with pytest.raises(FileProblems, match=r"there is no field 'text'|the field 'turns' is not a text"):
            list(read_blocks(file))
    assert list(read_examples(CorpusFile(str(write(tmp_path / f"b{suffix}", ["x", None])), "b"))) == [(1, "x")]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_large_file_is_read_in_blocks(tmp_path: Path, suffix: str) -> None:
    texts = [f"{number} " + "x" * 997 for number in range(3000)]
    path = write(tmp_path / f"a{suffix}", list(texts))
    blocks = list(read_blocks(CorpusFile(str(path), "a")))
    assert len(blocks) > 5
    assert [text for block in blocks for text in block.texts] == list(enumerate(texts, 1))


@pytest.mark.parametrize("suffix", [".txt", *SUFFIXES])
@given(
    texts=st.lists(st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), max_size=8),
    times=st.integers(1, 400),
    shares=st.integers(2, 4),
    ending=st.booleans(),
)
def test_readers_share_a_file(suffix: str, texts: list[str | None], times: int, shares: int, ending: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_files, "BLOCK", 100)
        path = Path(folder) / f"a{suffix}"
        if suffix == ".txt":
            path.write_text("\n".join(text or "" for text in texts * times) + "\n" * ending, "utf-8")
        else:
            write(path, texts * times)
        whole = list(read_blocks(CorpusFile(str(path), "a")))
        found = [list(read_blocks(CorpusFile(str(path), "a", share=each, shares=shares))) for each in range(shares)]
        assert sum(block.read for share in found for block in share) == path.stat().st_size
    # In turn, and the rest of the file is the first one's.
    texts_of = [[block.texts for block in share if block.texts or block.empty] for share in found]
    expected = [block.texts for block in whole if block.texts or block.empty]
    assert texts_of == [expected[each::shares] for each in range(shares)]
    for count in ("empty", "text_bytes"):
        counted = sum(getattr(block, count) for share in found for block in share)
        assert counted == sum(getattr(block, count) for block in whole)


def test_a_record_may_have_a_number_that_python_does_not_read(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text(f'{{"text": "one", "number": {"1" * 5_000}}}\n', "utf-8")
    assert read(path) == [(1, "one")]
    with pytest.raises(FileProblems, match="the field 'number' is not a text"):
        read(path, "number")


def names(root: Path, *words: str) -> list[str]:
    with open_corpus([word if word.startswith("/") else str(root / word) for word in words]) as corpus:
        return [str(Path(file.path).relative_to(root)) for file in corpus.files]


def test_what_words_name(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.jsonl", "a/b/c.md", "a/c.py", "a/.hidden.txt", ".cache/d.txt", "a/e.txt.gz", "[x].txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "a" / "link.txt").symlink_to(tmp_path / "b.txt")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert names(tmp_path, "a") == ["a/e.txt.gz", "a/link.txt", "a/z.jsonl", "a/b/c.md"]
    assert names(tmp_path, "a/*.py", "b.txt", "a/c.py") == ["a/c.py", "b.txt"]
    assert names(tmp_path, "a/*") == [
        "a/b/c.md",
        "a/c.py",
        "a/e.txt.gz",
        "a/link.txt",
        *names(tmp_path, "a/loop"),
        "a/z.jsonl",
    ]
    assert names(tmp_path, "[x].txt") == ["[x].txt"]
    assert names(tmp_path, "a/b/**/*.md") == ["a/b/c.md"]


def test_weights_of_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/x.txt", "a/y.txt", "z.txt"):
        (tmp_path / name).write_bytes(b"")
    weights = {str(tmp_path / "a"): 2.5, str(tmp_path / "a" / "y.txt"): 3}
    with open_corpus([str(tmp_path)], weights=weights) as corpus:
        assert {Path(file.path).name: file.weight for file in corpus.files} == {"x.txt": 2.5, "y.txt": 3, "z.txt": 1}
    with pytest.raises(UsageError, match="it is not in the corpus"), open_corpus([str(tmp_path)], weights={"b": 2}):
        pass


@pytest.mark.parametrize("field", [None, "body"])
def test_standard_input_is_kept_while_it_is_read(monkeypatch: pytest.MonkeyPatch, field: str | None) -> None:
    data = b'{"body": "one"}\n' if field else b"one\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    with open_corpus(["-", "-"], field, {"-": 2}) as corpus:
        (file,) = corpus.files
        assert (file.name, file.weight, corpus.size) == ("-", 2, len(data))
        for _ in range(2):
            assert read(Path(file.path), "body") == [(1, "one")]
    assert not Path(file.path).exists()


def lines(*said: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(b"\n".join(said))


@pytest.mark.parametrize(
    ("name", "make", "place", "words"),
    [
        ("a.jsonl", lines(b'{"text": "x"}', b"{'text'}"), "2:2", "an object in each line"),
        ("a.jsonl", lines(b"[1]"), "1:1", "an object in each line"),
        ("a.jsonl", lines(b"[" * 100_000), "1:1", "nested too deeply"),
        ("a.jsonl", lines(b"", b'{"txt": "x", "id": 1}'), "2:1", "no field 'text' (name another with --field: txt,"),
        ("a.jsonl", lines(b'{"text": 1}'), "1:1", "the field 'text' is not a text"),
        ("a.jsonl", lines(b'{"text": "\\ud800"}'), "1:1", "U+D800 is half of a surrogate pair"),
        ("a.jsonl", lines(b'{"text": "\xff"}'), "1:11", "0xff is not UTF-8"),
        ("a.txt.gz", lines(b"no gzip"), "1:1", "cannot be decompressed"),
        ("a.txt.gz", lambda path: path.write_bytes(gzip.compress(b"one\n" * 99)[:-9]), ":1", "cannot be decompressed"),
        ("a.txt.zst", lines(b"no zstd"), "1:1", "cannot be decompressed"),
        ("a.arrow", lines(b"no arrow"), "1:1", "the file is not Arrow"),
        ("a.arrow", lambda path: path.write_bytes(write(path, ["x"] * 999).read_bytes()[:-99]), ":1", "is not Arrow"),
        ("a.parquet", lines(b"no parquet"), "1:1", "the file is not Parquet"),
        ("a.parquet", lambda path: write(path, ["x"], "body"), "1:1", "--field: number, body)"),
        ("a.parquet", lambda path: parquet.write_table(pyarrow.table({"text": [1]}), path), "1:1", "is not a text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, name: str, make: Callable[[Path], object], place: str, words: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(FileProblems) as raised:
        read(tmp_path / name)
    assert str(raised.value).startswith(f"{name}:")
    assert f"{place}: " in str(raised.value)
    assert words in str(raised.value)


def test_what_names_no_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.parquet").write_bytes(b"")
    wanted = {
        "empty": "no file with a known suffix",
        "*.txt": "no file matches",
        "b.txt": "there is no such file",
        "a.parquet": "pyarrow is needed",
    }
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for word, message in wanted.items():
        with pytest.raises(TokmigrateError, match=message) as raised, open_corpus([str(tmp_path / word)]):
            pass
        assert raised.value.exit_code == 2
        assert raised.value.hint
