"""`tokmigrate explain`: every rule, operation, strategy and error has a page, which is read without the others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from test_plugins import install
from workspaces import Workspace, on_terminal, run_here

from tokmigrate.commands.topics import Topic, find_topic, read_topics
from tokmigrate.errors import EXIT_CODES, error_types
from tokmigrate.init.spec import strategy_types
from tokmigrate.lint.linter import RULES
from tokmigrate.operations.registry import operation_types
from tokmigrate.render.explain import format_topic

TOPICS = read_topics()


def explain(folder: Path, *words: str) -> str:
    done = run_here(folder, "explain", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_everything_has_a_page() -> None:
    named = {(topic.kind, topic.name) for topic in TOPICS}
    assert {name for kind, name in named if kind == "rule"} == set(RULES)
    assert {name for kind, name in named if kind == "operation"} == set(operation_types())
    assert {name for kind, name in named if kind == "init strategy"} == set(strategy_types())
    assert {name for kind, name in named if kind == "error"} == {each.topic for each in error_types()}
    assert {name for kind, name in named if kind == "exit code"} == set(map(str, EXIT_CODES))


def test_each_name_leads_to_its_own_topic() -> None:
    for topic in TOPICS:
        for name in filter(None, (topic.name, topic.other_name)):
            for word in (name, name.upper(), name.lower(), name.replace("_", "-"), name.replace("-", "_")):
                assert find_topic(word, TOPICS) is topic, word


@pytest.mark.parametrize(
    ("word", "title"),
    [
        ("TM103", "# TM103: space-at-the-edge"),
        ("tm103", "# TM103: space-at-the-edge"),
        ("space-at-the-edge", "# TM103: space-at-the-edge"),
        ("add_tokens", "# `add_tokens`"),
        ("mean_cov", "# `mean_cov`"),
        ("MissingModelError", "# missing-model: the directory of a model is not there"),
        ("missing_model", "# missing-model: the directory of a model is not there"),
        ("3", "# Exit code 3: migrations are pending"),
        ("exit-code-130", "# Exit code 130: stopped with Ctrl-C, SIGTERM or SIGHUP"),
    ],
)
def test_a_pipe_gets_the_page_and_json_too(tmp_path: Path, word: str, title: str) -> None:
    page = explain(tmp_path, word)
    assert page.startswith(f"{title}\n\n")
    document = json.loads(explain(tmp_path, word, "--json"))
    assert document["text"] == page
    assert document["topic"] in title
    assert document["kind"] in {"rule", "operation", "init strategy", "error", "exit code"}


def test_the_list_has_each_topic_with_what_it_is(tmp_path: Path) -> None:
    lines = explain(tmp_path).splitlines()
    assert "TM103  The text of a token begins or ends with white space" in lines
    assert "zeros          A row of zeros" in lines
    assert "3          migrations are pending" in lines
    listed = json.loads(explain(tmp_path, "--json"))["topics"]
    assert {each["topic"] for each in listed} == {topic.name for topic in TOPICS}
    assert all(each["summary"] for each in listed)


def test_no_link_leads_to_another_file() -> None:
    for topic in TOPICS:
        text = format_topic(topic, TOPICS)
        outside = "".join(re.split(r"^```.*?^```$", text, flags=re.MULTILINE | re.DOTALL))
        assert not re.search(r"\]\((?!https://)", outside), topic.name
        for word in re.findall(r"`tokmigrate explain ([\w-]+)`", text):
            assert find_topic(word, TOPICS)


def test_a_link_to_a_topic_becomes_its_command() -> None:
    mean = Topic("mean", "init strategy", "", "strategies/mean.md")
    code = Topic("3", "exit code", "", "troubleshooting.md#exit-code-3")
    text = (
        "# A\n\nSee [the mean](../strategies/mean.md), [3](../troubleshooting.md#exit-code-3-pending), [b](b.md),\n"
        "![a picture](../p.svg) and [docs](https://example.com/x).\n\n"
        "```text\n[the mean](../strategies/mean.md)\n```\n\n"
        "[All](../index.md) · [Mean](../strategies/mean.md)\n"
    )
    assert format_topic(Topic("a", "rule", text, "rules/a.md"), [mean, code]) == (
        "# A\n\nSee the mean (`tokmigrate explain mean`), 3 (`tokmigrate explain 3`), b,\n"
        "a picture and [docs](https://example.com/x).\n\n```text\n[the mean](../strategies/mean.md)\n```\n"
    )


def test_a_terminal_gets_it_in_its_width(tmp_path: Path) -> None:
    sent = on_terminal(Workspace(tmp_path), "explain", "TM103", COLUMNS="60")
    assert "\x1b[1m" in sent
    # No background is set: code can be read in a light and in a dark terminal.
    assert not re.search(r"\x1b\[[\d;]*\b4[0-8]\b", sent)
    lines = re.sub(r"\x1b\[[\d;]*m", "", sent).splitlines()
    assert "TM103: space-at-the-edge" in lines[0]
    assert max(map(len, lines)) <= 60
    assert not [line for line in lines if line.startswith(("# TM", "## ", "```"))]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("TM13", "did you mean 'TM113'?"),
        ("ad_tokens", "did you mean 'add_tokens'?"),
        ("nothing of the kind", "`tokmigrate explain` lists what can be explained"),
        ("upgrade", "`tokmigrate upgrade --help`"),
    ],
)
def test_what_is_no_topic(tmp_path: Path, word: str, said: str) -> None:
    done = run_here(tmp_path, "explain", word)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_plugin_is_explained_by_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    page = explain(tmp_path, "add_tags")
    assert page.startswith("# `add_tags`\n\nAdd an opening and a closing token for each name.\n\n- `")
    assert "- `names`: The names, without brackets.\n" in page
    assert "- `init`: " in page
    assert explain(tmp_path, "half-mean").startswith("# `half_mean`\n\nHalf of the mean row.\n")
    assert "add_tags            Add an opening and a closing token for each name" in explain(tmp_path).splitlines()


def test_a_plugin_that_is_broken_hides_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site")
    entry_points = tmp_path / "site" / "shout-1.0.dist-info" / "entry_points.txt"
    entry_points.write_text("[tokmigrate.operations]\nadd_tags = nothing.here:AddTags\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    done = run_here(tmp_path, "explain")
    assert done.returncode == 0
    assert "add_tokens" in done.stdout
    assert done.stderr.startswith("note: plug-ins are left out: plug-in 'add_tags' of shout 1.0: it cannot be loaded")
    assert explain(tmp_path, "TM103")
    refused = run_here(tmp_path, "explain", "add_tags")
    assert refused.returncode == 2
    assert "more: tokmigrate explain plugin" in refused.stderr
