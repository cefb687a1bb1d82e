"""`plan --corpus` on the command line: what is printed, in JSON and on terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measuring import DOCS, NO_SPLIT, SPLIT, begin_with, measured
from rich.cells import cell_len
from shared_models import SharedModel, shared_model
from workspaces import Workspace, command_line, environment

from tokmigrate.render.impact import printable, share


@given(st.text())
def test_what_is_printed_cannot_drive_a_terminal(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert "¦" not in shown
    assert all(unicodedata.category(letter)[0] != "C" for letter in shown)


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_share_is_nothing_or_all_only_where_it_is(count: int, more: int) -> None:
    total = count + more
    assert (share(count, total) == "0.0 %") == (count == 0)
    assert share(count, total) != "100.0 %"
    assert share(total, total) == "100.0 %"


def run(model: SharedModel, *words: str) -> subprocess.CompletedProcess[str]:
    return Workspace(model.root).run(*words)


def on_terminal(model: SharedModel, columns: int, *words: str) -> str:
    """Return what a terminal is sent, without its colours."""
    chief, side = pty.openpty()
    process = subprocess.Popen(
        [*command_line(), *words],
        cwd=model.root,
        env={**environment(), "COLUMNS": str(columns), "TERM": "xterm-256color"},
        stdin=side,
        stdout=side,
        stderr=subprocess.DEVNULL,
    )
    os.close(side)
    sent = b""
    while select.select([chief], [], [], 60)[0]:
        try:
            sent += (part := os.read(chief, 65536))
        except OSError:
            break
        if not part:
            break
    os.close(chief)
    assert process.wait(60) == 0, sent
    return re.sub(r"\x1b\[[0-9;]*m", "", sent.decode()).replace("\r\n", "\n")


def docs(root: Path) -> str:
    path = root / "docs.txt"
    path.write_text(DOCS, "utf-8")
    return str(path)


def test_nfc_to_nfkc_on_the_docs(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "phi-2")
    begin_with(model, normalizer={"type": "NFC"})
    model.write("- set_normalizer: NFKC")
    before = model.bytes()
    corpus = docs(tmp_path)
    done = run(model, "plan", "--corpus", corpus)
    assert (done.returncode, done.stderr) == (0, "")
    assert model.bytes() == before
    impact = measured(model, DOCS)
    assert impact is not None
    count, lines = impact.whole.tokenized_differently, DOCS.count("\n") + 1
    assert 0 < count < lines / 4
    assert re.search(
        rf"^lines tokenized differently +{count}  {re.escape(share(count, lines))}", done.stdout, re.MULTILINE
    )
    assert re.search(r"^most a line may have +2,048 +2,048 +model_max_length", done.stdout, re.MULTILINE)
    old, new = re.findall(r"^  (?:old|new)  (.*)$", done.stdout, re.MULTILINE)[:2]
    assert "…" in old
    assert "..." in new


def test_removal_of_the_split_rule_on_the_docs(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    begin_with(model, pre_tokenizer=SPLIT)
    model.write(NO_SPLIT)
    done = run(model, "plan", "--corpus", docs(tmp_path), "--json")
    assert done.returncode == 0
    (planned,) = json.loads(done.stdout)["models"]
    impact = planned["impact"]
    assert impact["tokenized_differently"] == impact["other_ids"] > 20
    assert len(impact["worst"]) == 10
    assert impact["before"]["limit"] == {"tokens": 131072, "source": "model_max_length"}
    assert [each["revision"] for each in impact["migrations"]] == ["aaaa0001"]
    growth = [max(0, each["after"]["tokens"] - each["before"]["tokens"]) for each in impact["worst"]]
    assert growth == sorted(growth, reverse=True)
    assert "impact" not in json.loads(run(model, "plan", "--json").stdout)["models"][0]


@pytest.mark.parametrize("columns", [80, 200])
def test_old_and_new_differ_on_the_screen(columns: int, tmp_path: Path) -> None:
    model = shared_model(tmp_path, "bert-base-uncased")
    model.write("- set_normalizer: NFKC\n- add_tokens: {tokens: [internationalisationalism]}")
    lead = "internationalisationalism " * 9
    lines = [f"{lead}日本語の長い文章 {'word ' * count}Ends" for count in range(12)] + [lead + "x" * 90 + " ①"]
    (tmp_path / "corpus.txt").write_text("\n".join(lines), "utf-8")
    sent = on_terminal(model, columns, "plan", "--corpus", "corpus.txt")
    shown = sent.partition("impact on")[2].splitlines()
    assert max(map(cell_len, shown)) <= columns
    old, new = ([line[7:] for line in shown if line.startswith(f"  {name}  ")] for name in ("old", "new"))
    assert len(old) == len(new) == 10
    assert all(one != other for one, other in zip(old, new, strict=True))


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_corpus_cannot_drive_the_terminal(words: tuple[str, ...], tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    model.write("- set_normalizer: NFKC")
    # The sign at either end changes, so that all of the line is shown.
    evil = "①\x1b]0;title\x07 \x9b31m \x7f \u202eback\u200b ①"
    (tmp_path / "corpus.txt").write_text(f"{evil}\n①[bold]①\n", "utf-8")
    done = run(model, "plan", "--corpus", "corpus.txt", *words)
    assert done.returncode == 0
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout)
    if words:
        texts = [each["text"] for each in json.loads(done.stdout)["models"][0]["impact"]["worst"]]
        assert evil in texts
    else:
        assert "\u202e" not in done.stdout
        assert r"\x1b]0;title\x07" in done.stdout
        assert "①[bold]①" in done.stdout


def test_several_migrations_are_distinguished(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    for operations in ("- set_normalizer: NFKC", "- set_decoder: null", "- add_tokens: {tokens: [tokmigrate]}"):
        model.write(operations)
    shown = run(model, "plan", "--corpus", docs(tmp_path)).stdout
    table = shown.partition("\nmigration   tokenized differently")[2].splitlines()[1:4]
    assert [row.split()[:3] for row in table][1] == ["aaaa0002", "m", "nothing"]
    assert all("%" in row for row in (table[0], table[2]))


def test_an_operation_that_leaves_text_alone_is_reported_as_that(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    model.write("- set_decoder: null")
    done = run(model, "plan", "--corpus", docs(tmp_path))
    assert done.stdout.endswith("impact: none, nothing in the plan changes how text is tokenized\n")
    asked = run(model, "plan", "--corpus", docs(tmp_path), "--json")
    assert json.loads(asked.stdout)["models"][0]["impact"] is None


@pytest.mark.parametrize(
    ("corpus", "kind", "words"),
    [
        ("nosuch.txt", "UsageError", "does not exist"),
        (".", "UsageError", "is a directory"),
        ("broken.txt", "FileProblems", "broken.txt:1:5: the byte 0xff is not UTF-8"),
    ],
)
def test_mistakes_with_the_corpus(corpus: str, kind: str, words: str, tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    model.write("- set_normalizer: NFKC")
    (tmp_path / "broken.txt").write_bytes(b"abcd\xff")
    done = run(model, "plan", "--corpus", corpus)
    assert done.returncode == 2
    assert words in done.stderr
    asked = run(model, "plan", "--corpus", corpus, "--json")
    assert (asked.returncode, asked.stderr) == (2, "")
    assert json.loads(asked.stdout)["error"]["kind"] == kind
