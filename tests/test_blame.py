"""`blame`: the history of a token under all its names, the line of the migration, and who wrote it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from making import TOKENS, Made, llama, workspace
from workspaces import Workspace, edit, make_workspace, run_here

from tokmigrate.audit.blame import BlameToken, blame_id, blame_text
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import UnknownNameError
from tokmigrate.git import LineAuthor, read_line_author
from tokmigrate.state.rows import TokenEventType

NEEDS_GIT = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *words: str, author: str = "Ada") -> str:
    identity = ("-c", f"user.name={author}", "-c", f"user.email={author.lower()}@example.org")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def made_of(root: Path, model: Path, *steps: list[dict[str, Any]]) -> Made:
    return workspace(root, {"m": model}, [{"operations": operations} for operations in steps])


def blamed(made: Made, text: str) -> tuple[BlameToken, ...]:
    (model,) = blame_text(made.workspace, [made.entry("m")], text)
    return model.tokens


def events_of(token: BlameToken) -> list[tuple[TokenEventType, int | None]]:
    return [(event.row.event.event, event.row.event.token_id) for event in token.events]


def line_of(made: Made, number: int, text: str, which: int = 0) -> str:
    """Return where a text stands in a migration, as `blame` writes it."""
    (path,) = (made.root / "migrations").glob(f"{number:04}_*.yaml")
    lines = [at for at, line in enumerate(path.read_text("utf-8").split("\n"), 1) if text in line]
    return f"migrations/{path.name}:{lines[which]}"


def test_a_token_is_followed_under_all_its_names_and_each_event_has_its_line(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", spare=3)
    made = made_of(
        tmp_path / "w",
        model,
        [{"set_init": {"strategy": "zeros"}}, {"add_tokens": {"tokens": ["<a>", "<b>"]}}],
        [{"set_special_tokens": {"eos": "<a>"}}, {"rename_tokens": {"tokens": {"<a>": "<first>"}}}],
        [{"move_tokens": {"acknowledge": "breaking", "tokens": {"<first>": TOKENS + 2}}}],
        [{"reinit_tokens": {"tokens": ["<first>"]}}, {"reinit_tokens": {"tokens": ["the"], "acknowledge": "breaking"}}],
        [
            {"remove_tokens": {"tokens": ["Ġand"], "ids": "compact", "acknowledge": "breaking"}},
            {"rename_tokens": {"tokens": {"<first>": "<last>"}}},
        ],
    )
    upgrade(made.workspace, made.entry("m"))
    for name in ("<a>", "<first>", "<last>"):
        (token,) = blamed(made, name)
        assert (token.names, token.token, token.added) == (("<a>", "<first>", "<last>"), "<last>", True)
    assert [str(event.location) for event in token.events] == [
        line_of(made, 1, '"<a>"'),
        line_of(made, 2, '"<a>": "<first>"'),
        line_of(made, 3, '"<first>"'),
        line_of(made, 4, '"<first>"'),
        line_of(made, 5, '"<first>": "<last>"'),
    ]
    assert events_of(token)[-1] == (TokenEventType.RENAMED, TOKENS + 1)
    # That it moves down is nowhere written: it is what the removal does.
    (other,) = blamed(made, "<b>")
    assert [str(event.location) for event in other.events] == [
        line_of(made, 1, '"<b>"'),
        line_of(made, 5, '"remove_tokens"'),
    ]
    assert {event.run.id for event in token.events if event.run} == {token.events[0].row.run_id}
    assert token.events[0].message == "Step 1"


def test_a_base_token_and_one_that_is_gone(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    made = made_of(
        tmp_path / "w",
        model,
        [{"remove_tokens": {"tokens": ["Ġand"], "ids": "tombstone", "acknowledge": "breaking"}}],
    )
    ids = json.loads((model / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    (untouched,) = blamed(made, "the")
    assert (untouched.added, untouched.id, untouched.events, untouched.training) == (False, ids["the"], (), None)
    upgrade(made.workspace, made.entry("m"))
    (gone,) = blamed(made, "Ġand")
    assert (gone.added, gone.token, gone.id) == (False, None, None)
    assert events_of(gone) == [(TokenEventType.REMOVED, None)]
    # As people write it.
    assert blamed(made, " and") == (gone,)
    assert blamed(made, " the")[0].token == "Ġthe"
    (model_of_id,) = blame_id(made.workspace, [made.entry("m")], ids["Ġand"])
    assert gone.names in [token.names for token in model_of_id.tokens]
    downgrade(made.workspace, made.entry("m"), "base")
    (back,) = blamed(made, "Ġand")
    assert events_of(back) == [(TokenEventType.REMOVED, None), (TokenEventType.REVERTED, ids["Ġand"])]
    assert (back.token, back.id) == ("Ġand", ids["Ġand"])


def test_two_tokens_that_bore_one_name_are_two(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    made = made_of(
        tmp_path / "w",
        model,
        [{"add_tokens": {"tokens": ["<x>"]}}],
        [{"rename_tokens": {"tokens": {"<x>": "<y>"}}}],
        [{"add_tokens": {"tokens": ["<x>"]}}],
    )
    upgrade(made.workspace, made.entry("m"))
    first, second = blamed(made, "<x>")
    assert (first.names, first.id, second.names, second.id) == (("<x>", "<y>"), TOKENS, ("<x>",), TOKENS + 1)


def test_a_model_that_was_migrated_elsewhere(tmp_path: Path) -> None:
    made = made_of(tmp_path / "w", llama(tmp_path / "m"), [{"add_tokens": {"tokens": ["<x>"]}}])
    upgrade(made.workspace, made.entry("m"))
    shutil.rmtree(made.root / ".tokmigrate")
    (token,) = blamed(made, "<x>")
    assert (token.added, token.initialised_by, token.events) == (None, made.revisions[0], ())


def test_a_file_that_was_edited_or_is_gone_gives_no_line(tmp_path: Path) -> None:
    made = made_of(tmp_path / "w", llama(tmp_path / "m"), [{"add_tokens": {"tokens": ["<x>"]}}])
    upgrade(made.workspace, made.entry("m"))
    (path,) = (made.root / "migrations").iterdir()
    edit(path, "<x>", "<z>")
    (event,) = blamed(made, "<x>")[0].events
    assert (event.edited, event.location, event.message) == (True, None, "Step 1")
    path.unlink()
    (event,) = blamed(made, "<x>")[0].events
    assert (event.edited, event.location, event.message) == (False, None, "Step 1")


def test_names_that_nothing_has(tmp_path: Path) -> None:
    made = made_of(tmp_path / "w", llama(tmp_path / "m", spare=2), [{"add_tokens": {"tokens": ["<|im_start|>"]}}])
    upgrade(made.workspace, made.entry("m"))
    with pytest.raises(UnknownNameError) as raised:
        blamed(made, "<|im_strat|>")
    assert "<|im_start|>" in str(raised.value.hint)
    with pytest.raises(UnknownNameError, match="no token"):
        blame_id(made.workspace, [made.entry("m")], TOKENS + 1)
    with pytest.raises(UnknownNameError, match="no model"):
        blame_id(made.workspace, [made.entry("m")], TOKENS + 2)


def test_a_python_migration_and_a_preset(tmp_path: Path) -> None:
    made = made_of(
        tmp_path / "w",
        llama(tmp_path / "m"),
        [{"set_init": {"strategy": "mean"}}, {"add_role_tokens": {"preset": "chatml"}}],
    )
    path = made.root / "migrations" / "0002_more.py"
    path.write_text(
        f'revision = "00000002aaaa"\ndown_revision = "{made.revisions[0]}"\nmessage = "More"\n\n\n'
        'def upgrade(op):\n    for text in ("<one>", "<two>"):\n        op.add_tokens(tokens=[text, text + "!"])\n',
        "utf-8",
    )
    upgrade(made.workspace, made.entry("m"))
    places = {
        text: str(blamed(made, text)[0].events[0].location)
        for text in ("<one>", "<two>!", "<|im_start|>", "<|im_end|>")
    }
    role = line_of(made, 1, "add_role_tokens")
    assert places == {
        "<one>": "migrations/0002_more.py:7",
        "<two>!": "migrations/0002_more.py:6",
        "<|im_start|>": role,
        "<|im_end|>": role,
    }


# --- Git


@NEEDS_GIT
def test_the_author_of_the_line_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    assert read_line_author(path, 1) == "not in a Git repository"
    git(tmp_path, "init", "-q")
    path.write_text("one\ntwo\n", "utf-8")
    assert read_line_author(path, 1) == "not committed to Git yet"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "First: the file")
    path.write_text("one\nthree\n", "utf-8")
    git(tmp_path, "commit", "-qam", "Second")
    path.write_text("one\nthree\nfour\n", "utf-8")
    git(tmp_path, "commit", "-qam", "Third", author="Béla")
    found = [read_line_author(path, line) for line in (1, 2, 3)]
    assert all(isinstance(each, LineAuthor) for each in found)
    assert [(each.author, each.summary) for each in found if isinstance(each, LineAuthor)] == [
        ("Ada", "First: the file"),
        ("Ada", "Second"),
        ("Béla", "Third"),
    ]
    path.write_text("uno\nthree\nfour\n", "utf-8")
    assert read_line_author(path, 1) == "not committed to Git yet"


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert read_line_author(tmp_path / "file", 1) == "git is not installed"


# --- the command line


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The demo, upgraded from a Git repository by two authors."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    made = make_workspace(tmp_path_factory.mktemp("blame") / "w")
    git(made.root, "init", "-q")
    git(made.root, "add", "migrations/0001_start_rows_from_the_mean.yaml", "tokmigrate.yaml")
    git(made.root, "commit", "-qm", "Begin")
    git(made.root, "add", "migrations")
    git(made.root, "commit", "-qm", "Roles for the chat", author="Grace")
    assert made.run("upgrade").returncode == 0
    return made


def test_blame_on_the_demo(story: Workspace) -> None:
    head = git(story.root, "rev-parse", "HEAD")
    said = run_here(story.root, "blame", "<|im_start|>").stdout
    assert said.startswith('demo: "<|im_start|>", id 1024, never trained\n')
    assert "added with id 1024, row initialised by mean" in said
    does = "add_role_tokens '<|im_start|>', '<|im_end|>'"
    assert f"migrations/0002_add_chat_roles.yaml:9: {does}, by Grace, " in said
    assert f'in {head[:10]} "Roles for the chat"' in said
    (run,) = story.asked("log")["runs"]
    assert f"run {run['run']} by {run['user']} on {run['host']}" in said
    (model,) = story.asked("blame", "--id", "1026")["models"]
    (token,) = model["tokens"]
    assert (token["token"], token["training"], token["origin"]) == ("<|pad|>", "untrained", "migration")
    (event,) = token["events"]
    assert (event["file"], event["line"]) == ("migrations/0003_pad_on_the_left.yaml", 9)
    assert event["author"]["commit"] == event["workspace_commit"] == head


def test_every_way_to_ask(story: Workspace) -> None:
    assert "in the baseline, id" in run_here(story.root, "blame", " the").stdout
    newline = run_here(story.root, "blame", r"\n")
    assert newline.returncode == 0
    assert '"Ċ"' in newline.stdout
    done = run_here(story.root, "blame", "<|im_strat|>", "--json")
    assert done.returncode == 2
    assert "<|im_start|>" in json.loads(done.stdout)["error"]["hint"]
    for words in ((), ("x", "--id", "3"), ("--id", "x")):
        done = run_here(story.root, "blame", *words)
        assert (done.returncode, done.stdout) == (2, "")
