"""What the report on a model says, against the model's own files and the libraries."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import TOKENS, Made, bart, bert, llama, mllama, per_layer, phi, tailed, tensors_of, workspace, write_weights
from shared_models import shared_model
from test_token_events import ids_of, removing
from workspaces import Workspace, edit, image, make_workspace

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.report import KINDS, Kind, collect_report, runs_of
from tokmigrate.commands.row_survey import COMPARED_AT_MOST
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.render.html import COLUMNS, page_paths, vocabulary_map
from tokmigrate.settings import ModelEntry, read_workspace
from tokmigrate.vocabulary.ids import is_tombstone

ADDING = {"add_tokens": {"tokens": ["<x>", "<y>"]}}
FIRST_OF = ("added", "reinitialised", "renamed", "moved")


def reported(made: Made) -> dict[str, Any]:
    return collect_report(made.workspace, made.entry("m")).document


def kinds_of(document: dict[str, Any]) -> list[str]:
    return [run["kind"] for run in document["runs"] for _ in range(run["first"], run["last"] + 1)]


def by_text(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {token["token"]: token for token in document["listed"] if token["id"] is not None}


@given(st.randoms(use_true_random=False))
@settings(max_examples=3, deadline=None)
def test_each_token_has_the_history_that_its_migrations_gave_it(tmp_path_factory: Any, draw: Any) -> None:
    root = tmp_path_factory.mktemp("histories")
    model = llama(root / "m", spare=3)
    ids = ids_of(model)
    merges = json.loads((model / "tokenizer.json").read_text("utf-8"))["model"]["merges"]
    parts = {part for merge in merges for part in merge}
    words = [token for token in ids if token.startswith("Ġ") and len(token) > 2 and token not in parts]
    moved, removed, reinitialised = draw.sample(words, 3)
    way = draw.choice(["compact", "tombstone"])
    steps: list[dict[str, Any]] = [
        removing(removed, ids=way),
        {"rename_tokens": {"tokens": {"</s>": "<e>"}}},
        {"rename_tokens": {"tokens": {"<s>": "<b>"}}},
        {"reinit_tokens": {"tokens": reinitialised, "acknowledge": "breaking"}},
        ADDING,
    ]
    draw.shuffle(steps)
    first = draw.choice([True, False])
    target = TOKENS if first else TOKENS + 2 - (way == "compact")
    steps.insert(0 if first else len(steps), {"move_tokens": {"acknowledge": "breaking", "tokens": {moved: target}}})
    made = _migrated(root / "w", model, steps)
    histories: dict[str, list[tuple[str, str]]] = {token: [] for token in ids}
    for revision, step in zip(made.revisions, steps, strict=True):
        upgrade(made.workspace, made.entry("m"), revision)
        old, ids = ids, ids_of(model)
        names = step.get("rename_tokens", {}).get("tokens", {})
        histories = {
            names.get(token, token): each for token, each in histories.items() if names.get(token, token) in ids
        }
        for token, place in ids.items():
            if token in names.values():
                histories[token] = [*histories[token], ("renamed", revision)]
            elif token not in old and not is_tombstone(token):
                histories[token] = [("added", revision)]
            elif token in old and old[token] != place:
                histories.setdefault(token, []).append(("moved", revision))
            elif token == reinitialised and "reinit_tokens" in step:
                histories[token] = [*histories[token], ("reinitialised", revision)]

    data = reported(made)
    kinds = kinds_of(data)
    listed = by_text(data)
    for token, history in histories.items():
        types = {event for event, _ in history}
        kind = next((kind for kind in FIRST_OF if kind in types), "base")
        if not is_tombstone(token):
            assert kinds[ids[token]] == kind, (token, history)
        if history and not is_tombstone(token):
            assert [(event.event, event.revision) for event in listed[token]["events"]] == history
            assert (listed[token]["revision"], listed[token]["kind"]) == (history[-1][1], kind)
    # A removed token is listed once: at its placeholder, or without an id.
    placeholders = [token for token in ids if is_tombstone(token)]
    (gone,) = [each for each in data["listed"] if "removed" in {event.event for event in each["events"]}]
    expected = (placeholders[0], "placeholder") if placeholders else (removed, "removed")
    assert (gone["token"], gone["kind"]) == expected
    spare = sorted(set(range(data["rows"])) - set(ids.values()))
    assert [number for number, kind in enumerate(kinds) if kind == "spare"] == spare
    assert set(data["untrained"]) == {"<x>", "<y>", reinitialised}

    fused = _migrated(root / "fused", llama(root / "other", spare=3), steps)
    upgrade(fused.workspace, fused.entry("m"))
    other = reported(fused)
    assert (other["listed"], other["runs"]) == (data["listed"], data["runs"])
    downgrade(made.workspace, made.entry("m"), "base")
    assert set(kinds_of(reported(made))) == {"base", "spare"}


def _migrated(root: Path, model: Path, steps: list[dict[str, Any]]) -> Made:
    return workspace(root, {"m": model}, [{"operations": [step]} for step in steps])


def test_a_row_is_untrained_until_its_bytes_change(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    made = workspace(tmp_path / "w", {"m": model}, [{"operations": [ADDING]}])
    upgrade(made.workspace, made.entry("m"))
    assert [(token, by_text(reported(made))[token]["init"]) for token in reported(made)["untrained"]] == [
        (token, {"input": {"strategy": "mean"}, "output": {"strategy": "mean"}}) for token in ("<x>", "<y>")
    ]
    tensors = tensors_of(model)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name][TOKENS + 1] += 0.5
    # Another row's training says nothing of a new one's.
    tensors["model.embed_tokens.weight"][3] += 0.5
    write_weights(model, tensors)
    data = reported(made)
    assert {token["token"]: token["trained"] for token in data["listed"] if token["trained"] is not None} == {
        "<x>": False,
        "<y>": True,
    }
    assert [each["tokens"] for each in data["concerns"] if each["subject"] == "untrained rows"] == [["<x>"]]


def test_a_placeholder_is_not_untrained(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    burying = removing("<x>", ids="tombstone")
    made = workspace(tmp_path / "w", {"m": model}, [{"operations": [ADDING]}, {"operations": [burying]}])
    upgrade(made.workspace, made.entry("m"))
    data = reported(made)
    assert data["untrained"] == ["<y>"]
    found = by_text(data)[f"<|removed_{TOKENS}|>"]
    assert [event.event for event in found["events"]] == ["added", "removed"]
    assert (found["kind"], found["trained"], found["neighbours"]) == ("placeholder", None, [])
    assert [row["id"] for row in data["norms"][0]["rows"]] == [TOKENS + 1]


def test_the_ledger_of_another_model_at_the_same_place_is_not_asked(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    made = workspace(tmp_path / "w", {"m": model}, [{"operations": [ADDING]}])
    other = workspace(tmp_path / "v", {"m": phi(tmp_path / "other")}, [{"operations": [ADDING]}])
    for each in (made, other):
        upgrade(each.workspace, each.entry("m"))
    shutil.rmtree(model)
    (tmp_path / "other").rename(model)
    data = reported(made)
    assert ([step["recorded"] for step in data["timeline"]], data["untrained"]) == ([None], [])


def test_without_the_ledger_the_stamp_still_tells_what_was_added(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", spare=1)
    moving = {"move_tokens": {"acknowledge": "breaking", "tokens": {"Ġand": TOKENS}}}
    made = workspace(tmp_path / "w", {"m": model}, [{"operations": [moving]}, {"operations": [ADDING]}])
    upgrade(made.workspace, made.entry("m"))
    shutil.rmtree(made.root / ".tokmigrate")
    data = reported(made)
    found = by_text(data)
    for token in ("<x>", "<y>"):
        each = found[token]
        assert (each["kind"], each["revision"], each["trained"]) == ("added", made.revisions[1], None)
    assert found["Ġand"]["kind"] == "moved"
    assert [step["recorded"] for step in data["timeline"]] == [None, None]
    assert ("training unknown", ["<x>", "<y>"]) in [(each["subject"], each["tokens"]) for each in data["concerns"]]


def test_norms_and_neighbours_are_those_of_the_matrices(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", dtype="bfloat16", spare=2)
    copying = {"tokens": [{"content": "<x>", "init": {"strategy": "copy", "token": "the"}}, "<y>"]}
    made = workspace(tmp_path / "w", {"m": model}, [{"operations": [{"add_tokens": copying}]}])
    upgrade(made.workspace, made.entry("m"))
    data = reported(made)
    ids = ids_of(model)
    tensors = {name: tensor.to(torch.float64).numpy() for name, tensor in tensors_of(model).items()}
    assert [(norms["side"], norms["tensor"]) for norms in data["norms"]] == [
        ("input", "model.embed_tokens.weight"),
        ("output", "lm_head.weight"),
    ]
    for norms in data["norms"]:
        exact = np.linalg.norm(tensors[norms["tensor"]], axis=1)
        check_norms(norms, exact[:TOKENS], {ids[token]: exact[ids[token]] for token in ("<x>", "<y>")})
    nearest = by_text(data)["<x>"]["neighbours"]
    assert (nearest[0]["id"], nearest[0]["cosine"], len(nearest)) == (ids["the"], pytest.approx(1), 5)
    # Spare rows have no name to be near to.
    assert {near["id"] for token in data["listed"] for near in token["neighbours"]} <= set(range(TOKENS))
    assert [by_text(data)[token]["same_row"] for token in ("<x>", "<y>")] == [0, 0]


def check_norms(norms: dict[str, Any], old: np.ndarray, new: dict[int, float]) -> None:
    figures = [old.min(), np.quantile(old, 0.01), np.median(old), np.quantile(old, 0.99), old.max()]
    assert norms["old"]["count"] == len(old) == sum(norms["histogram"]["counts"])
    assert [norms["old"][key] for key in ("min", "p1", "median", "p99", "max")] == pytest.approx(figures)
    assert {row["id"]: row["norm"] for row in norms["rows"]} == pytest.approx(new)
    assert [row["longer_than"] for row in norms["rows"]] == [int((old < row["norm"]).sum()) for row in norms["rows"]]


@pytest.mark.parametrize("make", [phi, bert, bart, mllama, per_layer, tailed])
def test_matrices_of_every_shape(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    model = make(tmp_path / "m")
    old = ids_of(model)
    made = workspace(tmp_path / "w", {"m": model}, [{"operations": [{"add_tokens": {"tokens": ["<x>"]}}]}])
    upgrade(made.workspace, made.entry("m"))
    data = reported(made)
    number = ids_of(model)["<x>"]
    kinds = kinds_of(data)
    assert {text for text, place in ids_of(model).items() if kinds[place] == "base"} == set(old)
    assert kinds[number] == "added"
    expected = [("input", True)] if make in (bert, bart) else [("input", False), ("output", False)]
    assert [(norms["side"], norms["shared"]) for norms in data["norms"]] == expected
    tensors = tensors_of(model)
    for norms in data["norms"]:
        exact = np.linalg.norm(tensors[norms["tensor"]].double().numpy(), axis=1)
        check_norms(norms, exact[:TOKENS], {number: exact[number]})
    assert (by_text(data)["<x>"]["trained"], len(by_text(data)["<x>"]["neighbours"])) == (False, 5)


def test_more_new_tokens_than_are_compared_are_counted(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    many = {"add_tokens": {"tokens": [f"<{number}>" for number in range(COMPARED_AT_MOST + 3)]}}
    made = workspace(tmp_path / "w", {"m": model}, [{"operations": [many]}])
    upgrade(made.workspace, made.entry("m"))
    data = reported(made)
    assert data["not_compared"] == 3
    assert sum(bool(token["neighbours"]) for token in data["listed"]) == COMPARED_AT_MOST


def test_odd_rows_are_reported(tmp_path: Path) -> None:
    model = llama(tmp_path / "m")
    adding = {
        "tokens": [
            {"content": "<zero>", "init": {"strategy": "zeros"}},
            {"content": "<long>", "init": {"strategy": "normal", "std": 1000}},
        ]
    }
    made = workspace(tmp_path / "w", {"m": model}, [{"operations": [{"add_tokens": adding}]}])
    upgrade(made.workspace, made.entry("m"))
    tensors = tensors_of(model)
    tensors["lm_head.weight"][5] = float("nan")
    write_weights(model, tensors)
    found = {(each["subject"], each["text"].split(" ")[2], *each["tokens"]) for each in reported(made)["concerns"]}
    head, embeddings = "lm_head.weight", "model.embed_tokens.weight"
    odd = next(token for token, number in ids_of(model).items() if number == 5)
    assert {
        (head, "zeros;", "<zero>"),
        (embeddings, "zeros;", "<zero>"),
        (embeddings, "are", "<long>"),
        (head, "an", odd),
    } <= found


def test_tokens_in_letters_for_bytes_are_read_as_the_library_decodes_them(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "phi-2")
    library = model.library()
    data = collect_report(model.workspace, model.entry)
    decoded = {number: library.decode([number], skip_special_tokens=False) for number in data.texts}
    read = {number: reading for number, reading in data.readings.items() if "\\x" not in reading}
    assert len(read) > 400
    assert read == {number: decoded[number] for number in read}
    # What has no reading is legible: but for the well-known letters it is what it says.
    for number, text in data.texts.items():
        if number not in data.readings:
            assert decoded[number] == text.translate(str.maketrans("ĠĊĉč", " \n\t\r"))
    assert data.document["concerns"] == []


def test_what_is_pending_is_reported_with_its_risks_or_why_it_cannot_be_planned(tmp_path: Path) -> None:
    model = llama(tmp_path / "m", spare=2)
    operations = [{"operations": [ADDING]}, {"operations": [removing("Ġand", ids="tombstone")]}]
    made = workspace(tmp_path / "w", {"m": model}, operations)
    upgrade(made.workspace, made.entry("m"), made.revisions[0])
    data = reported(made)
    assert [(step["applied"], step["recorded"] is not None) for step in data["timeline"]] == [
        (True, True),
        (False, False),
    ]
    assert [each["operation"] for each in data["timeline"][1]["operations"]] == ["remove_tokens"]
    assert (data["concerns"][0]["level"], data["concerns"][0]["subject"]) == ("breaking", made.revisions[1])
    path = made.root / "migrations" / "0002_step_2.yaml"
    edit(path, "Ġand", "nowhere")
    data = reported(made)
    assert data["concerns"][0]["text"].startswith("the pending migrations cannot be planned: ")
    assert data["timeline"][1]["operations"] == []


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 3000)), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_map_shows_every_id_once_and_hides_nothing_that_is_rare(runs: list[tuple[Kind, int]]) -> None:
    kinds = [kind for kind, count in runs for _ in range(count)]
    assert [run["kind"] for run in runs_of(kinds) for _ in range(run["first"], run["last"] + 1)] == kinds
    made = vocabulary_map(runs_of(kinds))
    rarest = min(set(kinds), key=lambda kind: (kinds.count(kind), kind))
    covered: list[int] = []
    for each in made["rects"]:
        ids = range(each["first"], each["last"] + 1)
        covered += ids
        assert each["counts"] == Counter(kinds[number] for number in ids)
        assert each["first"] == (each["row"] * COLUMNS + each["column"]) * made["span"]
        assert each["column"] + each["cells"] <= COLUMNS
        assert each["kind"] in each["counts"]
        assert each["kind"] == rarest or rarest not in each["counts"]
    assert covered == list(range(len(kinds)))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = make_workspace(tmp_path_factory.mktemp("report") / "w")
    assert made.run("upgrade").returncode == 0
    return made


def test_the_command_writes_a_page_and_prints_where(demo: Workspace) -> None:
    before = image(demo.model)
    done = demo.run("report")
    page = demo.root / ".tokmigrate" / "reports" / "report-demo.html"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"demo: {page}\n", "")
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert image(demo.model) == before


def test_the_page_goes_where_the_option_says(demo: Workspace) -> None:
    place = read_workspace(demo.settings, {})
    entry = ModelEntry("a/b", Path("x"))
    for output, expected in (
        (None, demo.root / ".tokmigrate/reports/report-a%2Fb.html"),
        (Path("deep/er"), Path("deep/er/report-a%2Fb.html")),
        (Path("one.html"), Path("one.html")),
    ):
        assert page_paths(place, [entry], output) == {"a/b": expected}


def test_the_document_says_what_the_page_says(demo: Workspace) -> None:
    document = demo.asked("report")
    (model,) = document["models"]
    assert (document["schema_version"], document["command"]) == (1, "report")
    assert Path(model["page"]).is_file()
    assert (model["tokens"], model["rows"], model["revision"]) == (1027, 1088, "c07d18e2b9f4")
    assert model["ids"] == {**dict.fromkeys(KINDS, 0), "base": 1024, "added": 3, "spare": 61}
    assert model["untrained"] == ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    assert [(step["applied"], step["user"] is not None) for step in model["timeline"]] == [(True, True)] * 3
    ends = {each["token"]: each for each in model["listed"]}["<|im_end|>"]
    assert (ends["id"], ends["roles"], ends["flags"], ends["kind"]) == (1025, ["eos"], ["special"], "added")
    assert len(ends["neighbours"]) == 5
    assert {near["id"] for near in ends["neighbours"]} < set(range(1024))
    # All three are initialised with the mean.
    assert ends["same_row"] == 2
    page = Path(model["page"]).read_text("utf-8")
    assert page.count("same row as 2 other new tokens") == 3


def test_mistakes_are_reported_and_write_nothing(demo: Workspace) -> None:
    other = demo.root / "models" / "other"
    shutil.copytree(demo.model, other)
    done = demo.run("report", "--model", "demo", "--model", "models/other", "-o", "one.html")
    assert done.returncode == 2
    assert "one.html: one file for 2 models" in done.stderr
    assert not (demo.root / "one.html").exists()
    (demo.root / "a-file").write_text("", "utf-8")
    done = demo.run("report", "-o", "a-file/pages")
    assert done.returncode == 1
    assert "cannot write the page" in done.stderr
