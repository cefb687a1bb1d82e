"""What the ledger says of tokens: which one, its old and its new id, migration by migration, up and down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from making import TOKENS, Made, llama, workspace
from test_real_tokenizers import library

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.state.rows import TokenEventType

Told = tuple[str, TokenEventType, str, int | None, int | None]
"""A revision, what happened, a token, its id afterwards and before."""


def told(made: Made) -> list[Told]:
    """Return the events of the ledger, in its order."""
    return [(e.revision, e.event, e.token, e.token_id, e.old_id) for e in made.events()]


def ids_of(model: Path) -> dict[str, int]:
    return dict(library(model).get_vocab(with_added_tokens=True))


def migrated(root: Path, model: Path, *steps: dict[str, Any]) -> Made:
    return workspace(root, {"m": model}, [{"operations": [step]} for step in steps])


def removing(*tokens: str, ids: str) -> dict[str, Any]:
    return {"remove_tokens": {"tokens": list(tokens), "ids": ids, "acknowledge": "breaking"}}


def test_moved_and_removed_tokens(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", spare=2)
    ids = ids_of(model)
    the, ing, last = ids["the"], ids["ing"], TOKENS - 1
    assert the < ing < ids["<s>"] == last - 1
    made = migrated(
        tmp_path / "w",
        model,
        {"move_tokens": {"acknowledge": "breaking", "tokens": {"the": ing, "ing": the}}},
        removing("ing", ids="compact"),
        removing("Ġand", ids="tombstone"),
        {"rename_tokens": {"tokens": {"<s>": "<b>"}}},
    )
    first, second, third, fourth = made.revisions
    upgrade(made.workspace, made.entry("m"))
    found = told(made)
    assert sorted(one for one in found if one[0] == first) == [
        (first, TokenEventType.MOVED, "ing", the, ing),
        (first, TokenEventType.MOVED, "the", ing, the),
    ]
    after_first = {**ids, "the": ing, "ing": the}
    closed_up = {token: number - 1 for token, number in after_first.items() if number > the}
    moved = [(second, TokenEventType.MOVED, token, number, number + 1) for token, number in closed_up.items()]
    expected = [*moved, (second, TokenEventType.REMOVED, "ing", None, the)]
    assert sorted(one for one in found if one[0] == second) == sorted(expected)
    assert [one for one in found if one[0] == third] == [(third, TokenEventType.REMOVED, "Ġand", None, ids["Ġand"] - 1)]
    assert [one for one in found if one[0] == fourth] == [(fourth, TokenEventType.RENAMED, "<b>", last - 2, last - 2)]

    downgrade(made.workspace, made.entry("m"), second)
    back = told(made)[len(found) :]
    assert back == [
        (fourth, TokenEventType.REVERTED, "<s>", last - 2, last - 2),
        (third, TokenEventType.REVERTED, "Ġand", ids["Ġand"] - 1, None),
    ]
    assert made.events()[len(found)].old_token == "<b>"
    downgrade(made.workspace, made.entry("m"), "base")
    back = told(made)[len(found) + 2 :]
    assert sorted(one for one in back if one[0] == second) == sorted(
        (second, TokenEventType.REVERTED, token, number, now) for _, _, token, now, number in expected
    )
    assert sorted(one for one in back if one[0] == first) == [
        (first, TokenEventType.REVERTED, "ing", ing, the),
        (first, TokenEventType.REVERTED, "the", the, ing),
    ]
    # What is applied a second time is recorded, and reverted, once more.
    upgrade(made.workspace, made.entry("m"), first)
    downgrade(made.workspace, made.entry("m"), "base")
    assert [one[1] for one in told(made)[-4:]] == [
        TokenEventType.MOVED,
        TokenEventType.MOVED,
        TokenEventType.REVERTED,
        TokenEventType.REVERTED,
    ]


def test_a_token_that_takes_the_row_of_another_is_not_a_new_text_of_it(tmp_path: Path) -> None:
    steps = [{"add_tokens": ["<old>"]}], [removing("<old>", ids="compact"), {"add_tokens": ["<new>"]}]
    made = workspace(tmp_path / "w", {"m": llama(tmp_path / "m")}, [{"operations": each} for each in steps])
    upgrade(made.workspace, made.entry("m"))
    assert [(event, token) for _, event, token, _, _ in told(made)] == [
        (TokenEventType.ADDED, "<old>"),
        (TokenEventType.ADDED, "<new>"),
        (TokenEventType.REMOVED, "<old>"),
    ]


def test_rows_that_are_initialised_again_are_reported_on_the_downgrade(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", spare=2)
    number = ids_of(model)["the"]
    made = migrated(
        tmp_path / "w",
        model,
        {"reinit_tokens": {"acknowledge": "breaking", "tokens": "the"}},
        {"add_tokens": {"tokens": ["<new>"]}},
    )
    upgrade(made.workspace, made.entry("m"))
    downgrade(made.workspace, made.entry("m"), "base")
    first, second = made.revisions
    assert told(made)[-2:] == [
        (second, TokenEventType.REVERTED, "<new>", None, TOKENS),
        (first, TokenEventType.REVERTED, "the", number, number),
    ]


def test_tokens_behind_a_hole_have_the_ids_that_every_version_of_the_library_gives(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", spare=3)
    made = migrated(
        tmp_path / "w",
        model,
        {"move_tokens": {"acknowledge": "breaking", "tokens": {"Ġand": TOKENS}}},
        {"add_tokens": {"tokens": ["<x>", "<y>"]}},
    )
    upgrade(made.workspace, made.entry("m"))
    ids = ids_of(model)
    assert (ids["<x>"], ids["<y>"]) == (TOKENS + 1, TOKENS + 2)
    document = json.loads((model / "tokenizer.json").read_text("utf-8"))
    # Versions differ in the ids that they give to tokens outside the vocabulary, when one inside has a higher id.
    assert {"<x>", "<y>"} <= document["model"]["vocab"].keys()


@given(st.randoms(use_true_random=False))
@settings(max_examples=6, deadline=None)
def test_the_events_lead_from_each_vocabulary_to_the_next(tmp_path_factory: Any, draw: Any) -> None:
    root = tmp_path_factory.mktemp("events")
    model = llama(root / "m", spare=3)
    before = ids_of(model)
    merges = json.loads((model / "tokenizer.json").read_text("utf-8"))["model"]["merges"]
    parts = {part for merge in merges for part in (merge if isinstance(merge, list) else merge.split(" "))}
    words = draw.sample(
        [token for token in before if token.startswith("Ġ") and len(token) > 2 and token not in parts], 2
    )
    number = draw.choice([before["<s>"], TOKENS])
    moving = {words[0]: number} | ({"<s>": before[words[0]]} if number == before["<s>"] else {})
    steps = [
        removing(words[1], ids=draw.choice(["compact", "tombstone"])),
        {"rename_tokens": {"tokens": {"</s>": "<e>"}}},
        {"add_tokens": {"tokens": ["<x>", "<y>"]}},
    ]
    draw.shuffle(steps)
    steps.insert(0, {"move_tokens": {"acknowledge": "breaking", "tokens": moving}})
    made = migrated(root / "w", model, *steps)
    vocabularies = [before]
    for revision in made.revisions:
        upgrade(made.workspace, made.entry("m"), revision)
        vocabularies.append(ids_of(model))
        held = dict(vocabularies[-2])
        for event in made.events():
            if event.revision == revision:
                held.pop(event.old_token or event.token, None)
        held |= {e.token: e.token_id for e in made.events() if e.revision == revision and e.token_id is not None}
        placeholders = {token for token in vocabularies[-1] if token.startswith("<|removed_")}
        assert held == {token: at for token, at in vocabularies[-1].items() if token not in placeholders - set(held)}
    seen = len(made.events())
    for revision, wanted in zip([*made.revisions[-2::-1], "base"], reversed(vocabularies[:-1]), strict=True):
        held = ids_of(model)
        downgrade(made.workspace, made.entry("m"), revision)
        back = made.events()[seen:]
        seen += len(back)
        assert {event.event for event in back} == {TokenEventType.REVERTED}
        for event in back:
            held.pop(event.old_token or event.token, None)
        held |= {event.token: event.token_id for event in back if event.token_id is not None}
        assert {token: at for token, at in held.items() if not token.startswith("<|removed_")} == {
            token: at for token, at in wanted.items() if not token.startswith("<|removed_")
        }
