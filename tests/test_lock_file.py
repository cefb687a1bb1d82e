"""The lock: what it says, what `validate` finds, and what `upgrade` holds it to."""

from __future__ import annotations

import json
import random
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import making
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workspaces import Workspace, contents, edit

from tokmigrate.commands.file_transaction import write_files
from tokmigrate.commands.lock import update_lock
from tokmigrate.commands.plan import plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import DriftError, FileProblems
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.revision.history import History
from tokmigrate.revision.lock_file import (
    Lock,
    Locked,
    LockTrack,
    PinnedIds,
    conflict_sides,
    lock_files,
    lock_of,
    lock_path,
    lock_text,
    parse_lock,
    read_lock,
    validate,
)
from tokmigrate.settings import Workspace as Settings

HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
NAMES = st.text("0123456789abcdefghijklmnopqrstuvwxyz_", min_size=4, max_size=40)
TOKENS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    """Draw a lock with pins for some tokenizers, each of some of the migrations."""
    names = draw(st.lists(NAMES, max_size=6, unique=True))
    tracks = []
    for base in draw(st.lists(HEX, max_size=3, unique=True)) if names else ():
        held = [name for name in names if draw(st.booleans())]
        pins = [PinnedIds(name, draw(HEX), _new_ids(draw)) for name in held]
        if pins:
            tracks.append(LockTrack(base, tuple(pins)))
    tracks.sort(key=lambda track: track.fingerprint)
    return Lock(tuple(Locked(name, f"1:{draw(HEX)}") for name in names), tuple(tracks))


def _new_ids(draw: st.DrawFn) -> tuple[tuple[int, str], ...]:
    ids = draw(st.dictionaries(st.integers(0, 10**6), TOKENS, max_size=4))
    return tuple(sorted(ids.items()))


@settings(deadline=None)
@given(locks(), st.sampled_from(["\n", "\r\n"]))
def test_a_lock_is_what_its_text_says_with_any_line_ends(lock: Lock, end: str) -> None:
    text = lock_text(lock)
    assert parse_lock(text.replace("\n", end), "lock") == lock
    assert lock_text(parse_lock(text, "lock")) == text


@settings(deadline=None)
@given(locks(), st.data())
def test_no_line_of_a_lock_can_be_changed_unnoticed(lock: Lock, data: st.DataObject) -> None:
    lines = lock_text(lock).splitlines()
    held = [place for place, line in enumerate(lines) if not line.startswith("#")]
    place = data.draw(st.sampled_from(held))
    how = data.draw(st.sampled_from(["gone", "twice", "swapped", "letter"]))
    changed = list(lines)
    if how == "gone":
        del changed[place]
    elif how == "twice":
        changed.insert(place, lines[place])
    elif how == "swapped":
        other = data.draw(st.sampled_from(held))
        changed[place], changed[other] = changed[other], changed[place]
    else:
        column = data.draw(st.integers(0, len(lines[place]) - 1))
        letter = data.draw(st.characters(codec="ascii", exclude_categories=["Cc"]))
        changed[place] = lines[place][:column] + letter + lines[place][column + 1 :]
    if changed == lines:
        return
    with pytest.raises(FileProblems) as caught:
        parse_lock("\n".join(changed) + "\n", "lock")
    assert re.match(r"lock:\d+:1: ", str(caught.value))


@settings(deadline=None)
@given(locks(), locks(), st.booleans())
def test_both_sides_of_a_conflict_are_read(ours: Lock, theirs: Lock, with_base: bool) -> None:
    sides = [lock_text(each).splitlines() for each in (ours, theirs)]
    common = 0
    while common < min(map(len, sides)) and sides[0][common] == sides[1][common]:
        common += 1
    base = ["||||||| merged common ancestors", "head of another time"] if with_base else []
    middle = ["<<<<<<< HEAD", *sides[0][common:], *base, "=======", *sides[1][common:], ">>>>>>> topic"]
    text = "\n".join([*sides[0][:common], *middle]) + "\n"
    with pytest.raises(FileProblems, match="tokmigrate rebase"):
        parse_lock(text, "lock")
    assert conflict_sides(text) == (lock_text(ours), lock_text(theirs))


def write(workspace: Settings, lock: Lock) -> None:
    """Write a workspace's lock."""
    write_files(workspace, lock_files(workspace, lock))


def chain_of(root: Path, count: int) -> making.Made:
    """Make a workspace of migrations that add a token each, locked, without a model."""
    added = [{"operations": [{"add_tokens": {"tokens": [f"<t{number}>"]}}]} for number in range(count)]
    made = making.workspace(root, {}, added)
    write(made.workspace, lock_of(History.read(made.workspace).chain(), None))
    return made


