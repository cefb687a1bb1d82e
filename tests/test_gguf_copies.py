"""A GGUF that follows its model: as if the model were converted again, in one transaction, and back to the bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import gguf
import making
import numpy as np
import pytest
from dying import dying_at, exit_code
from gguf_files import KINDS, convert, quantized, tensors, values
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_crash import seccomp_works, without_swap
from test_filesystem import in_namespace, mount_image
from test_slow_tokenizer_files import model_with_pieces
from workspaces import FileImage, Workspace, image, make_workspace

from tokmigrate.apply.publish import RecoveryOutcome
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.plan import bind_plan, plan
from tokmigrate.commands.roundtrip import run_roundtrip
from tokmigrate.commands.session import recover_model
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import (
    DriftError,
    FileProblems,
    ModelError,
    OperationError,
    OutOfStepError,
    RecoveryNeededError,
    StalePlanError,
    StorageError,
    TokmigrateError,
    UndoError,
    UnexplainedTensorError,
    WeightsError,
)
from tokmigrate.events import Event, Step, StepReached
from tokmigrate.files import refuse_fixed
from tokmigrate.model.formats.gguf import Head, Kind, TensorInfo, Value
from tokmigrate.model.formats.gguf_reading import read_head
from tokmigrate.model.gguf_rows import encode_row
from tokmigrate.settings import ModelEntry, read_workspace

VOCABULARY: Mapping[str, int] = making.tokenizer_json()["model"]["vocab"]
ADD = {"add_tokens": {"tokens": ["<first>", {"content": "<|second|>", "special": True}, "x\u2581y"]}}
SWAP = {"move_tokens": {"acknowledge": "breaking", "tokens": {"Ġthe": VOCABULARY["Ġof"], "Ġof": VOCABULARY["Ġthe"]}}}


def list_copy(file: Path, name: str, path: str, *copies: str) -> None:
    listed = ", ".join(f"{{path: {copy}, follow: true}}" for copy in copies)
    model = f"  {name}:\n    path: {path}\n    copies: [{listed}]\n"
    file.write_text(f"format: 1\nverify: fast\nmodels:\n{model}", "utf-8")


def stored(path: Path) -> FileImage:
    return image(path.parent)[path.name]


def check_converted_again(model: Path, path: Path, kind: str, alignment: int | None = None) -> None:
    """Check that a GGUF holds what a conversion of its model as it is now gives, and that it is in no other order."""
    again = convert(model, path.with_name("again.gguf"), kind, alignment=alignment)
    assert values(path) == values(again)
    assert tensors(path) == tensors(again)
    again.unlink()


@dataclass(frozen=True)
class Pair:
    """A model `m` with a GGUF in a workspace."""

    root: Path
    kind: str = "F16"

    @property
    def model(self) -> Path:
        return self.root / "m"

    @property
    def gguf(self) -> Path:
        return self.root / "m.gguf"

    @property
    def entry(self) -> ModelEntry:
        return read_workspace(self.root / "tokmigrate.yaml").models["m"]

    def upgrade(self, to: str = "head") -> None:
        upgrade(read_workspace(self.root / "tokmigrate.yaml"), self.entry, to)

    def downgrade(self, to: str = "base") -> None:
        downgrade(read_workspace(self.root / "tokmigrate.yaml"), self.entry, to)


def check_up_and_down(made: Pair) -> None:
    """Check that a GGUF follows its model up, and comes back to the bytes."""
    before = stored(made.gguf)
    made.upgrade()
    check_converted_again(made.model, made.gguf, made.kind)
    made.downgrade()
    assert stored(made.gguf) == before


def make_llama(directory: Path, **how: Any) -> None:
    making.llama(directory, **{"spare": 4, "dtype": "bfloat16", **how})


def pair(
    root: Path,
    *operations: dict[str, Any],
    kind: str = "F16",
    make: Callable[..., object] = make_llama,
    **how: Any,
) -> Pair:
    made = Pair(root, kind)
    make(made.model, **how)
    making.workspace(root, {"m": made.model}, [{"operations": [each]} for each in operations])
    list_copy(root / "tokmigrate.yaml", "m", "m", "m.gguf")
    convert(made.model, made.gguf, kind)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_gguf_follows_its_model_and_comes_back_to_the_bytes(tmp_path: Path, kind: str) -> None:
    place = make_workspace(tmp_path / "w")
    path = convert(place.model, place.model.with_suffix(".gguf"), kind)
    path.chmod(0o640)
    before = stored(path)
    list_copy(place.settings, "demo", "models/demo", "models/demo.gguf")

    planned = place.asked("plan")["models"][0]
    place.asked("upgrade")
    fused = path.read_bytes()
    assert planned["copies"] == [{"path": str(path), "bytes": len(fused)}]
    assert planned["bytes_to_write"] == sum(file["bytes"] for file in planned["files"]) + len(fused)
    check_converted_again(place.model, path, kind)
    assert gguf.GGUFReader(path).fields["tokmigrate.revision"].contents() == "c07d18e2b9f4"
    assert stored(path).mode == before.mode
    assert place.run("check", "--copies").returncode == 0

    place.asked("downgrade", "base")
    assert stored(path) == before
    assert place.run("check", "--copies").returncode == 3
    assert place.asked("status")["models"][0]["copies"][0]["state"] == "current"
    if kind != "Q8_0":
        return
    for _ in range(3):
        place.asked("upgrade", "+1")
    assert path.read_bytes() == fused
    for _ in range(3):
        place.asked("downgrade", "-1")
    assert stored(path) == before
    assert sorted(each.name for each in path.parent.iterdir()) == [
        ".demo.gguf.tokmigrate",
        ".demo.tokmigrate",
        "demo",
        "demo.gguf",
    ]


CHAINS: Mapping[str, list[dict[str, Any]]] = {
    "added, then removed": [
        ADD,
        {"remove_tokens": {"tokens": ["<first>"], "ids": "compact", "acknowledge": "breaking"}},
    ],
    "a token of the vocabulary removed": [
        {"remove_tokens": {"tokens": ["Ġand"], "ids": "compact", "acknowledge": "breaking"}},
        ADD,
    ],
    "held by a placeholder": [
        ADD,
        {"remove_tokens": {"tokens": ["<|second|>"], "ids": "tombstone", "acknowledge": "breaking"}},
    ],
    "moved": [SWAP, ADD, {"resize_vocab": {"multiple_of": 64}}],
    "renamed": [ADD, {"rename_tokens": {"tokens": {"<first>": "<third>"}}}],
    "flags": [ADD, {"set_token_flags": {"tokens": "<first>", "special": True}}],
    "no longer found in normalized text": [
        {"add_tokens": {"tokens": [{"content": "Ġx", "normalized": True}]}},
        {"set_token_flags": {"tokens": "Ġx", "normalized": False}},
    ],
    "initialised again": [ADD, {"reinit_tokens": {"tokens": ["<first>"], "init": {"strategy": "mean"}}}],
    "roles": [ADD, {"set_special_tokens": {"eos": "<|second|>"}}, {"set_padding": {"token": "<|second|>"}}],
    "new merges": [{"extend_vocab": {"merges": [["the", "re"], ["in", "to"]]}}],
}


@pytest.mark.parametrize(("chain", "head"), list(zip(CHAINS, cycle(["tied", "untied"]))))
def test_every_change_of_tokens_and_rows_follows(tmp_path: Path, chain: str, head: str) -> None:
    made = pair(tmp_path, *CHAINS[chain], kind="F32", head=head)
    reached = [stored(made.gguf)]
    for _ in CHAINS[chain]:
        made.upgrade("+1")
        check_converted_again(made.model, made.gguf, "F32")
        reached.append(stored(made.gguf))
    assert stored(made.gguf) == reached.pop()
    while reached:
        made.downgrade("-1")
        assert stored(made.gguf) == reached.pop()


PIECES: Mapping[str, list[dict[str, Any]]] = {
    "added, flags": [ADD, {"set_token_flags": {"tokens": "word", "special": True}}],
    "renamed, padded": [{"rename_tokens": {"tokens": {"word": "other"}}}, {"resize_vocab": {"multiple_of": 64}}],
    "removed": [{"remove_tokens": {"tokens": ["<|a|>"], "ids": "compact", "acknowledge": "breaking"}}, ADD],
    "new pieces": [{"extend_vocab": {"merges": [["t", "n"], ["tn", "t"]]}}],
}


@pytest.mark.parametrize("chain", PIECES)
def test_a_vocabulary_of_pieces_follows_with_its_scores(tmp_path: Path, pieces: Path, chain: str) -> None:
    check_up_and_down(pair(tmp_path, *PIECES[chain], kind="F32", make=model_with_pieces, file=pieces))


def chains() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Draw migrations: tokens are added and removed, the matrix grows, tokens of the vocabulary move."""
    counter = iter(range(10**6))
    count = st.integers(1, 3)
    add = count.map(lambda number: {"add_tokens": {"tokens": [f"<new_{next(counter)}>" for _ in range(number)]}})
    grow = st.integers(0, 2).map(lambda more: {"resize_vocab": {"multiple_of": 16 * (more + 1)}})
    names = st.sampled_from(sorted(token for token in VOCABULARY if len(token) > 2))
    remove = st.tuples(names, st.sampled_from(["compact", "tombstone"])).map(
        lambda drawn: {"remove_tokens": {"tokens": [drawn[0]], "ids": drawn[1], "acknowledge": "breaking"}}
    )
    again = names.map(lambda token: {"reinit_tokens": {"tokens": [token], "acknowledge": "breaking"}})
    return st.lists(st.one_of(add, grow, again), max_size=3).flatmap(
        lambda before: st.lists(st.one_of(add, grow), max_size=2).flatmap(
            lambda after: remove.map(lambda each: [*before, each, *after])
        )
    )


