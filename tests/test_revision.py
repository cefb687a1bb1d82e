"""Migration files and their history."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokmigrate.errors import FileProblems, HistoryError, OperationError, UnknownNameError, UsageError
from tokmigrate.init import InitSpec
from tokmigrate.operations.add_tokens import AddTokens
from tokmigrate.operations.operation import NewToken
from tokmigrate.operations.padding_and_truncation import SetPadding
from tokmigrate.operations.registry import operation_types
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Encodes, Migration, ModelType, SingleToken, TokenAbsent
from tokmigrate.revision.names import new_revision_id
from tokmigrate.revision.new_file import (
    json_schema,
    python_text,
    write_python_migration,
    write_schema,
    write_yaml_migration,
    yaml_text,
)
from tokmigrate.settings import ModelEntry, Workspace

FULL = """\
format: 1
revision: 9f3c2a7e41b0
down_revision: null
message: Add ChatML role tokens
author: A. Writer
models: [demo, chat]
init: {strategy: mean}
preconditions:
  - token_absent: "<|im_start|>"
  - model_type: {model_type: llama}
operations:
  - add_tokens:
      tokens:
        - {content: "<|im_start|>", special: true}
        - 0002
  - add_tokens: [no]
  - set_padding: {token: "<|pad|>", side: left, pad_to_multiple_of: 8}
  - set_chat_template: {file: chat.jinja}
verify:
  - single_token: "<|im_start|>"
  - encodes: {text: no way, tokens: [no, way]}
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "migrations").mkdir()
    return Workspace(tmp_path, tmp_path / "migrations", "", tmp_path / "objects", {})


Write = Callable[..., Path]


@pytest.fixture
def write(workspace: Workspace) -> Write:
    def write(name: str, text: str) -> Path:
        path = workspace.migrations / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def short(revision: str, down: str | None = None, rest: str = "") -> str:
    return f"format: 1\nrevision: {revision}\ndown_revision: {down or 'null'}\n{rest}"


def line(write: Write, count: int) -> list[str]:
    ids = [f"rev_{letter * 4}" for letter in "abcdefgh"[:count]]
    for number, (revision, down) in enumerate(zip(ids, [None, *ids], strict=False), 1):
        write(f"{number:04d}_x.yaml", short(revision, down))
    return ids


def only(workspace: Workspace) -> Migration:
    (migration,) = History.read(workspace).migrations
    return migration


def faults(workspace: Workspace) -> list[str]:
    with pytest.raises(FileProblems) as caught:
        History.read(workspace)
    return [str(problem) for problem in caught.value.problems]


def test_everything_that_a_yaml_file_says(workspace: Workspace, write: Write) -> None:
    path = write("0001_roles.yaml", FULL)
    write("chat.jinja", "{{ x }}")
    migration = only(workspace)
    assert (migration.revision, migration.down_revision) == ("9f3c2a7e41b0", None)
    assert (migration.message, migration.author) == ("Add ChatML role tokens", "A. Writer")
    assert (migration.path, migration.number, migration.shown) == (path, "0001", "migrations/0001_roles.yaml")
    assert migration.init is not None
    assert migration.preconditions == (
        TokenAbsent(token="<|im_start|>"),
        ModelType(model_type="llama"),
    )
    assert migration.checks == (
        SingleToken(text="<|im_start|>"),
        Encodes(text="no way", tokens=("no", "way")),
    )
    assert [planned.operation for planned in migration.operations[:3]] == [
        AddTokens(tokens=(NewToken(content="<|im_start|>", special=True), NewToken(content="0002"))),
        AddTokens(tokens=(NewToken(content="no"),)),
        SetPadding(token="<|pad|>", side="left", pad_to_multiple_of=8),
    ]
    assert migration.operations[1].place == "migrations/0001_roles.yaml:16:5"
    assert migration.attachments["chat.jinja"] == b"{{ x }}"
    assert migration.record_operations(None) == migration.operations


def test_a_file_is_validated_once_as_long_as_nothing_of_it_changes(workspace: Workspace, write: Write) -> None:
    path = write("0001_roles.yaml", FULL)
    template = write("chat.jinja", "{{ x }}")
    first = only(workspace)
    assert only(workspace) is first
    template.write_text("{{ y }}")
    assert only(workspace).attachments["chat.jinja"] == b"{{ y }}"
    assert only(workspace).checksum != first.checksum
    template.unlink()
    assert faults(workspace)
    template.write_text("{{ x }}")
    path.write_text(FULL.replace("ChatML", "other"))
    assert only(workspace).message == "Add other role tokens"