def edited_content(text: str) -> str:
    """Return a migration that does something else."""
    content = json.loads(text)
    content["operations"].append({"resize_vocab": {"multiple_of": 8}})
    return json.dumps(content)


def renamed_revision(text: str) -> str:
    """Return a migration with another id."""
    return json.dumps({**json.loads(text), "revision": "ffffffffffff"})


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.randoms(use_true_random=False),
    st.sampled_from(["content", "revision", "gone", "new", "order"]),
)
def test_validate_finds_every_change_of_a_migration(count: int, chance: random.Random, how: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = chain_of(Path(folder), count)
        assert [each.revision for each in validate(made.workspace).chain] == list(made.revisions)
        files = sorted((made.root / "migrations").glob("*.yaml"))
        chosen = chance.choice(files)
        if how == "content":
            chosen.write_text(edited_content(chosen.read_text("utf-8")), "utf-8")
        elif how == "revision":
            files[-1].write_text(renamed_revision(files[-1].read_text("utf-8")), "utf-8")
        elif how == "gone":
            files[-1].unlink()
        elif how == "new":
            head = {"format": 1, "revision": "ffffffffffff", "down_revision": made.revisions[-1]}
            (made.root / "migrations" / "9999_more.yaml").write_text(json.dumps(head), "utf-8")
        elif count > 1:
            # The last two change places.
            last, before = (json.loads(path.read_text("utf-8")) for path in (files[-1], files[-2]))
            last["down_revision"], before["down_revision"] = before["down_revision"], last["revision"]
            for path, content in ((files[-1], last), (files[-2], before)):
                path.write_text(json.dumps(content), "utf-8")
        else:
            return
        with pytest.raises(FileProblems) as caught:
            validate(made.workspace)
        assert "tokmigrate lock" in str(caught.value)


def test_what_changes_nothing_is_no_fault(tmp_path: Path) -> None:
    made = chain_of(tmp_path, 3)
    for path in (tmp_path / "migrations").glob("*.yaml"):
        text = f"# reviewed by two people\n{path.read_text('utf-8')}\n"
        path.write_bytes(text.replace("\n", "\r\n").encode())
    lock = lock_path(made.workspace)
    lock.write_bytes(lock.read_bytes().replace(b"\n", b"\r\n"))
    assert len(validate(made.workspace).chain) == 3


def test_a_workspace_without_lock_is_shown_how_to_make_one(place: Workspace) -> None:
    (place.root / "migrations" / "tokmigrate.lock").unlink(missing_ok=True)
    told = place.run("validate")
    assert (told.returncode, "there is no lock (`tokmigrate lock` writes it)" in told.stderr) == (2, True)
    assert place.run("upgrade").returncode == 0
    assert not (place.root / "migrations" / "tokmigrate.lock").exists()


def test_a_lock_edited_by_hand_is_not_written_over(place: Workspace) -> None:
    lock = place.root / "migrations" / "tokmigrate.lock"
    text = lock.read_text("utf-8").replace("id 1024 ", "id 1027 ")
    lock.write_text(text, "utf-8")
    for sentence in (("validate",), ("lock",), ("rebase",), ("plan",), ("revision", "-m", "More")):
        told = place.run(*sentence)
        assert told.returncode == 2, sentence
        assert "edited by hand" in told.stderr
        assert "delete it, " in told.stderr
    assert lock.read_text("utf-8") == text
    assert len(list((place.root / "migrations").glob("*.yaml"))) == 3


def test_revision_writes_its_line_and_lock_what_it_became(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    place = Workspace(tmp_path)
    assert place.run("init").returncode == 0
    for message in ("First", "Second"):
        assert place.asked("revision", "-m", message)["locked"]
        assert place.run("validate").returncode == 0
    second = place.migration(2)
    edit(second, "operations:\n", 'operations: [{add_tokens: ["<a>"]}]\n')
    told = place.run("validate")
    assert f"{second.relative_to(tmp_path)}:1:1: " in told.stderr
    assert "was edited since it was locked" in told.stderr
    # A third one does not hide that.
    assert place.asked("revision", "-m", "Third")["locked"]
    assert "was edited since it was locked" in place.run("validate").stderr
    changes = place.asked("lock")["changes"]
    assert [change["change"] for change in changes] == ["changed"]
    assert place.run("validate").returncode == 0


def test_upgrade_gives_the_ids_that_are_promised_and_writes_no_lock(place: Workspace) -> None:
    lock = place.root / "migrations" / "tokmigrate.lock"
    made = place.asked("lock")
    before = lock.read_bytes()
    planned = place.asked("plan")["models"][0]
    pinned = [given for ids in made["tokenizers"][0]["ids"] for given in ids["new_ids"]]
    given = [new for step in planned["migrations"] for effect in step["operations"] for new in effect["assigned_ids"]]
    assert pinned == [{"token": new["token"], "id": new["id"]} for new in given]
    assert not any("lock" in note for note in planned["notes"])
    assert place.run("upgrade", "+1").returncode == 0
    assert place.run("upgrade").returncode == 0
    assert place.asked("lock")["written"] is False
    assert lock.read_bytes() == before


@pytest.mark.parametrize("steps", ["+2", "head"])
def test_an_id_that_comes_out_otherwise_is_an_error_before_anything_is_written(place: Workspace, steps: str) -> None:
    made = making.Made(place.root, ())
    place.run("lock")
    lock = read_lock(made.workspace)
    assert lock is not None
    (track,) = lock.tracks
    wrong = replace(track.pins[1], new_ids=((1030, "<|im_start|>"), (1025, "<|im_end|>")))
    write(made.workspace, Lock(lock.revisions, (replace(track, pins=(track.pins[0], wrong)),)))
    before = contents(place.model)
    for command in ("plan", "upgrade"):
        told = place.run(command, steps)
        assert told.returncode == DriftError.exit_code
        assert (
            "'<|im_start|>' would get id 1024 in migration 9f3c2a7e41b0, and the lock pins it to id 1030" in told.stderr
        )
    assert contents(place.model) == before
    assert place.run("lock").returncode == DriftError.exit_code


def with_token_by_hand(model: Path, token: str) -> None:
    """Add a token to tokenizer.json as people do."""
    path = model / "tokenizer.json"
    document = json.loads(path.read_text("utf-8"))
    number = max([*document["model"]["vocab"].values(), *(entry["id"] for entry in document["added_tokens"])]) + 1
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    document["added_tokens"].append({"id": number, "content": token, **flags, "special": True})
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False), "utf-8")


