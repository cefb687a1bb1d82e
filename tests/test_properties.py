"""Properties of random chains of migrations on random small models: there, back, and one way or another."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import making
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from workspaces import contents, image

from tokmigrate.apply.build_downgrade import build_downgrade
from tokmigrate.apply.build_upgrade import UpgradeBuilder
from tokmigrate.apply.candidate import Change
from tokmigrate.apply.stage import stage
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.inspect import verify
from tokmigrate.commands.plan import plan, plan_or_reuse
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore

DTYPES: tuple[making.Dtype, ...] = ("bfloat16", "float16", "float32", "float64")
HEADS: tuple[making.Head, ...] = ("tied", "untied", "stored twice")
TEXTS = (
    "<tool>",
    "</tool>",
    "<think>",
    "[A]",
    "[B]",
    "row 3",
    "naïve·Ω",
    "日本語",
    "🙂🙂",
    "an_identifier",
    "@@",
    "{{x}}",
)
WORDS = ("the", "Ġof", "ing", "a", "Ġ", making.BOS, making.EOS)
PRESETS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "phi": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "mistral": ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
}
BIASED = {"phi": making.phi, "bert": making.bert, "bart": making.bart}


@dataclass(frozen=True)
class Kind:
    """A model to be made."""

    architecture: str
    dtype: making.Dtype
    head: making.Head
    shards: int
    spare: int

    def make(self, directory: Path) -> None:
        """Make it, with facts that no change may lose."""
        if self.architecture == "llama":
            making.llama(directory, dtype=self.dtype, head=self.head, shards=self.shards, spare=self.spare)
        else:
            BIASED[self.architecture](directory, dtype=self.dtype, shards=self.shards, spare=self.spare)
        (directory / "assets").mkdir()
        (directory / "assets" / "note.txt").write_text("not ours\n")
        (directory / "config.json").chmod(0o640)
        (directory / "tokenizer.json").chmod(0o604)
        for number, path in enumerate(sorted(directory.rglob("*"))):
            os.utime(path, ns=(10**18 + number, 10**18 + 1000 * number))


@dataclass(frozen=True)
class Chain:
    """Migrations with what each one must lead to.

    Args:
        migrations: What their files say.
        ids: After each one the id of every token that was ever added.
        rows: After each one the rows.
    """

    migrations: tuple[dict[str, Any], ...]
    ids: tuple[dict[str, int], ...]
    rows: tuple[int, ...]


class Draft:
    """A chain while it is drawn; it says what must come of each operation."""

    def __init__(self, draw: st.DrawFn, spare: int) -> None:
        self.draw = draw
        self.added: dict[str, int] = {}
        self.rows = making.TOKENS + spare

    @property
    def tokens(self) -> int:
        """The tokens so far."""
        return making.TOKENS + len(self.added)

    def known(self) -> st.SearchStrategy[str]:
        """Return any token that there is."""
        return st.sampled_from([*WORDS, *self.added])

    def known_special(self) -> st.SearchStrategy[str]:
        """Return a token that no ordinary text is made of, so that a role for it cuts none of the others."""
        return st.sampled_from([making.BOS, making.EOS, *self.added])

    def give(self, tokens: list[str]) -> None:
        """Take down that new tokens get the next ids."""
        for token in tokens:
            self.added[token] = self.tokens
        self.rows = max(self.rows, self.tokens)

    def strategy(self) -> dict[str, Any]:
        """Draw how rows are initialised."""
        draw = self.draw
        names = ("mean", "mean_cov", "zeros", "normal", "copy", "average", "subtokens", "interpolate", "description")
        name = draw(st.sampled_from(names))
        spec: dict[str, Any] = {"strategy": name}
        if name == "copy":
            spec["token"] = draw(self.known())
        if name == "average":
            texts = draw(st.lists(self.known(), min_size=1, max_size=3, unique=True))
            spec["tokens"] = draw(st.sampled_from([texts, {text: 1 + place for place, text in enumerate(texts)}]))
        if name == "description":
            spec["text"] = "the making of " + draw(self.known())
            spec["noise"] = draw(st.sampled_from([0.0, 0.1]))
        if draw(st.integers(0, 3)) == 0:
            spec["norm"] = "match"
        return spec

    def init(self) -> dict[str, Any]:
        """Draw an `init:`."""
        if self.draw(st.booleans()):
            return self.strategy()
        sides = self.draw(st.sampled_from([["input"], ["output"], ["input", "output"]]))
        return {side: self.strategy() for side in sides}

    def with_init(self, content: dict[str, Any]) -> dict[str, Any]:
        """Perhaps add an `init:`."""
        return {**content, "init": self.init()} if self.draw(st.booleans()) else content

    def operation(self) -> dict[str, Any]:
        """Draw an operation that can be done."""
        names = ["add_tokens", "add_tokens", "add_role_tokens", "set_init", "set_special_tokens"]
        names += ["set_padding", "set_chat_template", "resize_vocab", "resize_vocab"]
        name = self.draw(st.sampled_from(names))
        content: dict[str, Any] = getattr(self, name)()
        return {name: content}

    def add_tokens(self) -> dict[str, Any]:
        free = [text for text in TEXTS if text not in self.added] or [f"more {len(self.added)}"]
        texts = self.draw(st.lists(st.sampled_from(free), min_size=1, max_size=3, unique=True))
        flags = ("special", "single_word", "lstrip", "rstrip", "normalized")
        tokens: list[Any] = []
        for text in texts:
            given_flags = self.draw(st.dictionaries(st.sampled_from(flags), st.booleans()))
            tokens.append(self.with_init({"content": text, **given_flags}))
        content = self.with_init({"tokens": tokens})
        self.give(texts)
        return content

    def add_role_tokens(self) -> dict[str, Any]:
        if self.draw(st.booleans()):
            preset = self.draw(st.sampled_from(sorted(PRESETS)))
            wanted, content = PRESETS[preset], {"preset": preset}
        else:
            roles = {"user": "<user>", "assistant": self.draw(st.sampled_from(["<user>", "<helper>", making.BOS]))}
            end = self.draw(st.sampled_from([making.EOS, "<stop>"]))
            wanted, content = (*dict.fromkeys(roles.values()), end), {"roles": roles, "end": end}
        content = self.with_init(content)
        content["template"] = self.draw(st.sampled_from(["set", "keep"]))
        new = [token for token in wanted if token not in self.added and token not in WORDS]
        if len(new) < len(wanted):
            content["existing"] = "reuse"
        self.give(new)
        return content

    def set_init(self) -> dict[str, Any]:
        return self.init()

    def set_special_tokens(self) -> dict[str, Any]:
        roles = st.sampled_from(["bos", "eos", "sep", "cls", "mask", "pad", "unk"])
        content: dict[str, Any] = self.draw(st.dictionaries(roles, self.known_special(), min_size=1, max_size=2))
        if self.added and self.draw(st.booleans()):
            content["additional"] = self.draw(st.lists(st.sampled_from(sorted(self.added)), unique=True, max_size=2))
        return content

    def set_padding(self) -> dict[str, Any]:
        content: dict[str, Any] = {"token": self.draw(self.known_special())}
        optional = {
            "side": st.sampled_from(["left", "right"]),
            "pad_to_multiple_of": st.sampled_from([1, 8]),
            "max_length": st.sampled_from([16, "longest"]),
        }
        return content | {name: self.draw(values) for name, values in optional.items() if self.draw(st.booleans())}

    def set_chat_template(self) -> dict[str, Any]:
        template = "{% for message in messages %}{{ message['content'] }}|{% endfor %}"
        return {"template": template + self.draw(st.sampled_from(["", "\n", "ü\t"]))}

    def resize_vocab(self) -> dict[str, Any]:
        if self.draw(st.booleans()):
            multiple = self.draw(st.sampled_from([4, 16, 64]))
            self.rows = -(-self.rows // multiple) * multiple
            content = self.with_init({"multiple_of": multiple})
        else:
            self.rows = self.tokens + self.draw(st.integers(0, 7))
            content = self.with_init({"rows": self.rows})
        if re.search("subtokens|interpolate", str(content.get("init"))):
            # A spare row has no text to be initialised from, which is refused where it is asked for.
            del content["init"]
        return content


@st.composite
def kinds(draw: st.DrawFn) -> Kind:
    return Kind(
        draw(st.sampled_from(["llama", "llama", "llama", *BIASED])),
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(HEADS)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from([0, 0, 1, 5])),
    )


@st.composite
def chains(draw: st.DrawFn, spare: int) -> Chain:
    draft = Draft(draw, spare)
    migrations: list[dict[str, Any]] = []
    ids: list[dict[str, int]] = []
    rows: list[int] = []
    for _ in range(draw(st.integers(2, 3))):
        migration: dict[str, Any] = {"operations": [draft.operation() for _ in range(draw(st.integers(1, 3)))]}
        migrations.append(migration)
        ids.append(dict(draft.added))
        rows.append(draft.rows)
    return Chain(tuple(migrations), tuple(ids), tuple(rows))


@st.composite
def stories(draw: st.DrawFn) -> tuple[Kind, Chain, int]:
    """Draw a model, a chain, and a revision in its middle."""
    kind = draw(kinds())
    chain = draw(chains(kind.spare))
    return kind, chain, draw(st.integers(1, len(chain.migrations) - 1))


@contextmanager
def folder() -> Iterator[Path]:
    held = Path(tempfile.mkdtemp(prefix="tokmigrate-"))
    try:
        yield held
    finally:
        shutil.rmtree(held)


def check_state(directory: Path, before: making.Tensors, ids: dict[str, int], rows: int) -> None:
    """Assert that ids and rows are those that were to be, and that what is old is as it was."""
    library = Tokenizer.from_file(str(directory / "tokenizer.json"))
    vocabulary = library.get_vocab(with_added_tokens=True)
    assert {token: vocabulary.get(token) for token in ids} == ids
    assert sorted(vocabulary.values()) == list(range(making.TOKENS + len(ids)))
    library.no_padding()
    for token, number in ids.items():
        assert library.encode(token, add_special_tokens=False).ids == [number]
    after = making.tensors_of(directory)
    assert after.keys() == before.keys()
    for name, old in before.items():
        assert after[name].dtype == old.dtype
        axis = max(range(old.dim()), key=lambda place, shape=old.shape: shape[place])  # type: ignore[misc]
        if old.shape[axis] < making.TOKENS:
            assert torch.equal(after[name], old)
        else:
            assert after[name].shape[axis] == rows
            kept = old.narrow(axis, 0, making.TOKENS)
            assert torch.equal(after[name].narrow(axis, 0, making.TOKENS), kept)


def thorough(examples: int) -> settings:
    """Return settings for as many examples, the same ones every time."""
    # A chain is short as it is drawn; shrinking one would take minutes.
    phases = (Phase.explicit, Phase.generate)
    checks = [HealthCheck.too_slow]
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=checks,
    )


@thorough(8)
@given(stories())
def test_any_chain_leads_there_and_back(story: tuple[Kind, Chain, int]) -> None:
    kind, chain, middle = story
    with folder() as root:
        kind.make(root / "fused")
        shutil.copytree(root / "fused", root / "stepwise")
        made = making.workspace(root, {name: root / name for name in ("fused", "stepwise")}, chain.migrations)
        base, tensors = image(root / "fused"), making.tensors_of(root / "fused")
        place, fused, stepwise = made.workspace, made.entry("fused"), made.entry("stepwise")

        planned = plan(place, fused)
        given_ids = {g.token: g.id for step in planned.steps for effect in step.effects for g in effect.assigned_ids}
        assert given_ids == chain.ids[-1]
        assert image(root / "fused") == base

        steps: list[dict[str, tuple[bytes, int]]] = []
        for ids, rows in zip(chain.ids, chain.rows, strict=True):
            upgrade(place, stepwise, "+1")
            check_state(root / "stepwise", tensors, ids, rows)
            steps.append(contents(root / "stepwise"))

        upgrade(place, fused)
        assert contents(root / "fused") == steps[-1]
        assert not verify(place, fused).changed

        downgrade(place, fused, made.revisions[middle - 1])
        assert contents(root / "fused") == steps[middle - 1]
        assert not verify(place, fused).changed

        upgrade(place, fused)
        assert contents(root / "fused") == steps[-1]

        for name, entry in (("fused", fused), ("stepwise", stepwise)):
            downgrade(place, entry, "base")
            assert image(root / name) == base


def staged_up(place: Workspace, entry: ModelEntry, to: str, target: Path) -> tuple[ModelEntry, list[str]]:
    """Stage an upgrade without publishing it, and return the staged model with its undo records, the latest first."""
    planned = plan_or_reuse(place, entry, take_snapshot(entry), to)
    builder = UpgradeBuilder(planned, place.seed, ObjectStore(place.objects))
    stage_change(builder.changes()[0], target)
    return replace(entry, path=target), [step.undo for step in reversed(builder.applied_steps)]


def staged_down(place: Workspace, entry: ModelEntry, records: list[str], target: Path) -> ModelEntry:
    """Stage the downgrade over migrations without publishing it."""
    snapshot = take_snapshot(entry)
    back = build_downgrade(snapshot, records, ObjectStore(place.objects))
    assert not back.semantic_undo
    stage_change(Change(snapshot, back.candidate, lambda _, __: back.completion), target)
    return replace(entry, path=target)


def stage_change(change: Change, target: Path) -> None:
    """Write the directory of a change, with its stamp."""
    staged = stage(change, target, lambda _: None, Event())
    completion = change.complete(staged.contents, lambda: None)
    staged.complete(completion)
    staged.verify(completion, reads_again=False)
    if completion.stamp is not None:
        (target / STAMP).write_bytes(completion.stamp)


@thorough(24)
@given(stories())
def test_any_chain_stages_the_same_bytes_whatever_the_way(story: tuple[Kind, Chain, int]) -> None:
    kind, chain, middle = story
    with folder() as root:
        kind.make(root / "model")
        made = making.workspace(root, {"model": root / "model"}, chain.migrations)
        base, tensors = image(root / "model"), making.tensors_of(root / "model")
        place, entry = made.workspace, made.entry("model")

        at: list[ModelEntry] = [entry]
        undo: list[str] = []
        for number, (ids, rows) in enumerate(zip(chain.ids, chain.rows, strict=True), 1):
            reached, records = staged_up(place, at[-1], "+1", root / f"step {number}")
            check_state(reached.path, tensors, ids, rows)
            at.append(reached)
            undo = [*records, *undo]

        fused, fused_undo = staged_up(place, entry, "head", root / "fused")
        assert contents(fused.path) == contents(at[-1].path)

        rest = len(chain.migrations) - middle
        for name, head, records in (("fused", fused, fused_undo), ("stepwise", at[-1], undo)):
            halfway = staged_down(place, head, records[:rest], root / f"{name} halfway")
            assert contents(halfway.path) == contents(at[middle].path)
            again, _ = staged_up(place, halfway, "head", root / f"{name} again")
            assert contents(again.path) == contents(at[-1].path)
            assert image(staged_down(place, halfway, records[rest:], root / f"{name} back").path) == base
            assert image(staged_down(place, head, records, root / f"{name} back at once").path) == base
