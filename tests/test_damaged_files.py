"""Files that hold something else than they should: every command ends with a code of the table and a reason."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from blake3 import blake3
from making import tokenizer_json
from test_crash import strace_works
from workspaces import Workspace, image, make_workspace

from tokmigrate.apply.undo_record import list_objects, read_undo_record
from tokmigrate.errors import EXIT_CODES, DriftError, TokenizerError, UndoError
from tokmigrate.model.documents.reading import parse_document
from tokmigrate.model.documents.stamp import parse_stamp
from tokmigrate.state.objects import ObjectStore

INTERNAL = "an error in tokmigrate itself"


def told(place: Workspace, *words: str) -> tuple[int, str]:
    """Run a command, and return its code and what it says; a hint has to be in it where it fails."""
    done = place.run(*words)
    said = done.stdout + done.stderr
    assert INTERNAL not in said, said
    assert "Traceback" not in said
    assert done.returncode in EXIT_CODES
    return done.returncode, said


# The journal of a change

JOURNAL = {"format": 2, "run": "x", "generation_before": None, "generation_after": "y", "adapters": []}


@pytest.mark.parametrize(
    "journal",
    [
        {},
        [],
        {**JOURNAL, "format": 3},
        {**JOURNAL, "run": None},
        {**JOURNAL, "run": ["x"]},
        {**JOURNAL, "generation_before": 7},
        {**JOURNAL, "adapters": {}},
        {**JOURNAL, "adapters": [None]},
        {**JOURNAL, "adapters": [{"path": 7, "generation_before": None, "generation_after": None}]},
        {**JOURNAL, "adapters": [{"path": "\0", "generation_before": None, "generation_after": None}]},
        {key: value for key, value in JOURNAL.items() if key != "generation_after"},
    ],
)
def test_a_journal_of_another_shape(place: Workspace, journal: Any) -> None:
    place.area.mkdir()
    (place.area / "journal").write_text(json.dumps(journal), "utf-8")
    for words in (("recover",), ("upgrade",)):
        code, said = told(place, *words)
        assert code != 0
        assert "journal" in said or "interrupted" in said
        assert "what to do" in said


# Pipes, sockets and devices


@pytest.fixture
def hurry() -> Iterator[None]:
    """Let a test fail that waits for somebody to write into a pipe."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def make_device(path: Path) -> None:
    path.unlink(missing_ok=True)
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        path.open("rb").close()
    except OSError:
        pytest.skip("devices cannot be made here")


SHARD = "model-00001-of-00002.safetensors"
COMMANDS = (("status",), ("plan",), ("upgrade",), ("check",))


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("make", [make_pipe, make_socket, make_device])
@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_only_regular_files_are_read(place: Workspace, name: str, make: Callable[[Path], None]) -> None:
    make(place.model / name)
    for words in COMMANDS:
        code, said = told(place, *words)
        assert code != 0, words
        assert name in said
        assert "is a pipe, a socket or a device" in said
        assert "what to do" in said
    assert place.left_over() == []


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    "name",
    [
        *(f"models/demo/{name}" for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")),
        *(f"models/demo/{name}" for name in ("additional_chat_templates/x.jinja", "modules.json", "vocab.txt")),
        *(f"models/demo/{name}" for name in ("chat_template.jinja", "model.safetensors.index.json", "tokmigrate.json")),
        *(
            "models/demo/read_by_a_library.json",
            "tokmigrate.yaml",
            "migrations/0004_x.yaml",
            "migrations/0004_x.py",
            "migrations/tokmigrate.lock",
        ),
        *("migrations/tokens.txt", ".tokmigrate/state.db", ".tokmigrate/migrations.journal"),
        "models/.demo.tokmigrate/journal",
        *("lora/adapter_config.json", "lora/adapter_model.safetensors", "lora/tokenizer.json"),
    ],
)
def test_a_pipe_never_blocks(place: Workspace, name: str) -> None:
    if name == "migrations/tokens.txt":
        place.add_migration("  - add_tokens: {tokens_file: tokens.txt}\n")
    if name.startswith("lora/"):
        settings = place.settings.read_text("utf-8")
        place.settings.write_text(settings.replace("models/demo}", "models/demo, adapters: [lora]}"), "utf-8")
        (place.root / "lora").mkdir()
        (place.root / "lora" / "adapter_config.json").write_text('{"peft_type": "LORA"}', "utf-8")
    make_pipe(place.root / name)
    for words in (*COMMANDS, ("lint",), ("recover",), ("log",)):
        told(place, *words)
    assert told(place, "upgrade")[0] != 0


