"""A plan as a reviewer reads it: its figures first, lists that end, and Markdown that no text of a token can break."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from workspaces import Workspace, make_fleet

from tokmigrate.errors import ModelError
from tokmigrate.render.escape import escape_markdown, escape_markdown_code, escape_quoted
from tokmigrate.render.plan_markdown import PlannedModel, format_markdown

HOSTILE = (
    *("a|b", "|", "\\|", "\\", "`", "``", "`x`|`", "</details>", "<script>alert(1)</script>", "<!--", "&lt;", "&#124;"),
    *("[x](http://example.com)", "![x](//example.com)", "@someone", "#1", "**b**", "_x_ ", "~~s~~", "$x$", ":smile:"),
    *("www.example.com", "a@example.com", "http://example.com", "    code", "- [ ] x", "a\n\n# b", "\r", "\u202eabc"),
    *("z\u200bq", "\u2800", "x" * 5_000, " ", "  ", "\x1b[2J", "a  b", "\u0301", "<|im|>"),
)
PRESENT = ("|", "\\", "`", " ", "  ")
"""Those that the demo has."""

MESSAGE = "Add | <img src=x> @someone #1 `a` \u202eb\n\n# c http://example.com www.example.com [x](y)"

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def inline(document: str) -> list[Token]:
    return [part for token in PARSER.parse(document) for part in token.children or ()]


def plan(place: Workspace, *words: str) -> str:
    done = place.run("plan", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_figures_come_first(place: Workspace) -> None:
    place.add_migration('  - remove_tokens: {tokens: ["Ġwell"], ids: tombstone, acknowledge: breaking}\n')
    parts = plan(place).split("\n\n")
    assert [line.split("  ")[0] for line in parts[0].splitlines()] == [
        "demo: base → aaaaaaaaaaaa",
        *("migrations", "tokens", "rows", "files", "highest risk"),
    ]
    assert "3 added, 1 changed, 1 removed" in parts[0]
    assert parts[0].endswith("breaking, acknowledged (1 of 6 operations)")
    assert [part.split()[0] for part in parts[1:]] == ["token", "rows", "file", "risks"]
    assert parts[2] == "rows\n64 rows initialised by mean"
    assert "remove_tokens    breaking, acknowledged  " in parts[4]
    (found,) = place.asked("plan")["models"]
    assert found["summary"] == {
        "migrations": 4,
        "operations": 6,
        "tokens": {"added": 3, "changed": 1, "removed": 1, "moved": 0},
        "rows_before": found["rows_before"],
        "rows_after": found["rows_after"],
        "files": {"new": 1, "changed": 7, "removed": 0},
        "bytes_to_write": found["bytes_to_write"],
        "risk": "breaking",
        "acknowledged": 1,
    }
    assert [each["acknowledged"] for each in found["migrations"][3]["operations"]] == [True]


def test_long_lists_are_shortened_on_a_screen_and_the_rest_is_counted(place: Workspace) -> None:
    tokens = json.dumps([f"<t{number}>" for number in range(300)])
    place.add_migration(f"  - add_tokens: {{tokens: {tokens}}}\n" + "  - set_init: {strategy: mean}\n" * 80)
    said = plan(place)
    assert "\n… and 253 more added, which --json lists\n" in said
    assert "\n… and 36 more safe operations, which --json lists\n" in said
    assert said.count('"<t') == 47


def test_tokens_that_only_move_come_last(place: Workspace) -> None:
    place.add_migration(
        '  - add_tokens: {tokens: ["<a>"]}\n'
        '  - remove_tokens: {tokens: ["Ġwell"], ids: compact, acknowledge: breaking}\n',
    )
    said = plan(place)
    assert said.index('"<a>"') < said.index("moved from ")
    assert re.search(r"^[\d,]+ rows moved with their tokens\n1 row is replaced or removed: ", said, re.MULTILINE)
    document = plan(place, "--format", "markdown")
    assert document.index('"<a>"') < document.index("moved from ")


def test_no_text_of_a_token_breaks_the_markdown(place: Workspace) -> None:
    new = [token for token in HOSTILE if token not in PRESENT]
    place.add_migration(f"  - add_tokens: {{tokens: {json.dumps(new)}}}\n", message=MESSAGE)
    document = plan(place, "--format", "markdown")
    tokens = PARSER.parse(document)
    assert [token.content for token in tokens if token.type == "html_block"] == [
        f"<details><summary>{len(new) + 4} tokens</summary>\n",
        "</details>\n",
    ]
    headings = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings == ["tokmigrate plan", "`demo`: `base` → `aaaaaaaaaaaa`"]
    assert sum(token.type == "table_open" for token in tokens) == 4
    for row in document.splitlines():
        if row.startswith("| "):
            (body,) = (each for each in PARSER.parse(f"| a |\n|---|\n{row}") if each.type == "tbody_open")
            assert body
    parts = inline(document)
    assert {part.type for part in parts} <= {"text", "code_inline"}
    spans = {part.content for part in parts if part.type == "code_inline"}
    assert {escape_quoted(token) for token in new if len(token) < 100} <= spans
    prose = " ".join(part.content for part in parts if part.type == "text")
    assert not {*"@#<>|`[]$*_~&\\"} & {*prose}
    assert "://" not in prose
    assert "www." not in prose
    assert "… (5,000 characters)" in prose


@pytest.mark.parametrize("text", [*HOSTILE, MESSAGE, "plain words, and 1,024 rows → 'no' more: it's well-known"])
def test_words_keep_their_text(text: str) -> None:
    for document in (escape_markdown(text), escape_markdown_code(text)):
        parts = inline(f"x {document} x")
        shown = "".join(part.content for part in parts)
        assert shown.split() == f"x {escape_quoted(text)[1:-1]} x".replace('\\"', '"').replace("\\\\", "\\").split()
        assert {part.type for part in parts} <= {"text", "code_inline"}
    assert "`" not in escape_markdown("plain words, and 1,024 rows → 'no' more: it's well-known")


@given(st.lists(st.sampled_from([*"`|\\*_<[]()!#. @:&'a1", "``", "  ", "<b>", "](", "x.y"]), min_size=1).map("".join))
def test_no_words_are_more_than_text_and_code(text: str) -> None:
    for document in (escape_markdown(text), escape_markdown_code(text)):
        parts = inline(f"x {document} x")
        assert {part.type for part in parts} <= {"text", "code_inline"}
        assert "".join(part.content for part in parts).split() == f"x {text} x".split()


def test_a_comment_is_as_short_as_github_wants_it(place: Workspace) -> None:
    tokens = [f"<{number}{'|' * 90}>" for number in range(3_000)]
    place.add_migration(f"  - add_tokens: {{tokens: {json.dumps(tokens)}}}\n")
    document = plan(place, "--format", "markdown")
    assert 10_000 < len(document) < 65_536
    assert "more tokens, which `tokmigrate plan --json` lists\n" in document
    assert "`add_tokens`" in document
    many = [PlannedModel(f"model-{number}" * 9, ModelError("x" * 400)) for number in range(2_000)]
    document = format_markdown(many)
    assert len(document) < 65_536
    (left,) = {line for line in document.splitlines() if line.startswith("… and ")}
    shown = document.count("\n### ")
    assert left == f"… and {2_000 - shown:,} more models: `tokmigrate plan` shows them."


def test_several_models_are_compared_first(tmp_path: Path) -> None:
    place = Workspace(make_fleet(tmp_path / "place", ["one", "two", "gone"]).root)
    shutil.rmtree(place.root / "models" / "gone")
    (place.root / "models" / "two" / "tokenizer.json").write_text("{}", "utf-8")
    done = place.run("plan", "--format", "markdown")
    assert done.returncode == 1
    first, *sections = done.stdout.split("\n### ")
    rows = [[cell.strip() for cell in row.split("|")[1:3]] for row in first.splitlines() if row.startswith("| `")]
    assert rows == [["`one`", "3"], ["`two`", "cannot be planned"], ["`gone`", "cannot be planned"]]
    assert [section.partition("\n")[0] for section in sections] == [
        "`one`: `base` → `c07d18e2b9f4`",
        "`two`: cannot be planned",
        "`gone`: cannot be planned",
    ]
    assert "what to do: " in done.stdout
    place.run("upgrade", "-M", "one")
    assert (
        "### `one`: nothing is pending, it is at `c07d18e2b9f4`\n"
        in place.run("plan", "-M", "one", "--format", "markdown").stdout
    )


def test_markdown_and_what_else_goes_to_stdout(place: Workspace) -> None:
    for words in (("--json",), ("-o", "-")):
        done = place.run("plan", "--format", "markdown", *words)
        assert done.returncode == 2, words
        assert "--format markdown" in done.stderr + done.stdout
    done = place.run("plan", "--format", "markdown", "-o", "plan.json")
    assert "wrote plan.json" in done.stderr
    assert done.stdout == plan(place, "--format", "markdown")


def test_the_impact_is_in_the_markdown(place: Workspace) -> None:
    (place.root / "texts.txt").write_text("a </details> b\n<|im_start|>\n", "utf-8")
    tokens = PARSER.parse(plan(place, "--format", "markdown", "--corpus", "texts.txt"))
    (code,) = (token.content for token in tokens if token.type == "code_block")
    assert code.startswith("impact on texts.txt\n")
    assert "lines tokenized differently" in code
