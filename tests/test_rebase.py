"""Branches of a history: only one value of one file changes, and what both branches change is named."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import making
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workspaces import Workspace

from tokmigrate.commands.lock import update_lock
from tokmigrate.commands.rebase import rebase
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import HistoryError, UnknownNameError
from tokmigrate.revision.history import History
from tokmigrate.revision.lock_file import read_lock, validate
from tokmigrate.revision.new_file import python_text
from tokmigrate.revision.reparent import find_conflicts, with_down_revision
from tokmigrate.settings import ModelEntry
from tokmigrate.strict_yaml.reading import parse

IDS = st.text("0123456789abcdef_", min_size=4, max_size=12)
COMMENTS = st.sampled_from(["", "  # the one before: 'x' \"y\"", " # ä日🙂"])
ENDS = st.sampled_from(["\n", "\r\n"])
OTHERS = ("message: 'down_revision: nothing'", "# down_revision: 0000", "", 'operations:\n  - add_tokens: ["<é🙂>"]')


@st.composite
def yaml_files(draw: st.DrawFn) -> tuple[str, str, str, str | None, str]:
    """Draw what stands before the value of a down_revision, the value as written, and what stands behind it."""
    old = draw(st.none() | IDS)
    words = ["null", "~", ""] if old is None else [f"'{old}'", f'"{old}"', old]
    word = draw(st.sampled_from(words))
    others = draw(st.permutations(["format: 1", "revision: 'ffff'" + draw(COMMENTS), *OTHERS]))
    place = draw(st.integers(0, len(others)))
    before = "".join(f"{line}\n" for line in others[:place]) + "down_revision:" + (" " if word else "")
    after = draw(COMMENTS) + "\n" + "".join(f"{line}\n" for line in others[place:])
    end = draw(ENDS)
    return before.replace("\n", end), word, after.replace("\n", end), old, end


@settings(deadline=None)
@given(yaml_files(), st.none() | IDS)
def test_a_yaml_migration_keeps_every_letter_but_the_value(
    file: tuple[str, str, str, str | None, str], new: str | None
) -> None:
    before, word, after, _, _ = file
    text = with_down_revision(before + word + after, ".yaml", new)
    content = parse(before + word + after, "x").value
    assert text.startswith(before)
    assert text.endswith(after)
    assert parse(text, "x").value == {**content, "down_revision": "null" if new is None else new}
    quotes = word[0] if word[:1] in ("'", '"') else ""
    middle = text[len(before) : len(text) - len(after)].strip()
    assert middle in (
        {"null"} if new is None else {f"{quotes}{new}{quotes}"} if quotes else {new, f"'{new}'", f'"{new}"'}
    )


@settings(deadline=None)
@given(IDS, ENDS, st.booleans(), st.booleans())
def test_a_yaml_migration_without_the_field_gets_it_behind_its_revision(
    new: str, end: str, flow: bool, as_json: bool
) -> None:
    content = {"format": 1, "revision": "ffff", "message": "ä", "operations": []}
    if as_json:
        text = json.dumps(content, ensure_ascii=False, indent=2 if flow else None)
    else:
        text = "{format: 1, revision: ffff, message: ä}" if flow else "format: 1\nrevision: ffff # id\nmessage: ä"
    text = text.replace("\n", end)
    changed = with_down_revision(text, ".yaml", new)
    assert parse(changed, "x").value == {**parse(text, "x").value, "down_revision": new}
    assert list(parse(changed, "x").value)[2] == "down_revision"
    if as_json:
        assert json.loads(changed) == {**content, "down_revision": new}
    place = next(i for i, (a, b) in enumerate(zip(text, changed + " ", strict=False)) if a != b)
    added = len(changed) - len(text)
    assert changed[:place] + changed[place + added :] == text or changed.startswith(text)


@settings(deadline=None)
@given(st.none() | IDS, st.none() | IDS, ENDS, st.sampled_from(["'", '"']), st.booleans())
def test_a_python_migration_keeps_every_letter_but_the_value(
    old: str | None, new: str | None, end: str, quote: str, typed: bool
) -> None:
    word = "None" if old is None else f"{quote}{old}{quote}"
    kind = ": str | None" if typed else ""
    before = f'"""Für 🙂."""{end}revision = "ffff"; ä = "é🙂"; down_revision{kind} = '
    after = f"  # down_revision = None{end}{end}def upgrade(op):{end}    down_revision = 'x'{end}"
    text = with_down_revision(before + word + after, ".py", new)
    assert text.startswith(before)
    assert text.endswith(after)
    assert ast.literal_eval(text[len(before) : len(text) - len(after)]) == new


def test_a_python_migration_without_the_name_gets_it() -> None:
    text = python_text("ffff", None, "First").replace("down_revision = None\n", "")
    assert "down_revision" not in text
    assert with_down_revision(text, ".py", "abcd") == text.replace(
        'revision = "ffff"\n', 'revision = "ffff"\ndown_revision = "abcd"\n'
    )


def add(root: Path, name: str, revision: str, down: str | None, **content: Any) -> Path:
    """Write one more migration."""
    head = {"format": 1, "revision": revision, "down_revision": down, "message": name}
    path = root / "migrations" / name
    path.write_text(json.dumps({**head, **content}), "utf-8")
    return path


def tokens(*texts: str) -> dict[str, Any]:
    """Return a migration that adds tokens."""
    return {"operations": [{"add_tokens": {"tokens": list(texts)}}]}


def forked(root: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[making.Made, ModelEntry]:
    """Make a workspace of one model with two heads behind one migration."""
    making.llama(root / "model", spare=4)
    made = making.workspace(root, {"m": root / "model"}, [tokens("<first>")])
    add(root, "0002_theirs.yaml", "aaaaaaaaaaaa", made.revisions[0], **theirs)
    add(root, "0002_ours.yaml", "bbbbbbbbbbbb", made.revisions[0], **ours)
    return made, made.entry("m")


def order(made: making.Made) -> list[str]:
    """Return the revisions of a workspace, by the names of their files and in order."""
    return [migration.path.name for migration in History.read(made.workspace).chain()]


def test_the_branch_that_a_model_has_stays(tmp_path: Path) -> None:
    made, entry = forked(tmp_path, tokens("<ours>"), tokens("<theirs>"))
    ours = tmp_path / "migrations" / "0002_ours.yaml"
    held = ours.read_bytes()
    ours.unlink()
    upgrade(made.workspace, entry)
    ours.write_bytes(held)
    with pytest.raises(HistoryError, match="aaaaaaaaaaaa cannot be moved: m has it"):
        rebase(made.workspace, [entry], "aaaa")
    done = rebase(made.workspace, [entry])
    assert [each.migration.revision for each in done.moved] == ["bbbbbbbbbbbb"]
    assert order(made) == ["0001_step_1.yaml", "0002_theirs.yaml", "0003_ours.yaml"]
    # The model came without a lock, so that only a copy at base can pin its ids.
    assert done.relocked.after.revisions
    assert upgrade(made.workspace, entry).plan.after == "bbbbbbbbbbbb"


def test_nothing_is_guessed_where_either_could_move(tmp_path: Path) -> None:
    made, entry = forked(tmp_path, tokens("<ours>"), tokens("<theirs>"))
    with pytest.raises(HistoryError, match="nothing says which one is yours") as caught:
        rebase(made.workspace, [entry])
    assert "aaaaaaaaaaaa" in str(caught.value.hint)
    assert "bbbbbbbbbbbb" in str(caught.value.hint)
    assert len(History.read(made.workspace).heads) == 2
    rebase(made.workspace, [entry], "bbbbbbbbbbbb")
    validate(made.workspace)
    lock = read_lock(made.workspace)
    assert lock is not None
    given = {token: number for pinned in lock.tracks[0].pins for number, token in pinned.new_ids}
    assert given == {"<first>": making.TOKENS, "<theirs>": making.TOKENS + 1, "<ours>": making.TOKENS + 2}
    # A second time there is nothing to do.
    assert rebase(made.workspace, [entry]).onto is None


def test_names_are_looked_up_where_there_is_one_head_too(tmp_path: Path) -> None:
    made = making.workspace(tmp_path, {}, [tokens("<a>")])
    for words in (("nope",), (None, "nope")):
        with pytest.raises(UnknownNameError, match="nope"):
            rebase(made.workspace, [], *words)


def test_two_files_with_one_number_get_two(tmp_path: Path) -> None:
    made = making.workspace(tmp_path, {}, [tokens("<a>"), tokens("<b>")])
    for name, revision, down in (("0002_c.yaml", "cccc", made.revisions[1]), ("0003_d.yaml", "dddd", "cccc")):
        add(tmp_path, name, revision, down, **tokens(f"<{revision}>"))
    rebase(made.workspace, [])
    assert order(made) == ["0001_step_1.yaml", "0002_step_2.yaml", "0003_c.yaml", "0004_d.yaml"]
    validate(made.workspace)
    # A day may have several.
    for name, revision, down in (("20261125_e.yaml", "eeee", "dddd"), ("20261125_f.yaml", "ffff", "eeee")):
        add(tmp_path, name, revision, down, **tokens(f"<{revision}>"))
    assert rebase(made.workspace, []).moved == ()


def test_a_branch_of_several_moves_as_one_and_its_numbers_follow(tmp_path: Path) -> None:
    made, entry = forked(tmp_path, tokens("<ours>"), tokens("<theirs>"))
    add(tmp_path, "0003_ours_too.yaml", "cccccccccccc", "bbbbbbbbbbbb", **tokens("<more>"))
    second = (tmp_path / "migrations" / "0003_ours_too.yaml").read_bytes()
    rebase(made.workspace, [entry], "cccc")
    assert order(made)[1:] == ["0002_theirs.yaml", "0003_ours.yaml", "0004_ours_too.yaml"]
    assert (tmp_path / "migrations" / "0004_ours_too.yaml").read_bytes() == second


def test_two_first_migrations_become_a_line_too(tmp_path: Path) -> None:
    made = making.workspace(tmp_path, {}, [tokens("<a>")])
    add(tmp_path, "0001_other.yaml", "bbbbbbbbbbbb", None, **tokens("<b>"))
    with pytest.raises(HistoryError, match="2 migrations follow nothing"):
        History.read(made.workspace)
    rebase(made.workspace, [], "bbbb")
    assert order(made) == ["0001_step_1.yaml", "0002_other.yaml"]


def test_with_three_heads_one_says_behind_which(tmp_path: Path) -> None:
    made, entry = forked(tmp_path, tokens("<ours>"), tokens("<theirs>"))
    add(tmp_path, "0002_third.yaml", "cccccccccccc", made.revisions[0], **tokens("<third>"))
    with pytest.raises(HistoryError, match="several heads"):
        rebase(made.workspace, [entry], "bbbb")


def test_a_branch_that_cannot_be_applied_is_reported_and_the_order_resolved_all_the_same(tmp_path: Path) -> None:
    made, entry = forked(tmp_path, tokens("<same>"), tokens("<same>"))
    done = rebase(made.workspace, [entry], "bbbb")
    assert done.shared == ("the token '<same>'",)
    assert any("'<same>' exists already" in note for note in done.relocked.notes)
    validate(made.workspace)


CONFLICTS: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
    ({"add_tokens": ["<a>"]}, {"add_tokens": ["<b>", "<a>"]}, "the token '<a>'"),
    ({"add_role_tokens": "chatml"}, {"set_chat_template": "{{ x }}"}, "the chat template"),
    ({"add_role_tokens": "chatml"}, {"set_special_tokens": {"eos": "</s>"}}, "the eos token"),
    ({"set_padding": {"side": "left"}}, {"set_padding": {"side": "right"}}, "padding"),
    ({"set_normalizer": "NFC"}, {"set_normalizer": "NFKC"}, "the normalizer"),
    ({"rename_tokens": {"tokens": {"in": "im"}}}, {"set_special_tokens": {"sep": "in"}}, "the token 'in'"),
    (
        {"add_tokens": {"tokens": [{"content": "<x>", "init": {"strategy": "copy", "token": "on"}}]}},
        {"reinit_tokens": "on"},
        "the token 'on'",
    ),
    ({"set_init": {"strategy": "zeros"}}, {"add_tokens": ["<x>"]}, "the default init of new rows"),
    (
        {"move_tokens": {"tokens": {"on": 300}}},
        {"remove_tokens": {"tokens": ["re"], "ids": "compact", "acknowledge": "breaking"}},
        "the ids of all tokens",
    ),
    ({"move_tokens": {"tokens": {"on": 300}}}, {"move_tokens": {"tokens": {"re": 300}}}, "id 300"),
    ({"resize_vocab": {"multiple_of": 8}}, {"resize_vocab": {"multiple_of": 64}}, "the number of rows"),
    ({"set_truncation": 12}, {"set_truncation": "off"}, "truncation"),
)


@pytest.mark.parametrize(("ours", "theirs", "shared"), CONFLICTS, ids=[shared for _, _, shared in CONFLICTS])
def test_rebase_names_what_both_branches_change(
    tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], shared: str
) -> None:
    made, _ = forked(tmp_path, {"operations": [ours]}, {"operations": [theirs]})
    assert shared in rebase(made.workspace, [], "bbbb").shared


def test_rebase_of_what_has_nothing_in_common(tmp_path: Path) -> None:
    made, entry = forked(
        tmp_path, tokens("<ours>"), {"operations": [{"set_padding": {"token": "</s>", "side": "left"}}]}
    )
    done = rebase(made.workspace, [entry], "bbbb")
    assert (len(done.moved), done.shared) == (1, ())
    assert len(validate(made.workspace).chain) == 3
    upgrade(made.workspace, entry)


def test_the_footprint_of_a_python_migration_is_not_known(tmp_path: Path) -> None:
    made, entry = forked(tmp_path, tokens("<ours>"), tokens("<theirs>"))
    (tmp_path / "migrations" / "0002_theirs.yaml").unlink()
    text = python_text("aaaaaaaaaaaa", made.revisions[0], "Theirs")
    (tmp_path / "migrations" / "0002_theirs.py").write_text(text, "utf-8")
    (unknown,) = rebase(made.workspace, [entry], "aaaa").shared
    assert "Python migration" in unknown
    moved = (tmp_path / "migrations" / "0003_theirs.py").read_text("utf-8")
    assert moved == text.replace(made.revisions[0], "bbbbbbbbbbbb")


def test_every_operation_of_the_package_says_what_it_reads_and_writes() -> None:
    from tokmigrate.operations.registry import BUILT_IN

    part = {"type": "Lowercase"}
    fields: dict[str, dict[str, Any]] = {
        "add_tokens": {"tokens": ["<a>"]},
        "add_role_tokens": {"preset": "chatml"},
        "set_init": {"init": {"strategy": "mean"}},
        "rename_tokens": {"tokens": {"a": "b"}},
        "reinit_tokens": {"tokens": ["a"]},
        "set_token_flags": {"tokens": ["a"]},
        "move_tokens": {"tokens": {"a": 1}},
        "remove_tokens": {"tokens": ["a"], "ids": "compact", "acknowledge": "breaking"},
        "set_special_tokens": {"eos": "a"},
        "extend_vocab": {"merges": ["a b"]},
        "add_words": {"words": ["a"]},
        **{f"set_{name}": {name: part} for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder")},
    }
    for kind in BUILT_IN:
        if kind.name == "transplant":
            # It writes everything: no branch beside it is independent.
            continue
        operation = kind.model_validate(fields.get(kind.name, {}))
        footprint = operation.footprint()
        assert footprint is not None, kind.name
        assert footprint.writes, kind.name
        assert operation.token_changes() is not None, kind.name


def test_lock_after_an_edit(place: Workspace) -> None:
    made = making.Made(place.root, ())
    update_lock(made.workspace, [made.entry("demo")], None)
    upgrade(made.workspace, made.entry("demo"), "+1")
    for number, code in ((3, 0), (1, 4)):
        file = place.migration(number)
        text = file.read_text("utf-8")
        file.write_text(text.replace("<|pad|>", "<|fill|>").replace("strategy: mean", "strategy: zeros"), "utf-8")
        told = place.run("lock")
        assert told.returncode == code, told.stderr
        if number == 3:
            assert "changed c07d18e2b9f4" in told.stdout
            assert '"<|fill|>" id 1026' in told.stdout
            assert len(validate(made.workspace).chain) == 3


def test_a_model_that_is_not_here_still_has_its_migrations(tmp_path: Path) -> None:
    made, entry = forked(tmp_path, tokens("<ours>"), tokens("<theirs>"))
    (tmp_path / "migrations" / "0002_ours.yaml").unlink()
    update_lock(made.workspace, [entry], None)
    upgrade(made.workspace, entry)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    add(tmp_path, "0002_ours.yaml", "bbbbbbbbbbbb", made.revisions[0], **tokens("<ours>"))
    with pytest.raises(HistoryError, match=r"m \(not here now\) has it"):
        rebase(made.workspace, [], "aaaa")


def test_branches_with_the_same_footprint_are_reported_from_the_history(tmp_path: Path) -> None:
    made, _ = forked(tmp_path, tokens("<a>", "<b>"), tokens("<b>", "<c>"))
    first, theirs, ours = sorted(History.read(made.workspace).migrations, key=lambda each: each.revision)
    assert find_conflicts([ours], [theirs]) == ("the token '<b>'",)
    assert find_conflicts([ours], [first]) == ()
