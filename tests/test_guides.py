"""Every example of the docs is run: the pages of operations and strategies, the cookbook, the tutorial."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from real_tokenizers import real
from safetensors.torch import save_file
from shared_models import shared_model
from test_readme import blocks, typed
from test_whisper import make as make_whisper
from workspaces import DEMO, REPOSITORY, Workspace, contents, run_here

from tokmigrate.init.spec import strategy_types
from tokmigrate.operations.registry import operation_types

DOCS = REPOSITORY / "docs"
EXAMPLES = sorted([*DOCS.glob("operations/*.yaml"), *DOCS.glob("strategies/*.yaml")])
PAGES_WITH_RECIPES = [DOCS / "cookbook.md", DOCS / "faq.md", DOCS / "from-script.md"]
RECIPES = [
    recipe
    for page in PAGES_WITH_RECIPES
    for recipe in re.findall(r"<!-- tried on ([\w-]+) -->\n```yaml\n(.*?)^```$", page.read_text("utf-8"), re.S | re.M)
]
SETTINGS = "format: 1\nverify: fast\nmodels:\n  m: {path: m}\n"


def up_and_down(root: Path, operations: str) -> None:
    """Carry operations out on the model `m` of a workspace, and take them back to the exact bytes."""
    Workspace(root).add_migration(operations, after="null")
    before = contents(root / "m")
    for words in ("plan", "upgrade"):
        done = run_here(root, words)
        assert done.returncode == 0, done.stdout + done.stderr
    assert contents(root / "m") != before
    assert "every byte verified" in run_here(root, "downgrade", "base").stdout
    assert contents(root / "m") == before


def demo(root: Path) -> Path:
    shutil.copytree(DEMO, root / "m")
    (root / "migrations").mkdir()
    (root / "tokmigrate.yaml").write_text(SETTINGS, "utf-8")
    return root


def with_images(root: Path) -> Path:
    config = demo(root) / "m" / "config.json"
    held = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**held, "image_token_index": 9999}), "utf-8")
    return root


def test_each_has_an_example() -> None:
    assert {path.stem for path in EXAMPLES} >= {*operation_types(), *strategy_types()} - {"shout"}
    assert len(EXAMPLES) == len(list(DOCS.glob("operations/*.md"))) + len(list(DOCS.glob("strategies/*.md")))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_goes_up_and_down(path: Path, tmp_path: Path) -> None:
    # The demo is a BPE, which has no words.
    root = shared_model(tmp_path, "bert-base-uncased").root if path.stem == "add_words" else demo(tmp_path)
    shutil.copytree(real("gpt2-chatml"), root / "migrations" / "donor")
    save_file({"<|tool|>": torch.linspace(-0.1, 0.1, 128)}, root / "migrations" / "rows.safetensors")
    up_and_down(root, path.read_text("utf-8"))


@pytest.mark.parametrize(("model", "recipe"), RECIPES, ids=[f"{n}-{m}" for n, (m, _) in enumerate(RECIPES)])
def test_a_recipe_goes_up_and_down(model: str, recipe: str, tmp_path: Path) -> None:
    makers = {"demo": demo, "a-model-of-images": with_images, "whisper": lambda root: make_whisper(root).root}
    up_and_down(makers[model](tmp_path) if model in makers else shared_model(tmp_path, model).root, recipe)


@pytest.mark.parametrize(
    "page",
    [
        "tutorial.md",
        "cookbook.md",
        "learn.md",
        "transplant.md",
        "workspace.md",
        "adopt.md",
        "ci.md",
        "alembic.md",
        "branches.md",
        "tool-tokens.md",
    ],
)
def test_a_page_can_be_typed_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    for name in ("models", "migrations"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    settings = (REPOSITORY / "tokmigrate.yaml").read_text("utf-8").replace("verify: full", "verify: fast")
    (tmp_path / "tokmigrate.yaml").write_text(settings, "utf-8")
    shutil.copy(REPOSITORY / ".gitignore", tmp_path)
    os.environ.setdefault("GIT_CONFIG_GLOBAL", os.devnull)
    script = "\n".join(blocks((DOCS / page).read_text("utf-8"), "bash"))
    who = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b\n"
    assert typed(tmp_path, who + script)


def test_the_recipes_for_ci_run(tmp_path: Path) -> None:
    recipes = [yaml.safe_load(block) for block in blocks((DOCS / "ci.md").read_text("utf-8"), "yaml")]
    action, by_hand, gitlab, hooks = recipes
    steps = [step for job in (action["jobs"]["plan"], by_hand["jobs"]["check"]) for step in job["steps"]]
    used = [step["uses"] for step in steps if step.get("uses", "").startswith("tokmigrate/")]
    assert [each.removeprefix("tokmigrate/tokmigrate/").split("@")[0] for each in used] == [".github/actions/plan"]
    there = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text("utf-8"))
    assert {hook["id"] for hook in hooks["repos"][0]["hooks"]} == {hook["id"] for hook in there}

    lines = [*(step.get("run", "") for step in steps), *gitlab["migrations"]["script"]]
    lines = [line for line in lines if line.startswith("tokmigrate ")]
    assert len(lines) == 7
    shutil.copytree(DEMO, tmp_path / "models" / "demo")
    shutil.copytree(REPOSITORY / "migrations", tmp_path / "migrations")
    (tmp_path / "tokmigrate.yaml").write_text("format: 1\nverify: fast\nmodels: {demo: models/demo}\n", "utf-8")
    commit = "git add -A && git -c user.name=a -c user.email=a@b commit -qm m --allow-empty"
    typed(tmp_path, f"git init -qb main && {commit} && git update-ref refs/remotes/origin/main HEAD && {commit}")
    typed(tmp_path, "\n".join(["GITHUB_BASE_REF=main CI_MERGE_REQUEST_DIFF_BASE_SHA=HEAD^", *lines]))
    assert json.loads((tmp_path / gitlab["migrations"]["artifacts"]["reports"]["codequality"]).read_text("utf-8")) == []
    assert json.loads((tmp_path / "lint.sarif").read_text("utf-8"))["version"] == "2.1.0"
    assert (tmp_path / "plan.md").read_text("utf-8").startswith("## tokmigrate plan")


def test_the_steps_of_the_action_run(tmp_path: Path) -> None:
    action = yaml.safe_load((REPOSITORY / ".github" / "actions" / "plan" / "action.yml").read_text("utf-8"))
    steps = {step["name"]: step for step in action["runs"]["steps"] if "name" in step}
    for name in ("models", "migrations", "tokmigrate.yaml"):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, tmp_path / name)
    settings = tmp_path / "tokmigrate.yaml"
    text = settings.read_text("utf-8")
    settings.write_text(text.replace("models:\n", "models:\n  absent: {path: models/absent}\n"), "utf-8")
    typed(tmp_path, "BASE=\n" + steps["Check"]["run"])
    typed(tmp_path, f"MODELS= COMMENT={tmp_path}/plan.md\n" + steps["Plan"]["run"])
    by_default = (tmp_path / "plan.md").read_text("utf-8")
    typed(tmp_path, f"MODELS=demo COMMENT={tmp_path}/plan.md\n" + steps["Plan"]["run"])
    assert by_default == (tmp_path / "plan.md").read_text("utf-8")
    comment = (tmp_path / "plan.md").read_text("utf-8")
    assert comment.startswith("## tokmigrate plan\n\n### `demo`: `base` → `c07d18e2b9f4`\n")
    assert '`"<\\|im_start\\|>"`' in comment
    shutil.rmtree(tmp_path / "models" / "demo")
    typed(tmp_path, f"( MODELS=demo COMMENT={tmp_path}/plan.md\n{steps['Plan']['run']} ) && exit 9 || test $? = 1")
    assert "`demo`: cannot be planned\n" in (tmp_path / "plan.md").read_text("utf-8")
