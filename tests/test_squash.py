"""Squashing: one migration leads where several did, whatever they were, and models that have them are at its end."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_properties import Chain, Draft, Kind, folder, kinds, thorough
from workspaces import contents

from tokmigrate.apply.build_upgrade import UpgradeBuilder
from tokmigrate.apply.digests import read_contents
from tokmigrate.commands import inspect as look
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.lock import update_lock
from tokmigrate.commands.plan import plan, plan_or_reuse
from tokmigrate.commands.squash import squash, verify_same_end
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import DriftError, FileProblems, HistoryError, ModelError, UsageError
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.revision.history import History
from tokmigrate.revision.lock_file import read_lock, validate
from tokmigrate.revision.squash import squash_migrations
from tokmigrate.state.objects import ObjectStore


def without_stamp(model: Path) -> dict[str, tuple[bytes, int]]:
    """Return the files of a model but for the stamp, which names other migrations."""
    return {name: held for name, held in contents(model).items() if name != STAMP}


def end(made: making.Made, model: str) -> tuple[dict[str, bytes | None], dict[str, str]]:
    """Return what an upgrade to the head makes: the bytes of files, and the digests of all bytes of shards."""
    place, entry = made.workspace, made.entry(model)
    planned = plan_or_reuse(place, entry, take_snapshot(entry), "head")
    change = UpgradeBuilder(planned, "seed", ObjectStore(place.objects)).changes()[0]
    completion = change.complete(read_contents(change.snapshot, change.populations), lambda: None)
    return dict(change.candidate.documents.files), dict(completion.digests)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[Kind, Chain, tuple[int, int]]:
    """Draw a model, a chain of which some files have an `init:`, and a range of at least two, counted from 1."""
    kind = draw(kinds())
    draft = Draft(draw, kind.spare)
    migrations: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(2, 5))):
        init = draw(st.sampled_from([None, {"strategy": "normal"}, {"strategy": "mean_cov"}, {"strategy": "zeros"}]))
        operations = [draft.operation() for _ in range(draw(st.integers(0, 2)))]
        migrations.append({"operations": operations, **({"init": init} if init else {})})
    first = draw(st.integers(1, len(migrations) - 1))
    last = draw(st.integers(first + 1, len(migrations)))
    return kind, Chain(tuple(migrations), (), ()), (first, last)


@thorough(18)
@given(ranges())
def test_a_squash_of_any_range_gives_the_same_bytes_and_ids(story: tuple[Kind, Chain, tuple[int, int]]) -> None:
    kind, chain, (first, last) = story
    with folder() as root:
        kind.make(root / "model")
        made = making.workspace(root, {"m": root / "model"}, chain.migrations)
        lock = update_lock(made.workspace, [made.entry("m")], None).after
        before = end(made, "m")
        done = squash(made.workspace, [made.entry("m")], str(first), str(last))
        assert done.migration.revision == made.revisions[last - 1]
        assert len(History.read(made.workspace).chain()) == len(chain.migrations) - (last - first)
        assert end(made, "m") == before
        assert done.lock is not None
        validate(made.workspace)
        # What it pins is what comes out, and what was pinned behind it stays so.
        assert update_lock(made.workspace, [made.entry("m")], done.lock).after == done.lock
        assert done.lock.tracks[0].pins[-1].fingerprint == lock.tracks[0].pins[-1].fingerprint


@pytest.mark.parametrize("what", ["files", "rows", "defaults for later rows"])
def test_another_end_is_found(tmp_path: Path, what: str) -> None:
    making.llama(tmp_path / "m")
    added = [{"operations": [{"add_tokens": {"tokens": [f"<{word}>"]}}]} for word in "ab"]
    added.append({"operations": [{"set_init": {"strategy": "zeros"}}]})
    made = making.workspace(tmp_path, {"m": tmp_path / "m"}, added)
    members = History.read(made.workspace).chain()
    one = squash_migrations(members, "All", tmp_path / "all.yaml", "all.yaml")
    state = take_snapshot(made.entry("m")).state
    assert verify_same_end(state, members, one, "m").new_ids == ((making.TOKENS, "<a>"), (making.TOKENS + 1, "<b>"))
    first, second, last = one.operations
    wrong = {
        "files": (second, first, last),
        # Its seed is another one.
        "rows": (replace(first, origin=second.origin), second, last),
        "defaults for later rows": (first, second),
    }
    with pytest.raises(DriftError, match=f"they would leave other {what} on m"):
        verify_same_end(state, members, replace(one, operations=wrong[what]), "m")


def three(root: Path) -> making.Made:
    """Make a workspace with four migrations of random rows, and a model at base, half way, at the third and beyond."""
    making.llama(root / "base", spare=1)
    for name in ("half", "third", "beyond"):
        shutil.copytree(root / "base", root / name)
    added = [
        {"operations": [{"add_tokens": {"tokens": [f"<{word}>"]}}], "init": {"strategy": strategy}}
        for word, strategy in (("a", "normal"), ("b", "mean_cov"), ("c", "mean"), ("d", "normal"))
    ]
    names = ("base", "half", "third", "beyond")
    made = making.workspace(root, {name: root / name for name in names}, added)
    update_lock(made.workspace, [made.entry("base")], None)
    for name, steps in (("half", "+2"), ("third", "+3"), ("beyond", "+4")):
        upgrade(made.workspace, made.entry(name), steps)
    return made


def test_no_range_is_squashed_that_a_model_is_in_the_middle_of(tmp_path: Path) -> None:
    made = three(tmp_path)
    place = made.workspace
    entries = [made.entry(name) for name in place.models]
    files = sorted(path.name for path in (tmp_path / "migrations").iterdir())
    with pytest.raises(HistoryError, match="half has 000000000001 and not 000000000003") as caught:
        squash(place, entries, "1", "3")
    assert "downgrade base" in str(caught.value.hint)
    assert sorted(path.name for path in (tmp_path / "migrations").iterdir()) == files


def test_a_model_in_the_middle_is_shown_what_to_do(tmp_path: Path) -> None:
    making.llama(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    added = [{"operations": [{"add_tokens": {"tokens": [f"<{word}>"]}}]} for word in "abcd"]
    made = making.workspace(tmp_path, {"one": tmp_path / "one"}, added)
    there = making.workspace(tmp_path / "there", {"two": tmp_path / "two"}, added)
    upgrade(there.workspace, there.entry("two"), "+2")
    upgrade(made.workspace, made.entry("one"), "+3")
    squash(made.workspace, [made.entry("one")], "1", "3")

    # One that has them all is at its end, goes on from there, and back.
    status = look.status(made.workspace, made.entry("one"))
    assert (status.revision, [each.revision for each in status.pending]) == (made.revisions[2], [made.revisions[3]])
    upgrade(made.workspace, made.entry("one"))

    making.say_of(tmp_path, "two", path="two")
    with pytest.raises(DriftError, match="the model is at 000000000002, in the middle of what") as caught:
        plan(made.workspace, made.entry("two"))
    assert "tokmigrate upgrade 000000000003" in str(caught.value.hint)

    # As the hint says: with the old migrations up or down, then on with the new ones.
    downgrade(there.workspace, there.entry("two"), "base")
    upgrade(made.workspace, made.entry("two"))
    assert without_stamp(tmp_path / "two") == without_stamp(tmp_path / "one")
    for name in ("one", "two"):
        downgrade(made.workspace, made.entry(name), "base")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_range_is_tried_on_models_that_are_past_it(tmp_path: Path) -> None:
    made = three(tmp_path)
    place = made.workspace
    downgrade(place, made.entry("half"), "base")
    done = squash(place, [made.entry("third"), made.entry("beyond")], "2", "3")
    assert done.trials == {"third": "model", "beyond": "model"}
    for name in ("half", "base", "third"):
        upgrade(place, made.entry(name))
        assert without_stamp(tmp_path / name) == without_stamp(tmp_path / "beyond"), name
    lock = read_lock(place)
    assert lock is not None
    assert [[pinned.new_ids for pinned in track.pins] for track in lock.tracks] == [
        [
            ((making.TOKENS, "<a>"),),
            ((making.TOKENS + 1, "<b>"), (making.TOKENS + 2, "<c>")),
            ((making.TOKENS + 3, "<d>"),),
        ]
    ]


@pytest.mark.parametrize("models", [["chat"], ["*", "chat"]])
def test_what_is_for_other_models_is_not_squashed(tmp_path: Path, models: list[str]) -> None:
    first, second = ({"operations": [{"add_tokens": {"tokens": [f"<{word}>"]}}]} for word in "ab")
    making.llama(tmp_path / "m")
    made = making.workspace(tmp_path, {"m": tmp_path / "m"}, [first, {**second, "models": models}])
    with pytest.raises(HistoryError, match="it is for other models"):
        squash(made.workspace, [made.entry("m")], "1", "2")


def test_a_range_has_two_ends_and_a_model_to_be_tried_on(tmp_path: Path) -> None:
    added = [{"operations": [{"add_tokens": {"tokens": [f"<{word}>"]}}]} for word in "abc"]
    made = making.workspace(tmp_path, {}, added)
    with pytest.raises(ModelError, match="no model here to try it on"):
        squash(made.workspace, [], "1", "2")
    for first, last in (("2", "1"), ("2", "2"), ("base", "2")):
        with pytest.raises(UsageError):
            squash(made.workspace, [], first, last)


def test_a_squashed_file_that_does_not_add_up_is_refused_with_its_place(tmp_path: Path) -> None:
    making.llama(tmp_path / "m")
    added = [{"operations": [{"add_tokens": {"tokens": [f"<{word}>"]}}]} for word in "ab"]
    made = making.workspace(tmp_path, {"m": tmp_path / "m"}, added)
    path = squash(made.workspace, [made.entry("m")], "1", "2", "Both").migration.path
    assert path.name == "0002_both.yaml"
    text = path.read_text("utf-8")
    path.write_text(text.replace("operations: 1", "operations: 2", 1).replace(f'"{made.revisions[1]}"', "ffffffffffff"))
    with pytest.raises(FileProblems) as caught:
        History.read(made.workspace)
    told = [(problem.line, problem.message) for problem in caught.value.problems]
    assert told == [
        (3, f"a squashed migration has the id of the last one that it replaces, which is '{made.revisions[1]}'"),
        (8, "it gives 3 operations, and there are 2"),
    ]
    path.write_text(text, "utf-8")
    extra = {"format": 1, "revision": "ffffffffffff", "down_revision": made.revisions[1], "operations": []}
    (tmp_path / "migrations" / "0003_more.yaml").write_text(json.dumps(extra), "utf-8")
    with pytest.raises(HistoryError, match="others were squashed into it already"):
        squash(made.workspace, [made.entry("m")], "2", "3")
