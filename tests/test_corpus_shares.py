"""Workers share a large corpus, and find what one finds."""

from __future__ import annotations

import gzip
import json
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from learning import CODE, PROSE, learn
from real_tokenizers import available, real
from shared_models import shared_model

from tokmigrate.errors import FileProblems
from tokmigrate.model.worker import corpora, count_tokens, text_parts
from tokmigrate.model.worker.corpora import open_corpus, stream_shares
from tokmigrate.model.worker.corpus_files import BLOCK, CorpusFile
from tokmigrate.model.worker.worker import DEFAULT_LIMITS
from tokmigrate.parallel import BackgroundCall, is_stopped, run_together
from tokmigrate.settings import WorkerLimits

SMALL = "phi-2-small"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a directory with a file of several blocks, and small ones."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = [f"{number} {line}" for number in range(12) for line in CODE.split("\n")]
    (folder / "large.txt").write_text("\n".join(lines), "utf-8")
    assert (folder / "large.txt").stat().st_size > 3 * BLOCK
    records = "".join(json.dumps({"text": line}) + "\n" for line in PROSE.split("\n"))
    (folder / "records.jsonl.gz").write_bytes(gzip.compress(records.encode()))
    for number in range(4):
        (folder / f"small{number}.md").write_text(PROSE[number::4], "utf-8")
    return folder


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """Have three workers share a corpus, and return the files that each is asked for."""
    asked: list[list[dict[str, Any]]] = []
    stream_worker = corpora.stream_worker

    def stream(question: Any, request: Any, *rest: Any, threads: int | None) -> dict[str, Any]:
        asked.append(request["files"])
        return stream_worker(question, request, *rest, threads=threads)

    monkeypatch.setattr(corpora, "stream_worker", stream)
    monkeypatch.setattr(corpora, "LARGE", 2**20)
    monkeypatch.setenv("RAYON_NUM_THREADS", "3")
    return asked


def test_what_is_learned_is_the_same(
    tmp_path: Path, corpus: Path, requests: list[list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shared_model(tmp_path / "w", SMALL)

    def prune() -> tuple[dict[str, Any], list[str]]:
        requests.clear()
        weights = ("--weight", f"{corpus / 'records.jsonl.gz'}=0.3", "--weight", f"{corpus / 'small1.md'}=0.1")
        told = learn(model, "prune", corpus, "--tokens", "3000", *weights)
        listed = [Path(told[file]).read_text("utf-8") for file in ("keep_file", "reasons_file")]
        (model.root / ".tokmigrate" / "counts.json").unlink(missing_ok=True)
        for file in (model.root / "migrations").glob("*learned*"):
            file.unlink()
        return told, listed

    alone = prune()
    assert len(requests) == 2
    monkeypatch.setattr(corpora, "SHARE", 2**19)
    assert prune() == alone
    assert len(requests) == 6
    files = [file for files in requests[:3] for file in files]
    names = [Path(file["path"]).name for file in files]
    assert sorted(names) == sorted(["large.txt"] * 2 + [path.name for path in corpus.iterdir()])
    assert sorted(file["share"] for file in files if file["path"].endswith("large.txt")) == [0, 1, 2]


@pytest.mark.parametrize("sizes", [[5], [1, 2, 3], [2**20 + 1], [7, 2**20 + 1, 2, 2**21, 9]])
def test_a_corpus_is_split(tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "LARGE", 2**20)
    for number, size in enumerate(sizes):
        (tmp_path / f"{number}.txt").write_bytes(bytes(size))
    with open_corpus([str(tmp_path)]) as whole:
        for shares in (1, 2, 5):
            split = whole.split(shares)
            assert len(split) == (shares if max(sizes) > 2**20 else min(shares, len(sizes)))
            assert all(corpus.files for corpus in split)
            found = sorted((file.path, file.share, file.shares) for corpus in split for file in corpus.files)
            assert found == sorted(
                (file.path, share, count)
                for file in whole.files
                for count in (shares if file.size > 2**20 else 1,)
                for share in range(count)
            )


def test_an_error_in_one_share_ends_all(
    corpus: Path, requests: list[list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "SHARE", 2**19)
    lines = (corpus / "large.txt").read_bytes().split(b"\n")
    lines[len(lines) // 2] = b"a \xff"
    (corpus / "large.txt").write_bytes(b"\n".join(lines))
    request = {"document": json.loads((real(available("phi-2", "gpt2-chatml")[0]) / "tokenizer.json").read_text())}
    with open_corpus([str(corpus)]) as opened, pytest.raises(FileProblems) as raised:
        stream_shares("count_tokens", opened, request, lambda _: None, DEFAULT_LIMITS)
    (problem,) = raised.value.problems
    assert (problem.line, problem.column) == (len(lines) // 2 + 1, 3)
    assert len(requests) == 3


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({"RAYON_NUM_THREADS": "7"}, 7),
        ({"RAYON_NUM_THREADS": "7", "TOKENIZERS_PARALLELISM": "Off"}, 1),
        ({"TOKENIZERS_PARALLELISM": "0"}, 1),
    ],
)
def test_the_variables_of_the_library_limit_the_workers(
    corpus: Path, variables: dict[str, str], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int | None]] = []

    def stream(_question: Any, request: Any, *_rest: Any, threads: int | None) -> dict[str, Any]:
        asked.append((len(request["files"]), threads))
        return {}

    monkeypatch.setattr(corpora, "stream_worker", stream)
    monkeypatch.setattr(corpora, "LARGE", 2**20)
    monkeypatch.setattr(corpora, "SHARE", 2**18)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with open_corpus([str(corpus)]) as opened:
        stream_shares("count_tokens", opened, {}, lambda _: None, WorkerLimits())
        assert len(asked) == min(threads, opened.size // 2**18)
    assert {given for _, given in asked} == {1 if threads > 1 else None}


def test_a_tokenizer_is_asked_once_where_it_separates_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    is_separated = text_parts._is_separated

    def ask(tokenizer: Any, texts: Any, separation: Any) -> bool:
        asked.append(len(texts))
        return is_separated(tokenizer, texts, separation)

    monkeypatch.setattr(text_parts, "_is_separated", ask)
    files = []
    for number in range(30):
        path = tmp_path / f"{number}.txt"
        path.write_text(f"text {number} of a corpus\n", "utf-8")
        files.append(vars(CorpusFile(str(path), path.name, weight=1 + number % 2)))
    document = json.loads((real(available("phi-2", "gpt2-chatml")[0]) / "tokenizer.json").read_text("utf-8"))
    found = count_tokens.answer({"files": files, "document": document}, lambda _: None)
    assert len(asked) <= 2
    assert [weight for weight, _ in found["counts"]] == [1, 2]


def test_calls_beside_each_other() -> None:
    together = threading.Barrier(3)
    assert run_together([lambda number=number: (together.wait(10), number)[1] for number in range(3)]) == [0, 1, 2]
    ended: list[bool] = []

    def wait() -> None:
        while not is_stopped():
            time.sleep(0.01)
        ended.append(True)

    def fail() -> None:
        raise ValueError("this one")

    with pytest.raises(ValueError, match="this one"):
        run_together([wait, fail, wait])
    assert ended == [True, True]
    with BackgroundCall(lambda: run_together([wait, wait])) as call:
        time.sleep(0.05)
        call.stop()
        with pytest.raises(CancelledError):
            call.result()
    assert len(ended) == 4