def test_a_migration_is_for_models_by_name_tag_or_star(workspace: Workspace, write: Write) -> None:
    write("1.yaml", short("aaaa", rest="models: [demo, chat]\n"))
    migration = only(workspace)
    assert migration.applies_to(ModelEntry("demo", Path("/x")))
    assert migration.applies_to(ModelEntry("other", Path("/x"), tags=("chat",)))
    assert not migration.applies_to(ModelEntry("other", Path("/x"), tags=("base",)))
    assert replace(migration, models=("*",)).applies_to(ModelEntry("other", Path("/x")))


def test_every_fault_of_every_file_is_reported_at_once(workspace: Workspace, write: Write) -> None:
    write(
        "1.yaml",
        "format: 1\nrevison: aaaa\ndown_revision: A\noperations:\n  - add_token: {}\n  - add_tokens: {tokns: []}\n"
        "  - set_padding: {side: up}\n    resize_vocab: {}\n  - set_chat_template: {file: none.jinja}\n"
        "  - add_tokens\npreconditions:\n  - token_absnt: x\nverify: x\n",
    )
    write("2.yaml", "a: [\n")
    write("3.py", "revision = 'bbbb' + 'c'\n")
    found = faults(workspace)
    assert [each.split(": ")[0] for each in found] == [
        "migrations/1.yaml:1:1",
        "migrations/1.yaml:2:1",
        "migrations/1.yaml:3:16",
        "migrations/1.yaml:5:5",
        "migrations/1.yaml:6:18",
        "migrations/1.yaml:7:5",
        "migrations/1.yaml:9:31",
        "migrations/1.yaml:10:5",
        "migrations/1.yaml:12:5",
        "migrations/1.yaml:13:9",
        "migrations/2.yaml:2:1",
        "migrations/3.py:1:1",
        "migrations/3.py:1:12",
        "migrations/3.py:1:12",
    ]
    told = "\n".join(found)
    for hint in ("'revision'", "'add_tokens'", "'tokens'", "'token_absent'"):
        assert f"did you mean {hint}?" in told


@pytest.mark.parametrize("text", ["revision: aaaa\n", "format: 2\nrevision: aaaa\n"])
def test_the_format_has_to_be_one(workspace: Workspace, write: Write, text: str) -> None:
    write("1.yaml", text)
    assert "reads 'format: 1'" in faults(workspace)[0]


@pytest.mark.parametrize("revision", ["abc", "ABCD", "head", "base", "a" * 41, "a-b-c"])
def test_not_every_word_is_a_revision_id(workspace: Workspace, write: Write, revision: str) -> None:
    write("1.yaml", short(revision))
    assert "1.yaml:2:11" in faults(workspace)[0]


def test_an_empty_migration_and_empty_fields(workspace: Workspace, write: Write) -> None:
    write("1.yaml", "format: 1\nrevision: aaaa\ndown_revision:\nauthor: ~\ninit:\noperations:\nverify: []\n")
    migration = only(workspace)
    assert (migration.down_revision, migration.author, migration.init, migration.operations) == (
        None,
        None,
        None,
        (),
    )


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "none.jinja", "."])
def test_a_reference_stays_in_the_workspace(workspace: Workspace, write: Write, name: str) -> None:
    write("1.yaml", short("aaaa", rest=f"operations:\n  - set_chat_template: {{file: {name}}}\n"))
    assert "1.yaml:5:31" in faults(workspace)[0]


def test_files_that_begin_with_a_dot_or_underscore_are_left_alone(workspace: Workspace, write: Write) -> None:
    for name in ("_shared.py", ".hidden.yaml", "readme.md", "tokmigrate.lock"):
        write(name, "[")
    assert History.read(workspace).migrations == ()


# The checksum.


def checksum_of(workspace: Workspace, write: Write, text: str, jinja: str = "x") -> str:
    write("chat.jinja", jinja)
    write("1.yaml", text)
    return only(workspace).checksum


def test_what_the_checksum_does_not_cover(workspace: Workspace, write: Write) -> None:
    first = checksum_of(workspace, write, FULL)
    lines = FULL.splitlines()
    head, tail = lines[:7], lines[7:]
    for other in (
        "# a comment\n" + FULL,
        FULL.replace("\n", "\r\n"),
        FULL.replace("Add ChatML", "Add some").replace("A. Writer", "B. Writer"),
        FULL.replace("side: left, pad_to_multiple_of: 8", "pad_to_multiple_of: '8', side: \"left\""),
        FULL.replace("down_revision: null", "down_revision: ~"),
        "\n".join([*head[::-1], *tail]) + "\n",
    ):
        assert other != FULL
        assert checksum_of(workspace, write, other) == first


