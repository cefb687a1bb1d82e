"""`learn reinit`: tokens of the baseline whose rows were never trained are listed, and initialised again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from learning import learn
from safetensors.numpy import save_file
from shared_models import SharedModel, shared_model
from workspaces import Workspace

from tokmigrate.commands.upgrade import upgrade

EMBEDS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
PAD, NEVER = "\u0120the", ("\u0120time", "\u0120people")


@pytest.fixture
def model(tmp_path: Path) -> SharedModel:
    """A model whose padding token has a row of zeros, and two other tokens rows of nearly zero."""
    made = shared_model(tmp_path, "gpt2-chatml", {"tokenizer_config.json": {"pad_token": PAD}})
    rows, ids = made.rows(), made.library().get_vocab()
    rows[EMBEDS][ids[PAD]] = 0
    for place, token in enumerate(NEVER):
        rows[EMBEDS][ids[token]] *= 1e-5 * (2 - place)
    save_file(rows, made.directory / "model.safetensors", metadata={"format": "pt"})
    return made


def test_short_rows_are_listed_and_initialised_again(model: SharedModel) -> None:
    before, old, ids = model.bytes(), model.rows(), model.library().get_vocab()
    told = learn(model, "reinit")
    folder = model.root / "migrations"
    assert [row["token"] for row in told["rows"]] == list(NEVER[::-1])
    assert json.loads((folder / "0001_learned.tokens.json").read_text("utf-8")) == sorted(NEVER, key=ids.__getitem__)
    lines = [line.split("\t") for line in (folder / "0001_learned.reasons.tsv").read_text("utf-8").splitlines()]
    assert [json.loads(line[1]) for line in lines[1:]] == list(NEVER[::-1])
    median = float(np.median(np.linalg.norm(old[EMBEDS][sorted(ids.values())].astype(np.float64), axis=1)))
    assert float(lines[1][3]) == pytest.approx(float(lines[1][2]) / median, rel=1e-4)
    assert 0 < float(lines[1][3]) < float(lines[2][3]) < 0.01
    upgrade(model.workspace, model.entry)
    new, places = model.rows(), [ids[token] for token in NEVER]
    others = [row for row in sorted(ids.values()) if row not in places]
    for name in (EMBEDS, HEAD):
        for row in places:
            np.testing.assert_allclose(new[name][row], old[name][others].astype(np.float64).mean(0), rtol=1e-5)
        np.testing.assert_array_equal(new[name][others], old[name][others])
    model.down()
    assert model.bytes() == before


def test_tokens_are_those_at_the_head(model: SharedModel) -> None:
    before = model.library().token_to_id(NEVER[1])
    model.write(
        '- remove_tokens: {tokens: ["\u0120have"], ids: compact, acknowledge: breaking}\n'
        f'- reinit_tokens: {{tokens: ["{NEVER[0]}"], acknowledge: breaking}}'
    )
    told = learn(model, "reinit")
    assert [(row["token"], row["id"]) for row in told["rows"]] == [(NEVER[1], before - 1)]


def test_without_such_rows_nothing_is_written(model: SharedModel) -> None:
    here = Workspace(model.root)
    told = here.run("learn", "reinit", "-m", "Learned", "--shorter-than", "0.000001")
    assert told.returncode == 2
    assert "no row has less than" in told.stderr
    assert NEVER[1] in told.stderr
    (model.directory / "model.safetensors").unlink()
    told = here.run("learn", "reinit", "-m", "Learned")
    assert told.returncode == 2
    assert "no weights here" in told.stderr
    assert not list((model.root / "migrations").glob("*"))
