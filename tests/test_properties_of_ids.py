"""Properties of random chains in which tokens come, go, move and get other names: each keeps the row that it had."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import making
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_properties import folder, staged_down, staged_up, thorough
from tokenizers import Tokenizer
from workspaces import contents, image

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.plan import plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.vocabulary.ids import tombstone

MAKERS: Mapping[str, Callable[..., Path]] = {
    "llama": making.llama,
    "bart": making.bart,
    "mllama": making.mllama,
    "per_layer": making.per_layer,
    "tailed": making.tailed,
    "routed": making.routed,
}
WORDS = ("Ġthe", "Ġof", "ing", "in", "er", "re")
INIT = {"input": {"strategy": "average", "tokens": ["Ġa", "Ġin"]}, "table": {"strategy": "copy", "token": "Ġa"}}


@dataclass
class Story:
    """A chain while it is drawn, with the changes of each token.

    Args:
        kind: The model that it is for.
        origin: By token the id that its row had at the baseline, None for a row that a migration began.
        ids: By token its id now.
        size: The size of the vocabulary now.
    """

    kind: str
    spare: int
    origin: dict[str, int | None] = field(init=False)
    ids: dict[str, int] = field(init=False)
    size: int = field(init=False)
    number: int = 0

    def __post_init__(self) -> None:
        specials = (making.BOS, making.EOS, making.IMAGE) if self.has_image else (making.BOS, making.EOS)
        document = making.tokenizer_json(specials)
        self.ids = {**document["model"]["vocab"]} | {
            entry["content"]: entry["id"] for entry in document["added_tokens"]
        }
        self.origin = dict(self.ids)
        self.size = making.TOKENS + self.spare

    @property
    def has_image(self) -> bool:
        """Whether an id behind the vocabulary has a token."""
        return self.kind == "mllama" and not self.spare

    @property
    def mine(self) -> list[str]:
        """The tokens that migrations added."""
        return [token for token in self.ids if token.startswith("<t")]

    def fresh(self) -> str:
        self.number += 1
        return f"<t{self.number}>"

    def operation(self, draw: st.DrawFn) -> dict[str, Any]:
        """Draw an operation that can be done, and take down what comes of it."""
        names = ["add", "add", "move", "reinit", "resize"]
        names += ["rename", "tombstone"] if self.mine else []
        names += ["compact"] if self.mine else []
        found: dict[str, Any] = getattr(self, "_" + draw(st.sampled_from(names)))(draw)
        return found

    def _add(self, draw: st.DrawFn) -> dict[str, Any]:
        tokens = [self.fresh() for _ in range(draw(st.integers(1, 3)))]
        for token in tokens:
            self.ids[token] = max(self.ids.values()) + 1
            self.origin[token] = None
        self.size = max(self.size, max(self.ids.values()) + 1)
        return {"add_tokens": {"tokens": [{"content": token, "special": True} for token in tokens], "init": INIT}}

    def _rename(self, draw: st.DrawFn) -> dict[str, Any]:
        old, new = draw(st.sampled_from(self.mine)), self.fresh()
        self.ids = {new if token == old else token: number for token, number in self.ids.items()}
        self.origin = {new if token == old else token: row for token, row in self.origin.items()}
        return {"rename_tokens": {"tokens": {old: new}}}

    def _move(self, draw: st.DrawFn) -> dict[str, Any]:
        # Where a tensor has no rows for the last ids, no token may get in or out.
        movable = [*WORDS] if self.kind == "per_layer" else [*WORDS, *self.mine]
        one, other = draw(st.lists(st.sampled_from(movable), min_size=2, max_size=2, unique=True))
        self.ids[one], self.ids[other] = self.ids[other], self.ids[one]
        return {"move_tokens": {"acknowledge": "breaking", "tokens": {one: self.ids[one], other: self.ids[other]}}}

    def _reinit(self, draw: st.DrawFn) -> dict[str, Any]:
        token = draw(st.sampled_from([*WORDS, *self.mine]))
        self.origin[token] = None
        return {"reinit_tokens": {"acknowledge": "breaking", "tokens": [token], "init": INIT}}

    def _resize(self, draw: st.DrawFn) -> dict[str, Any]:
        self.size = max(self.ids.values()) + 1 + draw(st.integers(0, 5))
        return {"resize_vocab": {"rows": self.size, "init": INIT}}

    def _tombstone(self, draw: st.DrawFn) -> dict[str, Any]:
        gone = draw(st.sampled_from(self.mine))
        number = self.ids.pop(gone)
        self.ids[tombstone(number)] = number
        self.origin[tombstone(number)] = self.origin.pop(gone)
        return {"remove_tokens": {"tokens": [gone], "ids": "tombstone", "acknowledge": "breaking"}}

    def _compact(self, draw: st.DrawFn) -> dict[str, Any]:
        gone = draw(st.sampled_from(self.mine))
        shrink = draw(st.booleans())
        number = self.ids.pop(gone)
        del self.origin[gone]
        # An id that is not predicted goes along where its place moves.
        end = self.size if not shrink else max(self.ids.values()) + 1
        self.ids = {token: held - (number < held < end) for token, held in self.ids.items()}
        self.size -= shrink
        content = {"tokens": [gone], "ids": "compact", "acknowledge": "breaking", "shrink": shrink, "init": INIT}
        return {"remove_tokens": content}


@dataclass(frozen=True)
class Moment:
    """What must hold after a migration."""

    ids: dict[str, int] = field(repr=False)
    origin: dict[str, int | None] = field(repr=False)
    size: int


@st.composite
def stories(draw: st.DrawFn) -> tuple[str, int, int, list[dict[str, Any]], list[Moment]]:
    kind, spare = draw(st.sampled_from(sorted(MAKERS))), draw(st.sampled_from([0, 0, 3]))
    story = Story(kind, spare)
    migrations, moments = [], []
    for _ in range(draw(st.integers(2, 4))):
        migrations.append({"operations": [story.operation(draw) for _ in range(draw(st.integers(1, 3)))]})
        moments.append(Moment(dict(story.ids), dict(story.origin), story.size))
    return kind, spare, draw(st.integers(1, 2)), migrations, moments


def check(directory: Path, base: making.Tensors, moment: Moment, axes: dict[str, int]) -> None:
    """Assert ids, sizes, and that every row which no migration began is the one that its token had at first."""
    library = Tokenizer.from_file(str(directory / "tokenizer.json"))
    differing = set(library.get_vocab(with_added_tokens=True).items()) ^ set(moment.ids.items())
    assert not differing
    kept = {moment.ids[token]: row for token, row in moment.origin.items() if row is not None}
    for name, tensor in making.tensors_of(directory).items():
        axis, was = axes[name], base[name]
        both = [(new, old) for new, old in kept.items() if old < was.shape[axis] and new < tensor.shape[axis]]
        new, old = (torch.tensor(side) for side in zip(*both, strict=True))
        assert torch.equal(tensor.index_select(axis, new), was.index_select(axis, old)), name
    assert json.loads((directory / "config.json").read_text("utf-8"))["vocab_size"] == moment.size


@thorough(60)
@given(stories())
def test_each_token_keeps_its_row_and_every_byte_comes_back(
    story: tuple[str, int, int, list[dict[str, Any]], list[Moment]],
) -> None:
    kind, spare, shards, migrations, moments = story
    with folder() as root:
        MAKERS[kind](root / "model", shards=shards, spare=spare)
        made = making.workspace(root, {"model": root / "model"}, migrations)
        place, entry = made.workspace, made.entry("model")
        base, tensors = image(root / "model"), making.tensors_of(root / "model")
        axes = dict.fromkeys(tensors, 0) | {tensor.name: tensor.axis for tensor in take_snapshot(entry).tensors}
        at, undo = entry, []
        for number, moment in enumerate(moments, 1):
            at, records = staged_up(place, at, "+1", root / f"step {number}")
            check(at.path, tensors, moment, axes)
            undo = [*records, *undo]
        fused, fused_undo = staged_up(place, entry, "head", root / "fused")
        assert contents(fused.path) == contents(at.path)
        assert image(staged_down(place, fused, fused_undo, root / "back").path) == base
        assert image(staged_down(place, at, undo, root / "back stepwise").path) == base


@pytest.mark.parametrize("rows", [[283], [287, 282], [281, 290, 283]])
def test_rows_that_the_output_side_alone_loses_come_back(tmp_path: Path, rows: list[int]) -> None:
    making.mllama(tmp_path / "model", spare=3)
    migrations = [{"operations": [{"resize_vocab": {"rows": each}}]} for each in rows]
    made = making.workspace(tmp_path, {"model": tmp_path / "model"}, migrations)
    entry, base = made.entry("model"), image(tmp_path / "model")
    upgrade(made.workspace, entry)
    tensors = making.tensors_of(tmp_path / "model")
    assert [len(tensors[name]) for name in ("lm_head.weight", "model.embed_tokens.weight")] == [rows[-1], rows[-1] + 8]
    downgrade(made.workspace, entry, "base")
    assert image(tmp_path / "model") == base


def test_a_plan_counts_rows_that_the_output_side_alone_loses(tmp_path: Path) -> None:
    making.mllama(tmp_path / "model", spare=3)
    made = making.workspace(
        tmp_path, {"model": tmp_path / "model"}, [{"operations": [{"resize_vocab": {"rows": 283}}]}]
    )
    planned = plan(made.workspace, made.entry("model"), "head")
    # The last input row, and the last output row, which is of another id.
    assert planned.bytes_of_lost_rows == sum(tensor.row_bytes for tensor in planned.snapshot.tensors)