def test_what_the_checksum_covers(workspace: Workspace, write: Write) -> None:
    first = checksum_of(workspace, write, FULL)
    for other in (
        FULL.replace("0002", "2"),
        FULL.replace("- add_tokens: [no]\n  - set_padding: {", "- set_padding: {").replace(
            "multiple_of: 8}", "multiple_of: 8}\n  - add_tokens: [no]"
        ),
        FULL.replace("9f3c", "9f3d"),
    ):
        assert other != FULL
        assert checksum_of(workspace, write, other) != first
    assert checksum_of(workspace, write, FULL, "y") != first


def test_the_checksum_is_pinned(workspace: Workspace, write: Write) -> None:
    # If this fails, every recorded checksum fails: then it takes a new version prefix.
    assert checksum_of(workspace, write, FULL) == ("1:09ae613feb95f266b5f9f6c46750cb908d4b7a536a9519687372969b71b9d4d0")


# Python migrations.

PYTHON = '''\
"""What it is for."""
from pathlib import Path

revision = "bbbb"
down_revision: str | None = None
message = "Grün"; models = ("demo",)
init = {"strategy": "mean"}
preconditions = [{"token_absent": "x"}]
verify = [{"single_token": "x"}]
Path(__file__).with_suffix(".ran").touch()


def upgrade(op):
    for letter in op.tokenizer.letters:
        op.add_tokens(tokens=[{"content": letter, "special": True}])
    op.add_tokens(["z"])
'''


def test_a_python_file_is_read_without_being_run(workspace: Workspace, write: Write) -> None:
    path = write("0002_p.py", PYTHON)
    migration = only(workspace)
    assert (migration.revision, migration.down_revision, migration.message) == ("bbbb", None, "Grün")
    assert (migration.models, migration.number) == (("demo",), "0002")
    assert migration.preconditions == (TokenAbsent(token="x"),)
    assert migration.checks == (SingleToken(text="x"),)
    assert migration.init is not None
    assert migration.operations == ()
    assert not path.with_suffix(".ran").exists()


def test_a_python_migration_records_operations_for_a_model(workspace: Workspace, write: Write) -> None:
    path = write("0002_p.py", PYTHON)
    recorded = only(workspace).record_operations(SimpleNamespace(letters="ab"))
    assert [planned.operation for planned in recorded] == [
        AddTokens(tokens=(NewToken(content="a", special=True),)),
        AddTokens(tokens=(NewToken(content="b", special=True),)),
        AddTokens(tokens=(NewToken(content="z"),)),
    ]
    assert [planned.place for planned in recorded] == [
        "migrations/0002_p.py:15:9",
        "migrations/0002_p.py:15:9",
        "migrations/0002_p.py:16:5",
    ]
    assert path.with_suffix(".ran").exists()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("op.add_token(tokens=['a'])", "no operation 'add_token'"),
        ("op.add_tokens(tokns=['a'])", "unknown field 'tokns'"),
        ("op.add_tokens(['a'], ['b'])", "takes its fields by name"),
        ("op.set_padding('a')", "takes its fields by name"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("raise BaseException('panic')", "panic"),
        ("helper()", "KeyError"),
        ("op.set_chat_template(file='chat.jinja')", "does not declare the file"),
    ],
)
def test_a_failure_of_the_code_has_its_place(workspace: Workspace, write: Write, body: str, told: str) -> None:
    write("1.py", f"revision = 'aaaa'\ndef upgrade(op):\n    {body}\ndef helper():\n    return {{}}['x']\n")
    with pytest.raises(OperationError, match=told) as caught:
        only(workspace).record_operations(None)
    line = 5 if body == "helper()" else 3
    assert str(caught.value.where).startswith(f"migrations/1.py:{line}")


def test_a_python_migration_declares_its_files(workspace: Workspace, write: Write) -> None:
    text = "revision = 'aaaa'\nfiles = ['chat.jinja']\ndef upgrade(op):\n    op.set_chat_template(file='chat.jinja')\n"
    write("chat.jinja", "x")
    write("1.py", text)
    migration = only(workspace)
    assert [planned.operation.references() for planned in migration.record_operations(None)] == [("chat.jinja",)]
    write("1.py", text.replace("\n", "  \r\n") + "\n\n")
    assert only(workspace).checksum == migration.checksum
    write("chat.jinja", "y")
    assert only(workspace).checksum != migration.checksum


