"""The scripts of docs/from-script.md and the migrations beside them make the same of the demo."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_guides import demo
from transformers import AutoModelForCausalLM, AutoTokenizer
from workspaces import DEMO, REPOSITORY, Workspace, run_here

from tokmigrate.commands.diff import side_of
from tokmigrate.model.documents.semantic_diff import differences

PAGE = (REPOSITORY / "docs" / "from-script.md").read_text("utf-8")
SECTIONS = re.findall(
    r"^## ([^\n]*)$(?:(?!^## ).)*?<!-- script: rows (equal|near)(?:; left ([^>]*))? -->\n"
    r"```python\n(.*?)^```\n\n```yaml\n(.*?)^```$",
    PAGE,
    re.DOTALL | re.MULTILINE,
)
MATRICES = ("model.embed_tokens.weight", "lm_head.weight")


def rows(directory: Path) -> dict[str, torch.Tensor]:
    tensors = {name: held for path in directory.glob("*.safetensors") for name, held in load_file(path).items()}
    return {name: tensors[name].float() for name in MATRICES}


def test_every_script_has_a_migration_beside_it() -> None:
    assert len(SECTIONS) == PAGE.count("```python") == PAGE.count("<!-- script:")


@pytest.mark.parametrize(("name", "likeness", "left", "script", "operations"), SECTIONS, ids=lambda held: held[:24])
def test_a_script_and_its_migration_do_the_same(
    name: str,
    likeness: str,
    left: str,
    script: str,
    operations: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"torch": torch, "json": json, "Path": Path, "AutoTokenizer": AutoTokenizer}
    names |= {"tokenizer": AutoTokenizer.from_pretrained(DEMO), "model": AutoModelForCausalLM.from_pretrained(DEMO)}
    exec(compile(script, name, "exec"), names)  # noqa: S102
    for each in ("model", "tokenizer"):
        names[each].save_pretrained("scripted")

    root = demo(tmp_path)
    Workspace(root).add_migration(operations, after="null")
    done = run_here(root, "upgrade")
    assert done.returncode == 0, done.stderr

    found = differences(side_of(root / "m").documents, side_of(root / "scripted").documents)
    assert [each.subject for each in found] == (left.split(", ") if left else []), list(map(str, found))
    here, there = rows(root / "m"), rows(root / "scripted")
    for matrix in MATRICES:
        assert here[matrix].shape == there[matrix].shape
        assert torch.allclose(here[matrix], there[matrix], atol=2e-3)
        assert torch.equal(here[matrix][:1023], there[matrix][:1023])
    assert all(torch.equal(here[matrix], there[matrix]) for matrix in MATRICES) == (likeness == "equal")
