"""The workspace file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokmigrate.errors import FileProblems, UnknownNameError, UsageError
from tokmigrate.settings import (
    NEW_WORKSPACE,
    ModelCopy,
    ModelEntry,
    VocabTensorSetting,
    Workspace,
    find_workspace,
    read_workspace,
)

FULL = """\
format: 1
migrations: changes
state: sqlite:///.tokmigrate/state.db
models:
  demo: {path: models/demo}
  support-7b:
    path: /data/support-7b
    adapters: [/data/loras/support, loras/b]
    copies: [/data/onnx, {path: support.gguf, follow: true}]
    tags: [chat]
    vocab_tensors:
      a.weight: {axis: 1, side: output}
      b.weight: ignore
    id_fields:
      router_token_id: ids
      talker.some_index: ignore
verify: fast
seed: 0007
"""


def workspace(root: Path, text: str, environment: dict[str, str] | None = None) -> Workspace:
    path = root / "tokmigrate.yaml"
    path.write_text(text, encoding="utf-8")
    return read_workspace(path, environment or {})


def faults(root: Path, text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(FileProblems) as caught:
        workspace(root, text)
    return [(each.line, each.column, each.message) for each in caught.value.problems]


def test_everything_that_the_file_says(tmp_path: Path) -> None:
    read = workspace(tmp_path, FULL)
    assert read.root == tmp_path
    assert read.migrations == tmp_path / "changes"
    assert read.state == f"sqlite:///{tmp_path}/.tokmigrate/state.db"
    assert read.objects == tmp_path / ".tokmigrate" / "objects"
    assert list(read.models) == ["demo", "support-7b"]
    assert read.models["demo"] == ModelEntry("demo", tmp_path / "models/demo")
    support = read.models["support-7b"]
    assert support.path == Path("/data/support-7b")
    assert support.adapters == (Path("/data/loras/support"), tmp_path / "loras/b")
    assert support.copies == (ModelCopy(Path("/data/onnx")), ModelCopy(tmp_path / "support.gguf", follow=True))
    assert support.tags == ("chat",)
    assert support.vocab_tensors == {"a.weight": VocabTensorSetting(axis=1, side="output"), "b.weight": "ignore"}
    assert support.id_fields == {"router_token_id": "ids", "talker.some_index": "ignore"}
    assert (read.verify, read.seed) == ("fast", "0007")


def test_a_new_workspace_reads_as_the_defaults(tmp_path: Path) -> None:
    assert workspace(tmp_path, NEW_WORKSPACE) == workspace(tmp_path, "format: 1\n")
    commented = NEW_WORKSPACE.replace("\n#  ", "\n  ")
    assert list(workspace(tmp_path, commented).models) == ["demo", "support-7b"]
    assert workspace(tmp_path, "format: 1\nmodels:\n").models == {}


@pytest.mark.parametrize(
    ("state", "resolved"),
    [
        ("sqlite:////var/s.db", "sqlite:////var/s.db"),
        ("sqlite+pysqlite:///s.db?timeout=3", "sqlite+pysqlite:///{root}/s.db?timeout=3"),
        ("postgresql+psycopg://host/db", "postgresql+psycopg://host/db"),
    ],
)
def test_the_state_is_resolved_against_the_workspace(tmp_path: Path, state: str, resolved: str) -> None:
    expected = resolved.format(root=tmp_path)
    assert workspace(tmp_path, f"format: 1\nstate: {state}\n").state == expected
    assert workspace(tmp_path, "format: 1\n", {"TOKMIGRATE_STATE": state}).state == expected


def test_every_fault_is_reported_with_its_place(tmp_path: Path) -> None:
    text = (
        "format: 2\nmigratoins: x\nstate: somewhere\nmodels:\n  a/b: {path: x}\n  c: {paht: x}\n"
        "  d: {path: x, vocab_tensors: {t: {axis: one, side: input}, u: ignroe}}\nverify: fats\n"
    )
    assert [each[:2] for each in faults(tmp_path, text)] == [
        (1, 9),
        (2, 1),
        (3, 8),
        (5, 3),
        (6, 6),
        (6, 7),
        (7, 42),
        (7, 64),
        (8, 9),
    ]


def test_a_field_of_ids_has_a_known_shape(tmp_path: Path) -> None:
    text = "format: 1\nmodels:\n  m: {path: x, id_fields: {a_token_id: id, 'b.c': map, d: ignore}}\n"
    ((line, column, message),) = faults(tmp_path, text)
    assert (line, column) == (3, 40)
    assert "ids" in message


def test_only_a_gguf_can_follow(tmp_path: Path) -> None:
    copies = "[a.onnx, {path: b.onnx, follow: true}, {path: c.GGUF, follow: true}]"
    text = f"format: 1\nmodels:\n  m: {{path: x, copies: {copies}}}\n"
    ((line, column, message),) = faults(tmp_path, text)
    assert (line, column) == (3, 33)
    assert "only a .gguf file can" in message


def test_the_format_is_named_in_the_hint(tmp_path: Path) -> None:
    for text in ("models: {}\n", "format: 2\n", "{}\n"):
        with pytest.raises(FileProblems, match="reads 'format: 1'"):
            workspace(tmp_path, text)


@pytest.mark.parametrize("state", ["sqlite://", "'sqlite:///:memory:'", "sqlite:///"])
def test_a_state_in_memory_is_refused(tmp_path: Path, state: str) -> None:
    assert faults(tmp_path, f"format: 1\nstate: {state}\n")[0][:2] == (2, 8)


def test_the_workspace_is_found_from_below(tmp_path: Path) -> None:
    (tmp_path / "tokmigrate.yaml").write_text("format: 1\n", encoding="utf-8")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_workspace(below) == tmp_path / "tokmigrate.yaml"


def test_no_workspace_hints_at_init(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_workspace(tmp_path)
    assert "tokmigrate init" in str(caught.value.hint)


def test_models_are_selected_by_name_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("models/demo", "other", "elsewhere/demo"):
        (tmp_path / name).mkdir(parents=True)
    read = workspace(tmp_path, FULL)
    monkeypatch.chdir(tmp_path)
    assert [entry.name for entry in read.select([])] == ["demo", "support-7b"]
    assert read.select(["support-7b", "demo"]) == (read.models["support-7b"], read.models["demo"])
    assert read.select(["models/demo", "demo", str(tmp_path / "models/demo/")]) == (read.models["demo"],)
    assert read.select(["other"]) == (ModelEntry("other", tmp_path / "other"),)
    elsewhere = tmp_path / "elsewhere/demo"
    assert read.select(["elsewhere/demo"]) == (ModelEntry(str(elsewhere), elsewhere),)


def test_an_unknown_model_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        workspace(tmp_path, FULL).select(["suport-7b"])
    assert caught.value.hint == "did you mean 'support-7b'?"