def starts(path: Path) -> list[int]:
    """Return where in a block the tensors of the longest run begin that no migration changes."""
    head = read_head(path)
    found: list[list[tuple[int, int]]] = [[]]
    for each in sorted(head.tensors, key=lambda tensor: tensor.offset):
        if each.name in ("token_embd.weight", "output.weight"):
            found.append([])
        else:
            found[-1].append((len(head.raw) + each.offset, head.spans[each.name]))
    longest = max(found, key=lambda run: sum(size for _, size in run))
    return [start % 4096 for start, _ in longest]


@settings(max_examples=8, deadline=None)
@given(
    chain=chains(),
    kind=st.sampled_from(["F32", "F16", "BF16"]),
    head=st.sampled_from(["tied", "untied"]),
    alignment=st.sampled_from([None, 8, 64, 4096]),
    spare=st.integers(0, 3),
)
def test_random_changes_come_back_to_the_bytes(
    chain: list[dict[str, Any]], kind: str, head: str, alignment: int | None, spare: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = pair(Path(folder), *chain, head=head, spare=spare)
        convert(made.model, made.gguf, kind, alignment=alignment)
        before, old = stored(made.gguf), tensors(made.gguf)
        places = starts(made.gguf)
        made.upgrade()
        # The blocks of what no migration changes can be shared.
        assert starts(made.gguf) == places
        check_converted_again(made.model, made.gguf, kind, alignment=alignment)
        for name, tensor in tensors(made.gguf).items():
            if name not in ("token_embd.weight", "output.weight"):
                assert tensor == old[name]
        made.downgrade()
        assert stored(made.gguf) == before


def test_a_plan_is_stale_where_the_gguf_is_another(tmp_path: Path) -> None:
    made = pair(tmp_path, ADD)
    place = read_workspace(tmp_path / "tokmigrate.yaml")
    bound = bind_plan(place, plan(place, made.entry))
    bound.check(place, plan(place, made.entry))
    convert(made.model, made.gguf, "F32")
    with pytest.raises(StalePlanError, match="copies of the model were changed"):
        bound.check(place, plan(place, made.entry))


def test_paranoid_reads_it_again(tmp_path: Path) -> None:
    made = pair(tmp_path, ADD)
    settings_file = tmp_path / "tokmigrate.yaml"
    settings_file.write_text(settings_file.read_text("utf-8").replace("verify: fast", "verify: paranoid"), "utf-8")
    check_up_and_down(made)


def test_a_head_that_is_stored_twice_and_a_bias_follow(tmp_path: Path) -> None:
    check_up_and_down(pair(tmp_path / "twice", ADD, head="stored twice"))
    check_up_and_down(pair(tmp_path / "biased", ADD, make=making.phi, spare=2))


def test_two_ggufs_follow_one_model(tmp_path: Path) -> None:
    made = pair(tmp_path, ADD)
    other = convert(made.model, tmp_path / "other.gguf", "F32")
    # The first is listed twice, under two names.
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m", "m.gguf", "other.gguf", "m/../m.gguf")
    before = stored(made.gguf), stored(other)
    made.upgrade()
    check_converted_again(made.model, made.gguf, "F16")
    check_converted_again(made.model, other, "F32")
    made.downgrade()
    assert (stored(made.gguf), stored(other)) == before


@pytest.mark.parametrize(
    ("copy", "others", "words"),
    [
        ("m/m.gguf", "", "it is inside .*/m, and the two cannot be published separately"),
        ("n/m.gguf", "  n: {path: n}\n", "it is inside .*/n, and"),
        ("link/m.gguf", "  n: {path: k, adapters: [n]}\n", "it is inside .*/n, and"),
        ("m.gguf", "  n: {path: n, copies: [{path: n/../m.gguf, follow: true}]}\n", "it follows 'm' already"),
    ],
)
def test_a_gguf_that_two_changes_would_swap_is_refused(tmp_path: Path, copy: str, others: str, words: str) -> None:
    (tmp_path / "n").mkdir()
    (tmp_path / "link").symlink_to("n")
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m", copy)
    with (tmp_path / "tokmigrate.yaml").open("a", encoding="utf-8") as file:
        file.write(others)
    with pytest.raises(FileProblems, match=words):
        read_workspace(tmp_path / "tokmigrate.yaml")


@pytest.mark.parametrize("flag", ["i", "a"])
def test_a_gguf_that_nobody_may_rename_is_refused(tmp_path: Path, flag: str) -> None:
    made = pair(tmp_path, ADD)
    if subprocess.run(["chattr", f"+{flag}", made.gguf], check=False, capture_output=True).returncode:
        pytest.skip("files have no such flags here")
    before = image(made.model), stored(made.gguf)
    try:
        with pytest.raises(StorageError, match="immutable or append-only"):
            plan(read_workspace(tmp_path / "tokmigrate.yaml"), made.entry)
        with pytest.raises(StorageError, match="immutable or append-only"):
            made.upgrade()
        assert (image(made.model), stored(made.gguf)) == before
    finally:
        subprocess.run(["chattr", f"-{flag}", made.gguf], check=True)
    made.upgrade()


def test_a_copy_of_another_gguf_does_not_get_its_mode_and_times(tmp_path: Path) -> None:
    made = pair(tmp_path, ADD)
    other = Path(shutil.copy(made.gguf, tmp_path / "other.gguf"))
    other.chmod(0o600)
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m", "m.gguf", "other.gguf")
    before = image(made.model), stored(made.gguf), stored(other)
    with pytest.raises(ModelError, match=r"it is a copy of .*/m\.gguf"):
        made.upgrade()
    assert (image(made.model), stored(made.gguf), stored(other)) == before
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m", "m.gguf")
    made.upgrade()
    shutil.copy(made.gguf, other)
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m", "m.gguf", "other.gguf")
    with pytest.raises(ModelError, match=r"it is a copy of .*/m\.gguf"):
        made.downgrade()
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m", "m.gguf")
    made.downgrade()
    assert (image(made.model), stored(made.gguf)) == before[:2]


def look_as_another_user(path: Path) -> None:
    os.setuid(65534)
    with pytest.raises(StorageError, match="only owners may rename"):
        refuse_fixed(path)


def test_a_gguf_of_another_user_in_a_sticky_directory_is_refused() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.gguf")
        path.touch(0o644)
        Path(folder).chmod(0o1777)
        refuse_fixed(path)
        assert exit_code(look_as_another_user, path) == 0


def replace_row(made: Pair) -> None:
    with made.gguf.open("r+b") as file:
        file.seek(-20, os.SEEK_END)
        file.write(b"row")


@pytest.mark.parametrize(
    "change",
    [
        lambda made: convert(made.model, made.gguf, made.kind),
        replace_row,
        lambda made: made.gguf.write_bytes(b"not a GGUF"),
    ],
    ids=["converted again", "edited", "no GGUF"],
)
def test_what_was_put_in_its_place_after_a_crash_is_kept(tmp_path: Path, change: Callable[[Pair], object]) -> None:
    made = pair(tmp_path, ADD)
    other = convert(made.model, tmp_path / "other.gguf", "F32")
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m", "m.gguf", "other.gguf")
    assert exit_code(dying_at, tmp_path, "upgrade", Step.SWAPPED.value) == -signal.SIGKILL
    change(made)
    found = stored(made.gguf)
    place = read_workspace(tmp_path / "tokmigrate.yaml")
    for _ in range(2):
        with pytest.raises(RecoveryNeededError, match="is neither the one before nor the one after") as caught:
            recover_model(place, made.entry)
        assert stored(made.gguf) == found
    check_converted_again(made.model, other, "F32")
    # As the hint says; here the one that the migration made is right.
    stage, journal = tmp_path / ".m.gguf.tokmigrate" / "stage", tmp_path / ".m.tokmigrate" / "journal"
    assert str(stage) in str(caught.value.hint)
    assert str(journal) in str(caught.value.hint)
    made.gguf.unlink()
    stage.rename(made.gguf)
    journal.rename(tmp_path / "journal")
    recover_model(place, made.entry)
    check_converted_again(made.model, made.gguf, "F16")
    made.downgrade()


def test_a_gguf_that_is_gone_after_a_crash_is_found_in_the_stage(tmp_path: Path) -> None:
    made = pair(tmp_path, ADD)
    assert exit_code(dying_at, tmp_path, "upgrade", Step.SWAPPED.value) == -signal.SIGKILL
    made.gguf.unlink()
    place, stage = read_workspace(tmp_path / "tokmigrate.yaml"), tmp_path / ".m.gguf.tokmigrate" / "stage"
    with pytest.raises(RecoveryNeededError, match="it does not exist") as caught:
        recover_model(place, made.entry)
    assert f"look into {stage}" in str(caught.value.hint)
    stage.rename(made.gguf)
    assert recover_model(place, made.entry) is RecoveryOutcome.AFTER
    check_converted_again(made.model, made.gguf, "F16")
    made.downgrade()


def change_copy(root: Path) -> None:
    """Upgrade a model, and write to its GGUF right before the commit point."""

    def listen(event: Event) -> None:
        if isinstance(event, StepReached) and event.step == Step.PREPARED:
            os.utime(root / "m.gguf", (1, 1))

    place = read_workspace(root / "tokmigrate.yaml")
    upgrade(place, place.models["m"], on_progress=listen)


def test_a_gguf_that_is_changed_while_the_model_is_prepared_stops_the_change(tmp_path: Path) -> None:
    made = pair(tmp_path, ADD)
    before = image(made.model), stored(made.gguf).data
    with pytest.raises(DriftError, match="it was changed while it was copied"):
        change_copy(tmp_path)
    assert (image(made.model), stored(made.gguf).data) == before
    made.upgrade()


@pytest.mark.parametrize(
    ("direction", "moment"),
    [("upgrade", Step.PREPARED), ("upgrade", Step.SWAPPED), ("downgrade", Step.SWAPPED)],
)
def test_killed_at_a_step_both_are_before_or_both_after(tmp_path: Path, direction: str, moment: Step) -> None:
    made = pair(tmp_path, ADD)
    base = image(made.model), stored(made.gguf)
    made.upgrade()
    head = image(made.model), stored(made.gguf).data
    if direction == "upgrade":
        made.downgrade()
    assert exit_code(dying_at, tmp_path, direction, moment.value) == -signal.SIGKILL
    has_happened = list(Step).index(moment) >= list(Step).index(Step.SWAPPED)
    is_at_head = has_happened == (direction == "upgrade")
    found = recover_model(read_workspace(tmp_path / "tokmigrate.yaml"), made.entry)
    assert found is (RecoveryOutcome.AFTER if has_happened else RecoveryOutcome.BEFORE)
    if is_at_head:
        assert {name: file.data for name, file in image(made.model).items()} == {
            name: file.data for name, file in head[0].items()
        }
        assert stored(made.gguf).data == head[1]
        made.downgrade()
    assert (image(made.model), stored(made.gguf)) == base
    left = [each.name for each in (tmp_path / ".m.gguf.tokmigrate").iterdir()]
    assert left == ["lock"]


def test_a_file_that_cannot_be_swapped_is_renamed_three_times(tmp_path: Path) -> None:
    if not seccomp_works():
        pytest.skip("this system takes no seccomp filter")
    made = pair(tmp_path, ADD)
    before = stored(made.gguf)
    assert exit_code(without_swap, tmp_path, "upgrade") == 0
    check_converted_again(made.model, made.gguf, "F16")
    made.downgrade()
    assert stored(made.gguf) == before


def with_pairs(path: Path, pairs: Mapping[str, Value]) -> None:
    write_head(path, read_head(path).with_pairs(pairs))


def write_head(path: Path, head: Head) -> None:
    """Give a GGUF another head before the same data."""
    data = path.read_bytes()[len(read_head(path).raw) :]
    path.write_bytes(head.raw + data)


def rename_last_token(made: Pair) -> None:
    texts = read_head(made.gguf).pairs["tokenizer.ggml.tokens"].texts
    with_pairs(made.gguf, {"tokenizer.ggml.tokens": Value.of_texts([*texts[:-5], "new", *texts[-4:]])})


def list_types_again(made: Pair) -> None:
    with_pairs(made.gguf, {"tokenizer.ggml.more": read_head(made.gguf).pairs["tokenizer.ggml.token_type"]})


def quantize(made: Pair) -> None:
    head = read_head(made.gguf)
    kinds = (replace(each, kind=2) if each.name == "output.weight" else each for each in head.tensors)
    write_head(made.gguf, replace(head, tensors=tuple(kinds)))


def rename_head(made: Pair) -> None:
    head = read_head(made.gguf)
    names = (replace(each, name=each.name.replace("output.w", "outlet.w")) for each in head.tensors)
    write_head(made.gguf, replace(head, tensors=tuple(names)))


def grow(made: Pair) -> None:
    shutil.rmtree(made.model)
    making.llama(made.model, spare=5, dtype="bfloat16")


def train(made: Pair) -> None:
    held = load_file(made.model / "model.safetensors")
    held["lm_head.weight"] *= 2
    save_file(held, made.model / "model.safetensors", {"format": "pt"})


def link(made: Pair) -> None:
    made.gguf.rename(made.root / "n.gguf")
    made.gguf.symlink_to("n.gguf")


def fill_padding(made: Pair) -> None:
    head = read_head(made.gguf)
    first = next(
        each for each in head.layout({"token_embd.weight": 16}, "").entries if each.name == "token_embd.weight"
    )
    with made.gguf.open("r+b") as file:
        file.seek(len(head.raw) + first.end)
        file.write(b"x")


@pytest.mark.parametrize(
    ("break_", "error", "words"),
    [
        (rename_last_token, OutOfStepError, "id .* is '</s>' in the model, 'new' in the GGUF"),
        (grow, OutOfStepError, r"has \d+ tokens, the model has \d+ rows"),
        (train, OutOfStepError, "row .* of 'output.weight' is not that of the model"),
        (quantize, ModelError, "'output.weight' is stored as Q4_0"),
        (rename_head, UnexplainedTensorError, "whether 'outlet.weight'"),
        (lambda made: with_pairs(made.gguf, {"tokenizer.ggml.model": Value.of_text("t5")}), ModelError, "is 't5'"),
        (list_types_again, ModelError, "its meaning is not known"),
        (lambda made: with_pairs(made.gguf, {"split.count": Value(Kind.UINT16, b"\2\0")}), ModelError, "several parts"),
        (lambda made: with_pairs(made.gguf, {"general.type": Value.of_text("adapter")}), ModelError, "no model"),
        (
            lambda made: with_pairs(made.gguf, {"tokmigrate.revision": Value.of_text("aaaaaaaaaaaa")}),
            DriftError,
            "at revision aaaaaaaaaaaa, its model at base",
        ),
        (lambda made: made.gguf.unlink(), StorageError, "look at the GGUF"),
        (link, StorageError, "has to be a regular file"),
        (fill_padding, ModelError, "is not zero, and would be lost"),
        (lambda made: made.gguf.write_bytes(b"GGML" + bytes(100)), WeightsError, "not a GGUF file"),
        (lambda made: os.truncate(made.gguf, 5000), WeightsError, "ends inside its head"),
    ],
)
def test_a_gguf_that_cannot_follow_is_refused(
    tmp_path: Path, break_: Callable[[Pair], object], error: type[TokmigrateError], words: str
) -> None:
    made = pair(tmp_path, ADD)
    break_(made)
    before = image(tmp_path)
    with pytest.raises(error, match=words) as caught:
        made.upgrade()
    assert caught.value.hint
    after = {name: file for name, file in image(tmp_path).items() if ".tokmigrate/" not in name}
    assert after == before
    assert not [name for name in image(tmp_path) if "stage" in name]


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ({"set_pre_tokenizer": {"pre_tokenizer": {"type": "Whitespace"}, "acknowledge": "breaking"}}, "pre_tokenizer"),
        ({"set_normalizer": {"normalizer": {"type": "NFC"}, "acknowledge": "breaking"}}, "normalizer"),
    ],
)
def test_a_migration_that_a_gguf_cannot_express_is_refused(
    tmp_path: Path, operation: dict[str, Any], words: str
) -> None:
    made = pair(tmp_path, operation)
    before = image(tmp_path)
    with pytest.raises(OperationError, match=f"the migration changes the {words}"):
        made.upgrade()
    assert image(tmp_path) == before
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m")
    made.upgrade()


