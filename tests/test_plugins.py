"""The worked example of docs/plugins.md, installed as a package of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def install(site: Path) -> None:
    package = site / "shout"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    operations, strategies = blocks("python")
    (package / "operations.py").write_text(operations)
    (package / "strategies.py").write_text(strategies)
    info = site / "shout-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shout\nVersion: 1.0\n")
    groups = re.findall(r'\[project\.entry-points\."(.+?)"\]\n(\S+) = "(.+?)"', blocks("toml")[0])
    (info / "entry_points.txt").write_text("".join(f"[{group}]\n{name} = {value}\n" for group, name, value in groups))


def run(workspace: Path, site: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tokmigrate.cli.app", *words],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_worked_example(tmp_path: Path) -> None:
    site, workspace = tmp_path / "site", tmp_path / "workspace"
    install(site)
    workspace.mkdir()
    shutil.copytree(ROOT / "models" / "demo", workspace / "demo")
    (workspace / "tokmigrate.yaml").write_text("format: 1\nverify: fast\nmodels:\n  demo: {path: demo}\n")
    (workspace / "migrations").mkdir()
    migration = "format: 1\nrevision: 0123456789ab\nmessage: A mask\n" + blocks("yaml")[0]
    (workspace / "migrations" / "0001_a_mask.yaml").write_text(migration)
    before = contents(workspace / "demo")
    run(workspace, site, "upgrade")
    config = json.loads((workspace / "demo" / "tokenizer_config.json").read_text("utf-8"))
    assert config["mask_token"] == "<blank>"
    assert "mask_with" in json.dumps(json.loads(run(workspace, site, "schema")))
    run(workspace, site, "downgrade", "base")
    assert contents(workspace / "demo") == before
