"""Texts that a terminal would obey, hide or replace: no command prints one as it is."""

from __future__ import annotations

import json
import subprocess
import unicodedata
from pathlib import Path

import pytest
from workspaces import HEAD, Workspace, make_workspace, on_terminal

HOSTILE = (
    ":smile:",
    "[red]",
    "\x1b]0;PWNED\x07\x1b[2J",
    "a\nb",
    "\u202eabc",
    "z\u200bq",
    "tr ",
    "\u2800\u3164\u2066",
    "\x85\x9b2J",
    "```",
)
MESSAGE = "Add :fire: [bold] \u202eit\nall\x1b[2J"


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """The demo with a migration that adds hostile tokens."""
    made = make_workspace(tmp_path / "place")
    made.add_migration(f"  - add_tokens: {{tokens: {json.dumps(list(HOSTILE))}}}\n", message=MESSAGE)
    return made


def raw(text: str) -> list[str]:
    """Return what stands in a text that is invisible, moves other text or is obeyed; line ends are what they are."""
    hidden = {"\u2800", "\u3164"}
    return [
        f"{letter!r} in {text[max(0, at - 40) : at + 40]!r}"
        for at, letter in enumerate(text)
        if letter not in " \n" and (unicodedata.category(letter)[0] in "CZ" or letter in hidden)
    ]


def check(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command printed, after looking for what must not be in it."""
    said = done.stdout + done.stderr
    assert raw(said) == [], done.args
    assert "a\nb" not in said, done.args
    assert "it\nall" not in said, done.args
    assert not {"😄", "🔥"} & set(said), done.args
    return said


def test_no_command_prints_a_hostile_text_as_it_is(place: Workspace) -> None:
    def told(*words: str) -> str:
        return check(place.run(*words))

    both = [
        *(("plan",), ("history",), ("heads",), ("show", "0004"), ("status",), ("validate",), ("test",), ("lint",)),
        *(("lock",), ("upgrade",), ("status",), ("log",), ("current",), ("check",), ("verify",), ("peft-config",)),
        *(("tag", "\u202eb\x1b[2J", "0004"), ("tag",), ("diff", "demo", "base"), ("report",)),
        ("doctor",),
        *(("blame", text) for text in HOSTILE),
    ]
    for words in both:
        told(*words)
        told(*words, "--json")
    for form in ("github", "sarif"):
        told("lint", "--format", form)
    text = place.root / "corpus.txt"
    text.write_text("a :smile: is \u202eabc z\u200bq\n[red] tr \n", "utf-8")
    told("downgrade", HEAD)
    told("plan", "--corpus", "corpus.txt")
    told("squash", f"{HEAD}:aaaaaaaaaaaa", "--message", MESSAGE)


@pytest.mark.parametrize(
    "operations",
    [
        'remove_tokens: {tokens: ["a\\n"], ids: compact, acknowledge: breaking}',
        'add_tokens: {tokens: ["\\e]0;PWNED\\a\\e[2J"]}',
        'rename_tokens: {tokens: {"z\\u200Bq": "\\u202Eabc"}}',
        'move_tokens: {tokens: {"a\\nb": 3}, acknowledge: breaking}',
        'set_special_tokens: {eos: "z\\u200Bqq"}',
        '"\\e[2J": {tokens: []}',
    ],
)
def test_an_error_spells_what_it_is_about(place: Workspace, operations: str) -> None:
    place.add_migration(f"  - {operations}\n", "bbbbbbbbbbbb", "aaaaaaaaaaaa", message=MESSAGE)
    for words in (("plan",), ("plan", "--json"), ("plan", "--debug"), ("lint",), ("lint", "--format", "github")):
        done = place.run(*words)
        check(done)
        assert "error" in done.stdout + done.stderr


def test_words_on_the_command_line_are_spelt_too(place: Workspace) -> None:
    for words in (("plan", "\x1b[2J"), ("plan", "--model", "\u202ed"), ("\x1b[2J",), ("show", "a\nb"), ("log", "\x1b")):
        done = place.run(*words)
        check(done)
        assert done.returncode


def test_a_name_of_rich_stays_what_it_is(place: Workspace) -> None:
    plan = check(place.run("plan"))
    assert '":smile:"' in plan
    assert '"[red]"' in plan
    assert '"tr "' in plan
    assert r'"a\nb"' in plan
    assert r'"\x1b]0;PWNED\x07\x1b[2J"' in plan
    assert r'"z\u200bq"' in plan
    assert r"Add :fire: [bold] \u202eit\nall\x1b[2J" in plan
    assert r"Add :fire: [bold] \u202eit\nall\x1b[2J" in check(place.run("history"))


def test_a_terminal_gets_no_more_than_a_pipe(place: Workspace) -> None:
    said = on_terminal(place, "plan", COLUMNS="120") + on_terminal(place, "upgrade", COLUMNS="120")
    assert '":smile:"' in said
    assert "PWNED\x07" not in said
    assert "\x1b[2J" not in said
    assert not {"\u202e", "\u200b", "😄", "🔥"} & set(said)