PROCESSOR = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
ANOTHER = Value(Kind.UINT32, (7).to_bytes(4, "little"))
FAR = {"move_tokens": {"acknowledge": "breaking", "tokens": {"!": VOCABULARY["Ġof"], "Ġof": VOCABULARY["!"]}}}
AND = {"remove_tokens": {"tokens": ["Ġand"], "ids": "compact", "acknowledge": "breaking"}}


@pytest.mark.parametrize(
    ("key", "value", "operation", "words"),
    [
        (
            "tokenizer.chat_template",
            Value.of_text("{{ messages }}"),
            {"set_chat_template": {"template": "{{ bos_token }}"}},
            "changes the chat template",
        ),
        (
            "tokenizer.ggml.eos_token_id",
            ANOTHER,
            {"set_special_tokens": {"eos": "<|new|>"}},
            "gives another token the role eos",
        ),
        (
            "tokenizer.ggml.eot_token_id",
            ANOTHER.with_numbers([VOCABULARY["Ġand"]]),
            AND,
            "'tokenizer.ggml.eot_token_id' names a token that the migration removes",
        ),
        (
            "tokenizer.ggml.merges",
            Value.of_texts(["a b"]),
            {"extend_vocab": {"merges": [["the", "re"]]}},
            "changes merges, and its own are not those",
        ),
        ("x.eot_token_id", Value(Kind.UINT8, bytes([VOCABULARY["!"]])), FAR, "would not fit"),
        (
            "tokenizer.ggml.merges",
            Value(Kind.STRING, b"\2" + bytes(7) + b"\xff\xfe", 1),
            {"extend_vocab": {"merges": [["the", "re"]]}},
            "not UTF-8",
        ),
        (
            "tokenizer.ggml.suppress_tokens",
            Value(Kind.INT32, bytes(8), 2).with_numbers([7, VOCABULARY["Ġof"]]),
            FAR,
            "whether 'tokenizer.ggml.suppress_tokens' holds ids is not known",
        ),
        (
            "tokenizer.chat_template",
            Value(Kind.STRING, b"\2" + bytes(7) + b"\xff\xfe"),
            {"set_chat_template": {"template": "{{ bos_token }}"}},
            "changes the chat template",
        ),
        ("other.vocab_size", ANOTHER, {"resize_vocab": {"multiple_of": 64}}, "'other.vocab_size' is not the"),
        (
            "general.name",
            Value.of_text("m"),
            {"set_post_processor": {"post_processor": PROCESSOR, "acknowledge": "breaking"}},
            "changes the post-processor",
        ),
    ],
)
def test_a_value_that_is_not_the_model_s_is_not_lost(
    tmp_path: Path, key: str, value: Value, operation: dict[str, Any], words: str
) -> None:
    new = {"add_tokens": {"tokens": [{"content": "<|new|>", "special": True}]}}
    made = pair(tmp_path, new, operation)
    with_pairs(made.gguf, {key: value})
    made.upgrade("+1")
    before = image(made.model), stored(made.gguf)
    with pytest.raises(OperationError, match=words):
        made.upgrade()
    assert (image(made.model), stored(made.gguf)) == before


