"""Work that models have in common is done once in a command, and done again where something differs."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import making
import pytest
from workspaces import BASE, Workspace, contents, edit_json, make_fleet, make_workspace, run_here

from tokmigrate.apply import library_check
from tokmigrate.errors import FileProblems
from tokmigrate.memo import Memo, forget_all
from tokmigrate.model.documents import reading
from tokmigrate.model.tokenizer import tokenizer_json
from tokmigrate.model.tokenizer.library import open_tokenizer
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.model.worker.worker import call_worker
from tokmigrate.plan import plan
from tokmigrate.plan.steps import steps_of
from tokmigrate.revision import history, yaml_file
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import read_workspace

NAMES = ("a", "b")


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """Two copies of the demo."""
    return make_fleet(tmp_path / "place", NAMES)


def record_calls(function: Callable[..., Any]) -> tuple[list[tuple[Any, ...]], Callable[..., Any]]:
    """Return a list, and what does the same as a function and adds the arguments of each call to the list."""
    calls: list[tuple[Any, ...]] = []

    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return function(*arguments, **named)

    return calls, call


@pytest.mark.parametrize("words", ["status", "plan", "check", "lint", "upgrade"])
def test_migrations_are_parsed_once_for_all_models(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    forget_all()
    calls, call = record_calls(yaml_file.parse)
    monkeypatch.setattr(yaml_file, "parse", call)
    run_here(place.root, *words.split())
    assert sorted(shown for _, shown in calls) == [
        "migrations/0001_start_rows_from_the_mean.yaml",
        "migrations/0002_add_chat_roles.yaml",
        "migrations/0003_pad_on_the_left.yaml",
    ]


def test_a_migration_is_parsed_again_where_its_file_or_one_that_it_names_was_edited(place: Workspace) -> None:
    third, template = place.migration(3), place.root / "migrations" / "chat.jinja"
    before, after = third.read_text("utf-8").split("verify:")
    workspace = read_workspace(place.settings)

    def read(operation: str) -> Migration:
        third.write_text(f"{before}  - set_chat_template: {operation}\nverify:{after}", "utf-8")
        return history.History.read(workspace).migrations[2]

    template.write_text("one", "utf-8")
    first = read("{file: chat.jinja}")
    assert first is read("{file: chat.jinja}")
    template.write_text("two", "utf-8")
    second = read("{file: chat.jinja}")
    assert second.attachments == {"chat.jinja": b"two"}
    assert second.checksum != first.checksum
    assert read("{template: three}").attachments == {}
    template.unlink()
    with pytest.raises(FileProblems, match="chat"):
        read("{file: chat.jinja}")


class Overlapping:
    """A tokenizer of the library on which two threads work: the second begins within the first, and ends after it."""

    def __init__(self, tokenizer: Any) -> None:
        vars(self).update(tokenizer=tokenizer, second=threading.Event(), first_is_done=threading.Event())

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["tokenizer"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["tokenizer"], name, value)

    def encode(self, text: str, **options: Any) -> Any:
        if text == "first":
            assert self.second.wait(60)
        else:
            self.second.set()
            assert self.first_is_done.wait(60)
        return vars(self)["tokenizer"].encode(text, **options)


def test_threads_that_share_a_tokenizer_get_the_pieces_of_the_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [{"Sequence": {"id": "A", "type_id": 0}}] * 2
    template = {"type": "TemplateProcessing", "single": twice, "pair": twice, "special_tokens": {}}
    document = {**making.tokenizer_json(), "post_processor": template}
    pieces = Tokenizer({**document}).pieces("second")
    shared = Overlapping(open_tokenizer(document))
    monkeypatch.setattr(tokenizer_json, "open_tokenizer", lambda _: shared)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(Tokenizer(document).pieces, "first")
        second = pool.submit(Tokenizer(document).pieces, "second")
        first.result(60)
        shared.first_is_done.set()
        assert second.result(60) == pieces


@pytest.mark.parametrize(
    ("before", "words", "documents"),
    [
        ("", "status", 1),
        ("", "plan", 1),
        ("", "check", 1),
        ("", "lint", 1),
        ("", "upgrade -j 2", 1),
        ("upgrade", "status", 1),
        ("upgrade", "check", 1),
        ("upgrade", "lint", 1),
        ("upgrade", "downgrade base -j 2", 2),
    ],
)
def test_a_large_tokenizer_is_parsed_once_for_all_models(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, before: str, words: str, documents: int
) -> None:
    for name in NAMES:
        path = place.root / "models" / name / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()), indent=60), "utf-8")
        assert path.stat().st_size > 2**17
    if before:
        assert run_here(place.root, before).returncode == 0
    # What this process knows from before counts as nothing.
    monkeypatch.setattr(reading, "_PARSED", Memo(2))
    calls, call = record_calls(json.loads)
    monkeypatch.setattr(json, "loads", call)
    assert run_here(place.root, *words.split()).returncode in {0, 3}
    large = [text for text, *_ in calls if len(text) > 2**17]
    assert len(large) == len(set(large)) == documents


def test_models_that_are_alike_are_planned_and_verified_once(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.root / "models" / "b" / "README.md").write_text("another", "utf-8")
    # What this process knows from before counts as nothing.
    monkeypatch.setattr(plan, "_PLANNED", Memo(1))
    planned, plan_steps = record_calls(steps_of)
    monkeypatch.setattr(plan, "steps_of", plan_steps)
    verified, verify = record_calls(call_worker)
    monkeypatch.setattr(library_check, "call_worker", verify)
    for words in ("upgrade", "-j", "2"), ("downgrade", BASE, "-j", "2"):
        planned.clear()
        verified.clear()
        assert run_here(place.root, *words).returncode == 0
        assert (len(planned), len(verified)) == ((1, 1) if words[0] == "upgrade" else (0, 1))


@pytest.mark.parametrize("another", ["a value of another type", "another layout", "another file"])
def test_models_that_differ_are_each_as_if_changed_alone(
    tmp_path: Path, place: Workspace, monkeypatch: pytest.MonkeyPatch, another: str
) -> None:
    config = place.root / "models" / "b" / "config.json"
    for name in NAMES:
        edit_json(place.root / "models" / name / "config.json", use_cache=1)
    match another:
        case "a value of another type":
            edit_json(config, use_cache=True)
        case "another layout":
            config.write_text(json.dumps(json.loads(config.read_bytes()), indent=4), "utf-8")
        case _:
            config.with_name("extra.json").write_text("{}", "utf-8")
    alone = {name: make_workspace(tmp_path / f"only-{name}") for name in NAMES}
    for name, other in alone.items():
        shutil.rmtree(other.model)
        shutil.copytree(place.root / "models" / name, other.model)
        assert other.run("upgrade").returncode == 0
    verified, verify = record_calls(call_worker)
    monkeypatch.setattr(library_check, "call_worker", verify)
    assert run_here(place.root, "upgrade", "-j", "2").returncode == 0
    assert len(verified) == len(NAMES)
    for name, other in alone.items():
        assert contents(place.root / "models" / name) == contents(other.model)