@pytest.mark.usefixtures("hurry")
def test_a_pipe_as_corpus_or_plan(place: Workspace, tmp_path: Path) -> None:
    make_pipe(tmp_path / "pipe")
    for words in (("plan", "--corpus", str(tmp_path / "pipe")), ("upgrade", "--plan", str(tmp_path / "pipe"))):
        code, said = told(place, *words)
        assert code == 2
        assert "is a pipe" in said


# What a file may hold instead


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


INSTEAD = (None, [], {}, "x", "", 7, -1, 1.5, math.nan, True, [None], {"a": None}, nested(90), nested(400))
MISSING = object()
Place = tuple[str | int, ...]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yield the places in a JSON value; of long lists and objects the first and the last."""
    yield at
    if isinstance(value, dict):
        names = list(value) if len(value) <= 40 else [*list(value)[:1], *list(value)[-1:]]
        for name in names:
            yield from places(value[name], (*at, name))
    if isinstance(value, list):
        for number in sorted({0, len(value) - 1} if value else ()):
            yield from places(value[number], (*at, number))


def with_instead(value: Any, at: Place, instead: Any) -> Any:
    """Return a JSON value with something else at a place, or without what is there."""
    if not at:
        return instead
    members = dict(enumerate(value)) if isinstance(value, list) else dict(value)
    if len(at) == 1 and instead is MISSING:
        del members[at[0]]
    else:
        members[at[0]] = with_instead(members[at[0]], at[1:], instead)
    return list(members.values()) if isinstance(value, list) else members


@pytest.fixture(scope="module")
def places_of_work(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workspace]:
    """Return a workspace at base, and one at the head of its migrations, with every kind of file."""
    found: dict[str, Workspace] = {}
    for name in ("base", "head"):
        place = make_workspace(tmp_path_factory.mktemp(name) / "w")
        for file, value in MORE.items():
            (place.model / file).parent.mkdir(exist_ok=True)
            (place.model / file).write_text(json.dumps(value), "utf-8")
        (place.root / "lora").mkdir()
        (place.root / "lora" / "adapter_config.json").write_text(json.dumps(ADAPTER), "utf-8")
        header = b'{"x.lora_A.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        data = len(header).to_bytes(8, "little") + header + bytes(4)
        (place.root / "lora" / "adapter_model.safetensors").write_bytes(data)
        settings = place.settings.read_text("utf-8")
        place.settings.write_text(settings.replace("models/demo}", "models/demo, adapters: [lora]}"), "utf-8")
        if name == "head":
            assert told(place, "upgrade")[0] == 0
            place.add_migration('  - add_tokens: {tokens: ["<x>"]}\n')
            assert told(place, "plan", "-o", "plan.json")[0] == 0
            assert told(place, "log", "--export", "ledger.jsonl")[0] == 0
        found[name] = place
    return found


MORE: dict[str, Any] = {
    "special_tokens_map.json": {"eos_token": {"content": "<|endoftext|>"}, "additional_special_tokens": ["a"]},
    "added_tokens.json": {"<|endoftext|>": 0},
    "modules.json": [{"idx": 0, "name": "0", "path": "1_T", "type": "t"}],
    "1_T/config.json": {"vocab_size": 1024},
    "processor_config.json": {"image_token": "<|endoftext|>", "image_token_id": 0},
    "chat_template.json": {"chat_template": "{{ messages }}"},
}
ADAPTER = {"peft_type": "LORA", "trainable_token_indices": [3], "modules_to_save": None, "target_modules": ["q"]}
LOOKING = (("plan",),)
DAMAGED: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "models/demo/tokenizer.json": ("base", LOOKING),
    "models/demo/tokenizer_config.json": ("base", LOOKING),
    "models/demo/config.json": ("base", LOOKING),
    "models/demo/generation_config.json": ("base", LOOKING),
    "models/demo/model.safetensors.index.json": ("base", LOOKING),
    **{f"models/demo/{name}": ("base", LOOKING) for name in MORE},
    "lora/adapter_config.json": ("base", (("plan",), ("status",))),
    "models/demo/tokmigrate.json": ("head", (("check",), ("current",), ("downgrade", "base"))),
    "lora/tokmigrate.json": ("head", (("status",), ("downgrade", "base"))),
    "plan.json": ("head", (("upgrade", "--plan", "plan.json"),)),
}
MUTATIONS = 8


@pytest.mark.parametrize("name", DAMAGED)
def test_every_mutation_ends_with_a_reason(places_of_work: dict[str, Workspace], name: str) -> None:
    which, commands = DAMAGED[name]
    place = places_of_work[which]
    path = place.root / name
    held = path.read_bytes()
    value = json.loads(held)
    mutations = [(at, instead) for at in places(value) for instead in (*INSTEAD, *([MISSING] if at else []))]
    random = Random(name)  # noqa: S311
    try:
        for at, instead in random.sample(mutations, min(MUTATIONS, len(mutations))):
            text = json.dumps(with_instead(value, at, instead))
            if json.loads(text) == value:
                continue
            path.write_text(text, "utf-8")
            for words in commands:
                done = place.run(*words)
                said = f"{at} {instead!r:.60} {words}: {done.returncode}\n{done.stderr}"
                assert done.returncode in EXIT_CODES, said
                assert INTERNAL not in done.stderr, said
                assert done.returncode == 0 or done.stderr, said
    finally:
        path.write_bytes(held)


# A disk that reports errors

FAILING = (
    ("tokmigrate.yaml", "newfstatat", ("status",)),
    ("tokmigrate.yaml", "read", ("status",)),
    ("migrations", "getdents64", ("plan",)),
    ("migrations/0002_add_chat_roles.yaml", "newfstatat", ("plan",)),
    ("models/demo/config.json", "read", ("plan",)),
    ("models/demo", "getdents64", ("plan",)),
    (f"models/.demo.tokmigrate/stage/{SHARD}", "pwrite64", ("upgrade",)),
    (f"models/.demo.tokmigrate/stage/{SHARD}", "preadv2", ("upgrade",)),
)


@pytest.mark.parametrize(("name", "call", "words"), FAILING)
def test_an_error_of_the_disk_is_reported_with_its_path(
    tmp_path: Path, name: str, call: str, words: tuple[str, ...]
) -> None:
    if not strace_works():
        pytest.skip("strace is not installed, or may not trace here")
    place = make_workspace(tmp_path / "w")
    before = image(place.model)
    path = place.root / name
    injected = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(path), "-e", f"trace={call}"]
    done = place.run_process(*words, before=(*injected, "-e", f"inject={call}:error=EIO"))
    assert done.returncode in (1, 2), done.stderr
    assert INTERNAL not in done.stderr
    assert "Input/output error" in done.stderr
    assert path.name in done.stderr
    assert "read the system log" in done.stderr
    assert image(place.model) == before
    assert place.left_over() == []


# Records that vouch for themselves: they are mutated, and made whole again


def mutations_of(value: Any) -> Iterator[Any]:
    for at in places(value):
        for instead in (*INSTEAD, *([MISSING] if at else [])):
            yield with_instead(value, at, instead)


class InMemory(ObjectStore):
    """The objects of a store, and more."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store.root)
        digests = (path.parent.name + path.name for path in store.root.glob("??/*"))
        self.held = {digest: store.get(digest) for digest in digests}

    def put(self, data: bytes) -> str:
        digest = blake3(data).hexdigest()
        self.held[digest] = data
        return digest

    def get(self, digest: str) -> bytes:
        return self.held.get(digest) or super().get(digest)