def test_a_downgrade_is_refused_where_the_gguf_cannot_go_along(tmp_path: Path) -> None:
    made = pair(tmp_path, ADD, SWAP)
    made.upgrade("+1")
    held = made.gguf.read_bytes()
    made.upgrade()
    head = image(made.model), stored(made.gguf)

    # Its rows were changed since.
    with made.gguf.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    changed = stored(made.gguf)
    with pytest.raises(DriftError, match="the GGUF was changed since it was migrated"):
        made.downgrade()
    assert (image(made.model), stored(made.gguf)) == (head[0], changed)

    # It is of another revision, and it was converted again: then nothing is known of it.
    made.gguf.write_bytes(held)
    with pytest.raises(DriftError, match="at revision 000000000001, its model at 000000000002"):
        made.downgrade()
    made.gguf.unlink()
    convert(made.model, made.gguf)
    again = made.gguf.read_bytes()
    with pytest.raises(UndoError, match="has no undo data for it"):
        made.downgrade()
    assert (image(made.model), made.gguf.read_bytes()) == (head[0], again)

    list_copy(tmp_path / "tokmigrate.yaml", "m", "m")
    place, told = read_workspace(tmp_path / "tokmigrate.yaml"), []
    downgrade(place, made.entry, "base", on_progress=lambda event: told.append(str(event)))
    assert any("1 GGUF that followed it upwards" in event for event in told)
    assert made.gguf.read_bytes() == again


