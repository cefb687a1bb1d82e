"""What the lock pins for real tokenizers is what the library gives after an upgrade, squashed or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared_models import SharedModel, shared_model

from tokmigrate.commands.lock import update_lock
from tokmigrate.commands.squash import squash
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.revision.lock_file import Lock, validate

NAMES = ("bert-base-uncased", "mistral-chat", "oromo-t5")
OPERATIONS = (
    "- add_tokens:\n"
    '    - "<|tool|>"\n'
    '    - {content: "<|thought|>", special: true, init: {strategy: description, text: a thought}}',
    '- add_tokens: {tokens: ["<|critic|>"], init: {strategy: average, tokens: {"<|tool|>": 1, "<|thought|>": 3}}}\n'
    '- rename_tokens: {tokens: {"<|tool|>": "<|call|>"}}',
    "- resize_vocab: {multiple_of: 64}\n- set_normalizer: NFKC",
)


def pinned(lock: Lock) -> dict[str, int]:
    """Return the last id that is pinned to each text."""
    (track,) = lock.tracks
    return {token: number for pinned in track.pins for number, token in pinned.new_ids}


def ids(model: SharedModel, tokens: dict[str, int]) -> dict[str, int | None]:
    """Return the ids that the library gives to tokens."""
    library = model.library()
    return {token: library.token_to_id(token) for token in tokens}


@pytest.mark.parametrize("name", NAMES)
def test_the_library_gives_the_ids_that_are_promised(tmp_path: Path, name: str) -> None:
    model = shared_model(tmp_path, name)
    before = model.library().get_vocab(with_added_tokens=True)
    for operations in OPERATIONS:
        model.write(operations)
    lock = update_lock(model.workspace, [model.entry], None).after
    texts = pinned(lock)
    assert not texts.keys() & before.keys()
    done = squash(model.workspace, [model.entry], "1", "2")
    assert done.lock is not None
    assert pinned(done.lock) == {token: number for token, number in texts.items() if token != "<|tool|>"}
    validate(model.workspace)
    assert upgrade(model.workspace, model.entry).plan.remarks == ()
    assert ids(model, pinned(done.lock)) == pinned(done.lock)
    assert texts["<|call|>"] == texts["<|tool|>"]
    assert done.lock.tracks[0].pins[-1].fingerprint == lock.tracks[0].pins[-1].fingerprint