def test_a_token_added_by_hand_between_two_migrations_takes_a_pinned_id(tmp_path: Path) -> None:
    making.llama(tmp_path / "model", spare=8)
    added = [{"operations": [{"add_tokens": {"tokens": [token]}}]} for token in ("<a>", "<b>")]
    made = making.workspace(tmp_path, {"m": tmp_path / "model"}, added)
    update_lock(made.workspace, [made.entry("m")], None)
    upgrade(made.workspace, made.entry("m"), "+1")
    with_token_by_hand(tmp_path / "model", "<mine>")
    with pytest.raises(DriftError, match="the token '<mine>' is added"):
        plan(made.workspace, made.entry("m"))
    with pytest.raises(DriftError, match="'<b>' would get id"):
        plan(replace(made.workspace, drift="accept"), made.entry("m"))


def test_another_base_has_ids_of_its_own_and_is_reported_to_have_none_pinned(tmp_path: Path) -> None:
    for name in ("one", "other"):
        making.llama(tmp_path / name)
    making.write_tokenizer(tmp_path / "other", making.tokenizer_json(words=making.WORDS[:-1]))
    models = {name: tmp_path / name for name in ("one", "other")}
    migration = {"operations": [{"add_tokens": {"tokens": ["<a>"]}}]}
    made = making.workspace(tmp_path, models, [migration])
    update_lock(made.workspace, [made.entry("one")], None)
    assert plan(made.workspace, made.entry("one")).remarks == ()
    (remark,) = plan(made.workspace, made.entry("other")).remarks
    assert "pins no ids for this tokenizer" in remark
    done = update_lock(made.workspace, [made.entry("other")], read_lock(made.workspace))
    assert len(done.after.tracks) == 2
    (first,), (second,) = (track.pins for track in done.after.tracks)
    assert first.new_ids != second.new_ids


def test_the_same_ids_are_the_same_base_however_the_file_is_written(tmp_path: Path) -> None:
    making.llama(tmp_path / "model", spare=8)
    making.workspace(tmp_path, {"m": tmp_path / "model"}, [])
    entry = making.Made(tmp_path, ()).entry("m")
    first = take_snapshot(entry).state.tokenizer.fingerprint
    path = tmp_path / "model" / "tokenizer.json"
    document = json.loads(path.read_text("utf-8"))
    document["model"]["vocab"] = dict(reversed(document["model"]["vocab"].items()))
    document["normalizer"] = {"type": "NFC"}
    path.write_text(json.dumps(document), "utf-8")
    assert take_snapshot(entry).state.tokenizer.fingerprint == first
    with_token_by_hand(tmp_path / "model", "<x>")
    assert take_snapshot(entry).state.tokenizer.fingerprint != first