def test_a_gguf_does_not_follow_a_semantic_undo(tmp_path: Path) -> None:
    made = pair(tmp_path, ADD)
    made.upgrade()
    train(made)
    before = image(made.model), stored(made.gguf)
    with pytest.raises(UndoError, match=r"cannot follow a semantic undo, and these were changed: model\.safetensors"):
        made.downgrade()
    assert (image(made.model), stored(made.gguf)) == before
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m")
    made.downgrade()


def test_of_several_models_none_goes_down_where_a_gguf_cannot(tmp_path: Path) -> None:
    made = pair(tmp_path, ADD)
    shutil.copytree(made.model, tmp_path / "n")
    settings_file = tmp_path / "tokmigrate.yaml"
    settings_file.write_text(settings_file.read_text("utf-8") + "  n: {path: n}\n", "utf-8")
    place = Workspace(tmp_path)
    place.asked("upgrade")
    convert(made.model, made.gguf)
    before = image(made.model), image(tmp_path / "n")
    done = place.run("downgrade", "base", "--model", "n", "--model", "m")
    assert done.returncode == 1
    assert "has no undo data for it" in done.stderr
    assert (image(made.model), image(tmp_path / "n")) == before


def test_a_gguf_that_was_converted_later_goes_up_and_back_to_where_it_was(tmp_path: Path) -> None:
    made = pair(tmp_path, ADD, SWAP)
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m")
    made.upgrade("+1")
    made.gguf.unlink()
    convert(made.model, made.gguf)
    before = stored(made.gguf)
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m", "m.gguf")
    made.upgrade()
    check_converted_again(made.model, made.gguf, "F16")
    made.downgrade("-1")
    assert stored(made.gguf) == before
    with pytest.raises(UndoError, match="did not follow a migration"):
        made.downgrade()


