"""`tokmigrate test`: migrations are tried on a dummy model, which has all of a model that a migration looks at."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import making
import pytest
import torch
from safetensors.torch import save_file
from workspaces import Workspace, contents

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.roundtrip import RoundTrip, run_roundtrip
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import OperationError
from tokmigrate.model.dummy_model import make_dummy_model
from tokmigrate.model.formats.safetensors_header import BLOCK_BYTES, read_header
from tokmigrate.model.snapshot import take_snapshot

ADD = {"operations": [{"add_tokens": {"tokens": [{"content": "<new>", "init": {"strategy": "mean_cov"}}]}}]}
GROW = {"operations": [{"resize_vocab": {"multiple_of": 64}}, {"set_padding": {"token": "<new>", "side": "left"}}]}
STEPS = [ADD, GROW]
MAKERS: dict[str, Callable[[Path], Path]] = {
    "tied": lambda path: making.llama(path, dtype="bfloat16", head="tied", shards=1, spare=3),
    "untied": lambda path: making.llama(path, dtype="float16", head="untied", shards=2, spare=0),
    "stored twice": lambda path: making.llama(path, dtype="float32", head="stored twice", shards=2, spare=1),
    "phi": making.phi,
    "bert": making.bert,
    "bart": making.bart,
    "mllama": making.mllama,
    "per layer": making.per_layer,
    "tailed": making.tailed,
    "routed": making.routed,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_dummy_model_has_all_that_migrations_look_at(kind: str, tmp_path: Path) -> None:
    made = making.workspace(tmp_path, {"m": MAKERS[kind](tmp_path / "m")}, [])
    entry = made.entry("m")
    snapshot = take_snapshot(entry)
    found = take_snapshot(make_dummy_model(entry, snapshot, tmp_path / "s", snapshot.texts, snapshot.state.rows))
    assert found.state == snapshot.state
    assert found.texts == snapshot.texts
    narrowed = [
        replace(tensor, shape=other.shape) for tensor, other in zip(snapshot.tensors, found.tensors, strict=True)
    ]
    assert list(found.tensors) == narrowed
    for tensor, other in zip(snapshot.tensors, found.tensors, strict=True):
        assert other.shape[tensor.axis] == tensor.shape[tensor.axis]
        assert other.width <= 4


@pytest.mark.parametrize("kind", ["stored twice", "bart"])
def test_it_passes_and_touches_nothing(kind: str, tmp_path: Path) -> None:
    made = making.workspace(tmp_path, {"m": MAKERS[kind](tmp_path / "m")}, STEPS)
    before = contents(tmp_path)
    done = run_roundtrip(made.workspace, made.entry("m"))
    assert (done.from_revision, [each.revision for each in done.migrations]) == (None, list(made.revisions))
    assert done.mismatches == ()
    assert done.files == len(list((tmp_path / "m").iterdir()))
    assert contents(tmp_path) == before


def test_it_begins_where_the_model_is(tmp_path: Path) -> None:
    made = making.workspace(tmp_path, {"m": MAKERS["untied"](tmp_path / "m")}, STEPS)
    entry, (first, last) = made.entry("m"), made.revisions

    def tried(**options: bool) -> RoundTrip:
        return run_roundtrip(made.workspace, entry, **options)

    upgrade(made.workspace, entry, first)
    pending = tried()
    assert (pending.from_revision, [each.revision for each in pending.migrations], pending.mismatches) == (
        first,
        [last],
        (),
    )
    upgrade(made.workspace, entry, last)
    assert tried().migrations == ()
    every = tried(from_base=True)
    assert (every.from_revision, len(every.migrations), every.mismatches) == (None, 2, ())
    downgrade(made.workspace, entry, "base")


def test_a_row_that_is_read_from_a_file_fits(tmp_path: Path) -> None:
    init = {"strategy": "file", "path": "rows.safetensors"}
    step = {"operations": [{"add_tokens": {"tokens": [{"content": "<new>", "init": init}]}}]}
    made = making.workspace(tmp_path, {"m": MAKERS["tied"](tmp_path / "m")}, [])
    save_file({"<new>": torch.ones(making.HIDDEN)}, tmp_path / "migrations" / "rows.safetensors")
    made = making.workspace(tmp_path, {"m": tmp_path / "m"}, [step])
    assert run_roundtrip(made.workspace, made.entry("m")).mismatches == ()


def test_what_cannot_be_applied_is_reported_as_by_plan(tmp_path: Path) -> None:
    step = {"operations": [{"remove_tokens": {"tokens": ["<no>"], "ids": "compact", "acknowledge": "breaking"}}]}
    made = making.workspace(tmp_path, {"m": MAKERS["tied"](tmp_path / "m")}, [step])
    with pytest.raises(OperationError, match="<no>"):
        run_roundtrip(made.workspace, made.entry("m"))


def test_a_model_of_any_size_is_tried_by_its_headers(tmp_path: Path) -> None:
    made = making.workspace(tmp_path, {"m": MAKERS["untied"](tmp_path / "m")}, STEPS)
    large = tmp_path / "m" / "model-00001-of-00002.safetensors"
    header = read_header(large)
    name = next(entry.name for entry in header.entries if "embed" not in entry.name and "lm_head" not in entry.name)
    # Twenty gigabytes with nothing in them.
    shape = (10**5, 10**5)
    raw = header.reshape({name: shape}, header.data_start % BLOCK_BYTES).raw
    with large.open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + header.data_size - len(header.entry(name)) + 2 * 10**10)
    done = run_roundtrip(made.workspace, made.entry("m"))
    assert done.mismatches == ()
    assert done.bytes < 10**6


UNSTEADY = """
revision = "d15ea5e00001"
down_revision = "c07d18e2b9f4"
message = "Another name each time"


def upgrade(op):
    import os

    op.add_tokens(tokens=[{"content": "<" + os.urandom(8).hex() + ">", "special": True}])
"""


def test_the_command_says_what_it_proved(place: Workspace) -> None:
    before = contents(place.root)
    said = place.run("test")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("demo: 3 migrations from base on passed, on a dummy model of 7 files, ")
    assert "the same bytes each time" in said.stdout
    assert contents(place.root) == before


def test_a_migration_that_is_another_each_time_fails(place: Workspace) -> None:
    (place.root / "migrations" / "0004_unsteady.py").write_text(UNSTEADY, "utf-8")
    said = place.run("test", "--json")
    assert said.returncode == 1
    (found,) = json.loads(said.stdout)["models"]
    assert found["passed"] is False
    mismatch = {"file": "tokenizer.json", "after": "up one by one", "expected": "up in one run"}
    assert mismatch in found["mismatches"]