def test_faults_of_a_python_file(workspace: Workspace, write: Write) -> None:
    write("1.py", "def upgrade(op:\n")
    write("2.py", "revision = 'bbbb'\nrevision = 'cccc'\ndef upgrade():\n    pass\n")
    write("3.py", "revision = 'ABC'\nmodels = 'x'; init = {'a': 1, 'a': f'{2}'}\ndef upgrade(op):\n    pass\n")
    assert [each.split(": ")[0] for each in faults(workspace)][:6] == [
        "migrations/1.py:1:12",
        "migrations/2.py:2:1",
        "migrations/2.py:3:1",
        "migrations/3.py:1:12",
        "migrations/3.py:2:10",
        "migrations/3.py:2:22",
    ]


# History.


def test_a_chain_from_base_to_head(workspace: Workspace, write: Write) -> None:
    ids = line(write, 4)
    history = History.read(workspace)
    assert [each.revision for each in history.chain()] == ids
    assert history.base is not None
    assert (history.base.revision, [each.revision for each in history.heads]) == (ids[0], [ids[-1]])
    assert history.get(ids[2]).number == "0003"
    with pytest.raises(UnknownNameError, match="no migration file"):
        history.get("gone")


def test_two_heads_can_be_listed_but_not_followed(workspace: Workspace, write: Write) -> None:
    ids = line(write, 2)
    write("0003_y.yaml", short("rev_other", ids[0]))
    history = History.read(workspace)
    assert [each.revision for each in history.heads] == [ids[1], "rev_other"]
    assert [each.revision for each in history.order()] == [*ids, "rev_other"]
    for follow in (history.chain, lambda: history.resolve("head"), lambda: history.resolve("+1", ids[0])):
        with pytest.raises(HistoryError) as caught:
            follow()
        assert ids[1] in caught.value.message
        assert "rev_other" in caught.value.message
        assert "down_revision" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([("aaaa", None), ("aaaa", None)], "used twice"),
        ([("aaaa", None), ("bbbb", "aaab")], "no file has the revision"),
        ([("aaaa", None), ("bbbb", None)], "2 migrations follow nothing"),
        ([("aaaa", "aaaa")], "in a circle"),
        ([("aaaa", None), ("bbbb", "cccc"), ("cccc", "bbbb"), ("dddd", "cccc")], "in a circle"),
    ],
)
def test_files_that_do_not_hold_together(
    workspace: Workspace, write: Write, files: list[tuple[str, str | None]], told: str
) -> None:
    for number, (revision, down) in enumerate(files, 1):
        write(f"{number}.yaml", short(revision, down))
    with pytest.raises(HistoryError, match=told) as caught:
        History.read(workspace)
    assert "migrations/" in caught.value.message
    assert "4.yaml" not in caught.value.message
    assert caught.value.hint


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_matter(count: int, chance: random.Random) -> None:
    ids = [f"rev{number:04d}" for number in range(count)]
    names = [*ids]
    chance.shuffle(names)
    migrations = [
        Migration(each, down, "", None, ("*",), None, (), (), Path(name), name, "", "1:x")
        for each, down, name in zip(ids, [None, *ids], names, strict=False)
    ]
    chance.shuffle(migrations)
    history = History.of(migrations, Path())
    assert [each.revision for each in history.chain()] == ids


# Names.


