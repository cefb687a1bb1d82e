"""A corpus, and what happens when it is not a text or a child cannot go on."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measuring import begin_with, measured
from shared_models import shared_model

from tokmigrate.commands.plan import plan
from tokmigrate.errors import FileProblems, TokenizerError, UsageError
from tokmigrate.events import ActivityEnded, ActivityStarted, BytesProcessed, Event
from tokmigrate.model.worker.corpus_files import BLOCK, LONGEST_LINE, CorpusFile, read_blocks
from tokmigrate.model.worker.worker import stream_worker
from tokmigrate.plan.corpus import measure


def file_of(path: Path) -> CorpusFile:
    return CorpusFile(str(path), path.name)


@given(
    st.lists(st.sampled_from([b"a", b" ", b"\r", b"\n", b"\r\n", "é".encode(), b"\xef\xbb\xbf", b"word " * 9])),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_lines_of_a_corpus(parts: list[bytes], mark: bytes) -> None:
    data = mark + b"".join(parts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.txt"
        path.write_bytes(data)
        found = list(read_blocks(file_of(path)))
    text = data.decode("utf-8-sig")
    wanted = [line.removesuffix("\r") for line in text.split("\n")]
    # The last one has no line end, so its `\r` is text; where it is empty it is no line.
    wanted[-1] = text.rpartition("\n")[2]
    if not wanted[-1] and (text.endswith("\n") or not data):
        wanted.pop()
    assert [line for block in found for line in block.texts] == [
        (number, line) for number, line in enumerate(wanted, 1) if line
    ]
    assert sum(block.empty for block in found) == wanted.count("")
    assert sum(block.read for block in found) == len(data)


def test_blocks_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    wanted = [f"{number} " + "x" * (number % 997) for number in range(4000)]
    path.write_text("\n".join(wanted), "utf-8")
    found = list(read_blocks(file_of(path)))
    assert len(found) > 2
    assert all(block.read < BLOCK + 2000 for block in found)
    assert [line for block in found for _, line in block.texts] == wanted
    assert [number for block in found for number, _ in block.texts] == list(range(1, 4001))


def test_the_longest_line(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    for end in (b"", b"\n", b"\r\n"):
        path.write_bytes(b"a\n" + b"x" * LONGEST_LINE + end)
        assert [number for block in read_blocks(file_of(path)) for number, _ in block.texts] == [1, 2]
    path.write_bytes(b"a\n" + b"x" * (LONGEST_LINE + 1) + b"\nb\n")
    with pytest.raises(FileProblems) as raised:
        list(read_blocks(file_of(path)))
    (problem,) = raised.value.problems
    assert (problem.line, problem.column) == (2, 1)


def test_progress_is_reported(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    model.write("- set_normalizer: NFC")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("word " * 100 * 2000 + ("\n" + "word " * 100) * 2000, "utf-8")
    told: list[Event] = []
    measure(plan(model.workspace, model.entry), corpus, told.append)
    opened, *reads, measured_at_last = told
    assert opened == ActivityStarted("m", "tokenizing the corpus", corpus.stat().st_size)
    assert measured_at_last == ActivityEnded("m")
    assert len(reads) > 1
    assert sum(read.count for read in reads if isinstance(read, BytesProcessed)) == corpus.stat().st_size


def children() -> set[str]:
    return {child for task in Path("/proc/self/task").glob("*/children") for child in task.read_text("ascii").split()}


def test_who_stops_listening_ends_the_child(tmp_path: Path) -> None:
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        pytest.skip("the system does not list a process's children")
    model = shared_model(tmp_path, "gpt2-chatml")
    model.write("- set_normalizer: NFC")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("word word word\n" * 400_000, "utf-8")
    planned, before, told = plan(model.workspace, model.entry), children(), []

    def stop(event: Event) -> None:
        told.append(event)
        if isinstance(event, BytesProcessed):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(planned, corpus, stop)
    assert children() <= before
    assert told[-1] == ActivityEnded("m")


@pytest.mark.parametrize(
    ("text", "error", "place", "words"),
    [
        (b"", UsageError, "", "no line of it has text"),
        (b"\xef\xbb\xbf\n\r\n\n", UsageError, "", "no line of it has text"),
        (b"fine\nna\xc3\xafve\xff!\n", FileProblems, ":2:6", "0xff is not UTF-8"),
        ("\ud800".encode("utf-8", "surrogatepass"), FileProblems, ":1:1", "not UTF-8"),
        ("text".encode("utf-16"), FileProblems, ":1:1", "not UTF-8"),
    ],
)
def test_what_is_no_text(text: bytes, error: type[UsageError], place: str, words: str, tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    model.write("- set_normalizer: NFC")
    corpus = tmp_path / "corpus.txt"
    corpus.write_bytes(text)
    with pytest.raises(error) as raised:
        measure(plan(model.workspace, model.entry), corpus)
    assert str(raised.value).startswith(f"{corpus}{place}: ")
    assert words in str(raised.value)
    assert raised.value.exit_code == 2


def test_a_tokenizer_that_cannot_tokenize_a_line_is_named_with_it(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "oromo-t5")
    begin_with(model, model={**model.json("tokenizer.json")["model"], "unk_id": None})
    model.write("- add_tokens: {tokens: [tokmigrate]}")
    with pytest.raises(TokenizerError) as raised:
        measured(model, "known\nalso known\n日本\nknown")
    assert raised.value.where is not None
    assert raised.value.where.endswith("corpus.txt:3")
    assert "the tokenizer as it is cannot tokenize this line" in raised.value.message
    assert "unk_id" in raised.value.message


def test_a_tokenizer_that_panics_is_named() -> None:
    document = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}}
    state = {"document": document, "limit": None, "unknown": None, "byte_tokens": []}
    request = {"corpus": __file__, "tokenizers": [state, state], "pairs": [[0, 1]]}
    answer = stream_worker("impact", request, lambda _: None)
    assert (answer["fault"]["tokenizer"], answer["fault"]["line"]) == (0, None)
    assert answer["fault"]["cause"]


def test_a_child_that_dies_is_an_error() -> None:
    with pytest.raises(TokenizerError) as raised:
        stream_worker("impact", {"corpus": "here.txt"}, lambda _: None)
    assert raised.value.where == "here.txt"
    assert "KeyError" in raised.value.message
