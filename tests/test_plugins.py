"""The worked example of docs/plugins.md, installed as a package of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tokmigrate.errors import PluginError
from tokmigrate.initialise import strategy_types
from tokmigrate.operations.registry import operation_types

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


BROKEN = """
from typing import Literal
from tokmigrate.initialise import RowStrategy
from tokmigrate.operations.base import Operation, Risk, RiskLevel

class Shout(Operation):
    name = "shout"
    def apply(self, state, context):
        return state
    def risk(self, before, after):
        return Risk(RiskLevel.SAFE, "it does nothing")

class Unfinished(Operation):
    name = "unfinished"
    def risk(self, before, after):
        return Risk(RiskLevel.SAFE, "it does nothing")

class Ones(RowStrategy):
    strategy: Literal["ones"]
    def unscaled_rows(self, side, requests, statistics):
        return None
"""

BAD = {
    "import error": ("operations", "x = nowhere:X", "ModuleNotFoundError: No module named 'nowhere'"),
    "no such class": ("strategies", "x = {module}:X", "AttributeError"),
    "fails on import": ("operations", "x = {module}_failing:X", "RuntimeError: on load"),
    "leaves on import": ("strategies", "x = {module}_leaving:X", "SystemExit: 3"),
    "wrong type": ("operations", "ones = {module}:Ones", "'{module}:Ones' is not a subclass of Operation"),
    "wrong kind": ("strategies", "shout = {module}:Shout", "'{module}:Shout' is not a subclass of RowStrategy"),
    "unfinished": ("operations", "unfinished = {module}:Unfinished", "Unfinished lacks apply"),
    "other name": ("operations", "yell = {module}:Shout", "Shout is registered as 'yell' but calls itself 'shout'"),
    "other strategy": ("strategies", "one = {module}:Ones", "Ones is registered as 'one' but calls itself 'ones'"),
    "taken operation": ("operations", "add_tokens = {module}:Shout", "'add_tokens' is taken by tokmigrate"),
    "taken strategy": ("strategies", "mean = {module}:Ones", "'mean' is taken by tokmigrate"),
    "taken twice": (
        "operations",
        "shout = {module}:Shout\nshout = {module}:Unfinished",
        "'shout' is taken by {module} 2.5",
    ),
}
TYPES: Mapping[str, Callable[[], object]] = {"operations": operation_types, "strategies": strategy_types}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_plugin_names_its_distribution(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group, entries, message = BAD[case]
    module = f"broken_{list(BAD).index(case)}"
    (tmp_path / f"{module}.py").write_text(BROKEN)
    (tmp_path / f"{module}_failing.py").write_text("raise RuntimeError('on load')")
    (tmp_path / f"{module}_leaving.py").write_text("raise SystemExit(3)")
    info = tmp_path / f"{module}-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(f"[tokmigrate.{group}]\n{entries.format(module=module)}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError) as caught:
        TYPES[group]()
    assert message.format(module=module) in caught.value.message
    assert f"of {module} 2.5" in str(caught.value)
    assert f"`pip uninstall {module}`" in (caught.value.hint or "")