def test_nothing_follows_where_a_dummy_model_is_migrated(tmp_path: Path) -> None:
    made = pair(tmp_path, ADD)
    before = stored(made.gguf)
    assert run_roundtrip(read_workspace(tmp_path / "tokmigrate.yaml"), made.entry).mismatches == ()
    assert stored(made.gguf) == before


def test_q8_0_is_that_of_the_package() -> None:
    generator = np.random.default_rng(1)
    for scale in (0.0, 1e-9, 1e-3, 1.0, 3e4):
        row = (generator.standard_normal(96) * scale).astype(np.float32)
        row[:32] = np.round(row[:32] * 8) / 8
        assert encode_row(row.astype(np.float64), "Q8_0") == quantized(row)


def add_large_tensor(path: Path, size: int) -> None:
    """Add a tensor of random bytes, which no migration changes, to a GGUF."""
    head = read_head(path)
    data = path.read_bytes()[len(head.raw) :]
    padding = bytes(-len(data) % head.alignment)
    large = TensorInfo("blk.9.large", (size,), 24, len(data) + len(padding))
    path.write_bytes(replace(head, tensors=(*head.tensors, large)).raw + data + padding + os.urandom(size))


@pytest.mark.parametrize("maker", ["mkfs.xfs -q -m reflink=1", "mkfs.btrfs -q"])
def test_its_blocks_are_shared_on_a_filesystem_of_its_own(tmp_path: Path, maker: str) -> None:
    mounting = mount_image(tmp_path, maker)
    made = pair(tmp_path, ADD, {"resize_vocab": {"multiple_of": 512}})
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m", "mounted/m.gguf")
    add_large_tensor(made.gguf, 24 << 20)
    script = f"""
import json, os, shutil, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_gguf_copies import Pair, stored
made, path = Pair(Path()), Path("mounted/m.gguf")
shutil.copy2("m.gguf", path)
def free():
    os.sync()
    status = os.statvfs("mounted")
    return status.f_bavail * status.f_frsize
def used_by(change):
    before = free()
    keep = path.open("rb")
    change()
    used = before - free()
    keep.close()
    return used
before = stored(path)
used = [used_by(made.upgrade), used_by(made.downgrade)]
print(json.dumps({{"used": used, "same": stored(path) == before}}))
"""
    answer = in_namespace(tmp_path, mounting, script)
    assert answer["same"] is True
    assert isinstance(answer["used"], list)
    assert max(answer["used"]) < 2 << 20


def test_a_full_filesystem_changes_nothing(tmp_path: Path) -> None:
    made = pair(tmp_path, ADD)
    list_copy(tmp_path / "tokmigrate.yaml", "m", "m", "mounted/m.gguf")
    add_large_tensor(made.gguf, 5 << 20)
    script = f"""
import json, os, shutil, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_gguf_copies import Pair, stored
from workspaces import image
from tokmigrate.errors import StorageError
made, path = Pair(Path()), Path("mounted/m.gguf")
shutil.copy2("m.gguf", path)
before = stored(path), image(made.model)
try:
    made.upgrade()
except StorageError as error:
    print(json.dumps({{"message": error.message, "same": (stored(path), image(made.model)) == before}}))
"""
    answer = in_namespace(tmp_path, "mkdir mounted && mount -t tmpfs -o size=8m none mounted", script)
    assert "are needed" in str(answer["message"])
    assert answer["same"] is True