def test_an_undo_record_of_another_shape(places_of_work: dict[str, Workspace]) -> None:
    objects = InMemory(ObjectStore(places_of_work["head"].root / ".tokmigrate" / "objects"))
    records = [data for data in objects.held.values() if data.startswith(b'{"adapters": {"')]
    hints: list[str | None] = []
    for mutated in mutations_of(json.loads(records[-1])):
        digest = objects.put(json.dumps(mutated).encode())
        try:
            read_undo_record(digest, objects)
            list(list_objects(digest, objects))
        except UndoError as error:
            hints.append(error.hint)
    assert len(hints) > 100
    assert all(hints)


def test_a_stamp_of_another_shape_that_is_sealed_again(places_of_work: dict[str, Workspace]) -> None:
    place = places_of_work["head"]
    held = json.loads((place.model / "tokmigrate.json").read_bytes())
    hints: list[str | None] = []
    for mutated in mutations_of(held):
        if isinstance(mutated, dict):
            content = {key: value for key, value in mutated.items() if key not in ("format", "generation")}
            said = json.dumps(content, sort_keys=True, ensure_ascii=False)
            mutated["generation"] = blake3(f"generation 1\n{said}\n".encode()).hexdigest()
        try:
            parse_stamp(json.dumps(mutated).encode(), "tokmigrate.json")
        except DriftError as error:
            hints.append(error.hint)
    assert len(hints) > 100
    assert all(hints)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("vocab", {"a": True}),
        ("vocab", {"a": -1}),
        ("vocab", {"a": 0.0}),
        ("vocab", {"\ud800": 0}),
        ("merges", [["a", "b"], ["a", "b", "c"]]),
        ("merges", [["a", 1]]),
        ("merges", [["a", "\udc00"]]),
        ("merges", ["a b", ["a"]]),
    ],
)
def test_a_vocabulary_of_other_types_is_an_error(part: str, value: object) -> None:
    document = tokenizer_json()
    document["model"][part] = value
    with pytest.raises(TokenizerError):
        parse_document("tokenizer.json", json.dumps(document).encode(), "here/tokenizer.json")