def test_a_stamp_that_does_not_name_its_base_is_known_by_its_ids(tmp_path: Path) -> None:
    making.llama(tmp_path / "model", spare=8)
    added = [{"operations": [{"add_tokens": {"tokens": [token]}}]} for token in ("<a>", "<b>")]
    made = making.workspace(tmp_path, {"m": tmp_path / "model"}, added)
    lock = update_lock(made.workspace, [made.entry("m")], None).after
    upgrade(made.workspace, made.entry("m"), "+1")
    stamp = read_stamp(tmp_path / "model")
    assert stamp is not None
    assert stamp.tokenizer == lock.tracks[0].fingerprint
    (tmp_path / "model" / STAMP).write_bytes(replace(stamp, tokenizer=None).encode())
    assert plan(made.workspace, made.entry("m")).remarks == ()
    # Its ids are its only name: with others nobody knows what was pinned to it.
    with_token_by_hand(tmp_path / "model", "<mine>")
    accepting = replace(made.workspace, drift="accept")
    remarks = plan(accepting, made.entry("m")).remarks
    assert [remark for remark in remarks if "pins no ids for this tokenizer" in remark]
    done = update_lock(made.workspace, [made.entry("m")], lock)
    assert done.after == lock
    assert "only a copy of it at base" in done.notes[0]


def test_a_lock_that_comes_later_is_the_same_lock(tmp_path: Path) -> None:
    making.llama(tmp_path / "model", shards=2)
    renamed = {"operations": [{"rename_tokens": {"tokens": {"</s>": "<end>"}}}, {"set_chat_template": "{{ x }}"}]}
    added = [
        {"operations": [{"add_tokens": {"tokens": [token]}}, {"set_padding": {"token": token}}]}
        for token in ("<a>", "<b>")
    ]
    made = making.workspace(tmp_path, {"m": tmp_path / "model"}, [renamed, *added])
    entry = made.entry("m")
    lock = update_lock(made.workspace, [entry], None).after
    for _ in made.revisions:
        lock_path(made.workspace).unlink()
        upgrade(made.workspace, entry, "+1")
        done = update_lock(made.workspace, [entry], None)
        assert done.after == lock
        assert done.notes == ()


def test_models_with_one_base_and_other_migrations_have_ids_of_their_own(tmp_path: Path) -> None:
    for name in ("plain", "chat"):
        making.llama(tmp_path / name)
    added = [{"operations": [{"add_tokens": {"tokens": [token]}}]} for token in ("<a>", "<b>", "<c>")]
    added[1]["models"] = ["chat"]  # type: ignore[assignment]
    made = making.workspace(tmp_path, {name: tmp_path / name for name in ("plain", "chat")}, added)
    lock = update_lock(made.workspace, [made.entry("plain"), made.entry("chat")], None).after
    assert parse_lock(lock_text(lock), "lock") == lock
    ids = {track.revisions: track.pins[-1].new_ids for track in lock.tracks}
    first, only_chat, last = made.revisions
    assert ids == {
        (first, last): ((making.TOKENS + 1, "<c>"),),
        (first, only_chat, last): ((making.TOKENS + 2, "<c>"),),
    }
    for name in ("plain", "chat"):
        assert upgrade(made.workspace, made.entry(name)).plan.remarks == ()


def test_what_was_promised_before_a_change_stays_promised(tmp_path: Path) -> None:
    making.llama(tmp_path / "model")
    added = [{"operations": [{"add_tokens": {"tokens": [token]}}]} for token in ("<a>", "<b>", "<c>")]
    made = making.workspace(tmp_path, {"m": tmp_path / "model"}, added)
    lock = update_lock(made.workspace, [made.entry("m")], None).after
    second = tmp_path / "migrations" / "0002_step_2.yaml"
    second.write_text(edited_content(second.read_text("utf-8")), "utf-8")
    (tmp_path / "model").rename(tmp_path / "away")
    # Without a model nobody can say which ids the changed one gives, nor those behind it.
    done = update_lock(made.workspace, [made.entry("m")], lock)
    assert done.notes == ("m is not here: no ids are pinned for it",)
    assert done.after.tracks == (replace(lock.tracks[0], pins=lock.tracks[0].pins[:1]),)
    assert validate(made.workspace).unpinned == ((lock.tracks[0].fingerprint, made.revisions[1:]),)


def test_the_lock_of_this_repository_is_valid_and_holds_for_the_demo(place: Workspace) -> None:
    assert place.run("validate").returncode == 0
    assert place.asked("lock")["written"] is False