def test_the_names_of_a_revision(workspace: Workspace, write: Write) -> None:
    for number, (revision, down) in enumerate([("9f3c2a", None), ("9f4e00", "9f3c2a"), ("0001ab", "9f4e00")], 1):
        write(f"{number:04d}_x.yaml", short(revision, down))
    write("last.yaml", short("zzzz", "0001ab"))
    history = History.read(workspace)
    tags = {"release": "9f4e00", "empty": None}
    for name, current, expected in [
        ("9f3c2a", None, "9f3c2a"),
        ("9f3", None, "9f3c2a"),
        ("0002", None, "9f4e00"),
        ("2", None, "9f4e00"),
        ("release", None, "9f4e00"),
        ("empty", "zzzz", None),
        ("head", None, "zzzz"),
        ("base", "zzzz", None),
        ("+2", None, "9f4e00"),
        ("+1", "9f3c2a", "9f4e00"),
        ("-1", "9f3c2a", None),
        ("-3", "zzzz", "9f3c2a"),
    ]:
        assert history.resolve(name, current, tags) == expected, name
    with pytest.raises(UnknownNameError, match=r"9f3c2a.*9f4e00"):
        history.resolve("9f")
    with pytest.raises(UnknownNameError, match="can mean any of"):
        history.resolve("0001")
    for name, current, hint in [
        ("+5", None, "the model is at base: give +1 to +4, or head"),
        ("-1", None, "the model is at base: there is no revision before it"),
        ("+1", "zzzz", "the model is at zzzz: there is no revision after it"),
        ("-9", "zzzz", "the model is at zzzz: give -1 to -4, or base"),
        ("-9", "9f3c2a", "the model is at 9f3c2a: give -1, or base"),
    ]:
        with pytest.raises(UsageError, match="leads past") as past:
            history.resolve(name, current)
        assert past.value.hint == hint
    with pytest.raises(HistoryError, match="not in the history"):
        history.resolve("+1", "gone")
    with pytest.raises(UnknownNameError) as caught:
        history.resolve("relaese", None, tags)
    assert caught.value.hint == "did you mean 'release'?"
    with pytest.raises(UnknownNameError):
        history.resolve("")


def test_head_of_nothing_is_base(workspace: Workspace) -> None:
    assert History.read(workspace).resolve("head") is None


def test_new_ids_are_random() -> None:
    ids = {new_revision_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(each) == 12 and int(each, 16) >= 0 for each in ids)


# New files and the schema.


def test_new_files_follow_each_other_and_can_be_read(workspace: Workspace) -> None:
    first = write_yaml_migration(workspace, "Add ChatML röle-tokens!")
    operations = (
        AddTokens(
            tokens=(NewToken(content="no", special=True), NewToken(content="0002")),
            init=InitSpec.model_validate({"strategy": "copy", "token": "1_000"}),
        ),
        SetPadding(token="null", side="left"),
    )
    second = write_yaml_migration(workspace, "Second", operations)
    third = write_python_migration(workspace, 'Say "x\\y" {now}')
    assert [path.name for path in (first, second, third)] == [
        "0001_add_chatml_role_tokens.yaml",
        "0002_second.yaml",
        "0003_say_x_y_now.py",
    ]
    one, two, three = History.read(workspace).chain()
    assert one.message == "Add ChatML röle-tokens!"
    assert tuple(planned.operation for planned in two.operations) == operations
    assert three.message == 'Say "x\\y" {now}'
    assert three.record_operations(None) == ()
    assert (workspace.migrations / "tokmigrate.schema.json").is_file()
    assert first.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=tokmigrate.schema.json\n")


def test_the_commented_examples_are_true(workspace: Workspace, write: Write) -> None:
    text = yaml_text("aaaa", None, "x")
    write("1.yaml", text)
    assert only(workspace).operations == ()
    # As an editor takes comments off lines: the sign alone, or with the space behind it.
    for sign in ("#", "# ?"):
        write("1.yaml", re.sub(rf"(?m)^{sign}(?=\w+:| +- | {{4,}})", "", text))
        assert len(only(workspace).operations) == 3
    migration = only(workspace)
    assert len(migration.operations) == 3
    assert migration.init
    assert migration.preconditions
    assert migration.checks
    write("1.yaml", "format: 1\nrevision: aaaa\n")
    write("2.py", python_text("bbbb", "aaaa", "x").replace("# op.add_tokens", "op.add_tokens"))
    assert len(History.read(workspace).chain()[1].record_operations(None)) == 1


@pytest.mark.parametrize("message", ["", "  ", "a\nb", "a\x00"])
def test_a_new_file_needs_a_message(workspace: Workspace, message: str) -> None:
    with pytest.raises(UsageError, match="needs a message"):
        write_yaml_migration(workspace, message)
    assert list(workspace.migrations.iterdir()) == []


def test_the_schema_knows_every_operation(workspace: Workspace) -> None:
    schema = json_schema()
    items = schema["properties"]["operations"]["anyOf"][0]["items"]["anyOf"]
    assert [item["required"][0] for item in items] == list(operation_types())
    assert all(item["properties"][item["required"][0]]["description"] for item in items)
    path = write_schema(workspace)
    assert json.loads(path.read_text(encoding="utf-8")) == schema
