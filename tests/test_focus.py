"""`learn transplant --method focus`: new rows are means of the tokens that occur in like places of a corpus."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learning import CODE, tokenize, write_code
from shared_models import SharedModel, shared_model
from workspaces import Workspace

from tokmigrate.commands.transplant_sums import MIN_COUNT
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.init.coefficients import Coefficients, StoredWeights, read_coefficients
from tokmigrate.init.vector_sums import compute_sparsemax, weigh_similar
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.model.weights.undertrained import find_undertrained
from tokmigrate.model.worker.worker import stop_server

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 14), reason="gensim has no wheel for this Python")


@pytest.fixture
def model(tmp_path: Path) -> SharedModel:
    return shared_model(tmp_path / "w", "mistral-chat-small")


@pytest.fixture
def donor(tmp_path: Path) -> SharedModel:
    """Another model of which only the tokenizer is there."""
    donor = shared_model(tmp_path / "donor", "gpt2-chatml")
    for path in donor.directory.glob("*.safetensors*"):
        path.unlink()
    return donor


def transplant(model: SharedModel, donor: SharedModel, *words: str) -> dict[str, Any]:
    told = Workspace(model.root).run(
        *("learn", "transplant", "--donor", str(donor.directory), "--template", "donor", "-m", "M", "--json"), *words
    )
    assert told.returncode == 0, told.stdout + told.stderr
    learned: dict[str, Any] = json.loads(told.stdout)
    return learned


def test_rows_are_means_of_similar_tokens(
    tmp_path: Path, model: SharedModel, donor: SharedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, found = str(write_code(tmp_path)), []
    other = transplant(model, donor, "--method", "subtokens")
    means = read_coefficients("c", Path(other["coefficients_file"]).read_bytes())
    for seed in ("1", "2"):
        shutil.rmtree(model.root / "migrations")
        (model.root / "migrations").mkdir()
        # The libraries are started again, with other hashes.
        stop_server()
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        learned = transplant(model, donor, "--method", "focus", "--corpus", corpus, "-k", "8")
        found.append(Path(learned["coefficients_file"]).read_bytes())
    assert found[0] == found[1]
    sums = read_coefficients("c", found[0])
    assert sums.tokens == means.tokens
    library = donor.library()
    ids = library.get_vocab()
    counts = Counter(ids[token] for tokens in tokenize(library, CODE.splitlines()) for token in tokens)
    snapshot = take_snapshot(model.entry)
    with snapshot.weights.open_rows("model.embed_tokens.weight", 0) as embeddings:
        undertrained = find_undertrained(embeddings, snapshot.state.tokenizer, are_tied=False)
    before, was = model.bytes(), model.rows()
    upgrade(model.workspace, model.entry)
    now, rare = model.rows(), 0
    for token in sums.tokens:
        rows, weights = read(sums, token)
        assert weights.min() > 0
        assert abs(weights.sum() - 1) < 1e-6
        for name, held in was.items():
            np.testing.assert_allclose(now[name][token], weights @ held[[*rows]], rtol=1e-5, atol=1e-5)
        if counts[token] < MIN_COUNT:
            rare += 1
            assert read(means, token)[0] == rows
        else:
            assert len(rows) <= 8
            # But for a copy of one.
            assert len(rows) == 1 or undertrained.isdisjoint(rows)
    # Those that copy a row may be rare too.
    least = learned["too_rare_in_corpus"]
    assert least <= rare <= least + learned["tokens"]["copied"]
    assert 0 < least < learned["tokens"]["new"]
    model.down()
    assert model.bytes() == before
    assert 0 < learned["left_out_as_undertrained"] <= len(undertrained)


def read(coefficients: Coefficients, token: int) -> tuple[tuple[int, ...], np.ndarray]:
    start = coefficients.start("input", token, range(10**6))
    assert isinstance(start.strategy, StoredWeights)
    return start.sources, np.frombuffer(start.strategy.weights, "<f8")


@given(st.lists(st.lists(st.floats(-2, 2), min_size=4, max_size=4), min_size=1, max_size=5))
@settings(deadline=None)
def test_sparsemax_is_the_nearest_distribution(rows: list[list[float]]) -> None:
    scores = np.array(rows)
    found = compute_sparsemax(scores)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert found.min() >= 0
    distances = np.linalg.norm(found - scores, axis=1)
    for other in np.random.default_rng(1).dirichlet(np.full(4, 0.5), 50):
        assert (distances <= np.linalg.norm(other - scores, axis=1) + 1e-9).all()


@pytest.mark.parametrize("most", [1, 3, 99])
def test_the_most_similar_are_weighed(most: int) -> None:
    others = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 0.0]])
    (alike, between) = weigh_similar(np.array([[9.0, 0.0], [1.0, 3.0]]), others, most)
    assert alike[0].tolist()[0] == 0 or most > 1
    assert {*between[0].tolist()} <= {1, 2}
    assert dict(zip(*map(np.ndarray.tolist, between), strict=True))[1] >= 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "focus"], "name its files: --corpus FILE"),
        (["--method", "omp", "--corpus", "CORPUS"], "--method omp reads no corpus"),
        (["--method", "focus", "--corpus", "SHORT"], "occurs 10 times in the corpus"),
        (["--method", "focus", "--corpus", "absent.txt"], "absent.txt"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, model: SharedModel, donor: SharedModel, words: list[str], message: str
) -> None:
    (tmp_path / "short.txt").write_text("a text\n", "utf-8")
    paths = {"CORPUS": write_code(tmp_path), "SHORT": tmp_path / "short.txt"}
    told = Workspace(model.root).run(
        *("learn", "transplant", "--donor", str(donor.directory), "--template", "donor", "-m", "M"),
        *(str(paths.get(word, word)) for word in words),
    )
    assert told.returncode == 2
    assert message in told.stderr
    assert not list((model.root / "migrations").glob("0001*"))


def test_the_error_names_the_extra(
    tmp_path: Path, model: SharedModel, donor: SharedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    told = Workspace(model.root).run(
        *("learn", "transplant", "--donor", str(donor.directory), "--method", "focus", "-m", "M"),
        *("--corpus", str(write_code(tmp_path))),
    )
    assert told.returncode == 2
    assert "gensim is needed for --method focus" in told.stderr
    assert 'pip install "tokmigrate[focus]"' in told.stderr
