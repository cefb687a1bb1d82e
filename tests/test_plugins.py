"""The worked example of docs/plugins.md, installed as a package of its own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import making
import pytest
from workspaces import Workspace, contents

from tokmigrate.errors import HistoryError, OperationError, PluginError
from tokmigrate.init import strategy_types
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.operations.add_tokens import with_new_tokens
from tokmigrate.operations.operation import Context, NewToken, Operation, Risk, RiskLevel
from tokmigrate.operations.registry import operation_types
from tokmigrate.plan.revision_detection import verify_at_revision
from tokmigrate.revision.history import History
from tokmigrate.revision.lock_file import read_lock
from tokmigrate.revision.migration import PlannedOperation
from tokmigrate.revision.reparent import find_conflicts
from tokmigrate.revision.squash import squash_lock, squash_migrations
from tokmigrate.revision.yaml_file import yaml_migration
from tokmigrate.settings import read_workspace

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


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace beside an installed plug-in; its models `m` and `copy` are equal, and three migrations wait."""
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    model = making.llama(tmp_path / "m", spare=8)
    shutil.copytree(model, tmp_path / "copy")
    init = {"init": {"strategy": "half_mean"}}
    migrations = [
        {"add_tags": {"names": ["think", "tool"], **init}},
        {"set_padding": {"token": making.EOS, "side": "left"}},
    ]
    making.workspace(
        tmp_path,
        {"m": model, "copy": tmp_path / "copy"},
        [{"operations": [migration]} for migration in (*migrations, {"add_tags": {"names": ["call"], **init}})],
    )
    return Workspace(tmp_path)


def answer(here: Workspace, *words: str, code: int = 0) -> dict[str, Any]:
    done = here.run(*words, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_an_installed_operation_is_treated_like_a_built_in(installed: Workspace) -> None:
    before = contents(installed.root / "m")
    answer(installed, "lock")
    answer(installed, "upgrade", "-M", "m")
    upgraded = contents(installed.root / "m")
    blamed = answer(installed, "blame", "</think>", "-M", "m")["models"][0]["tokens"][0]["events"][0]
    assert blamed["file"] == "migrations/0001_step_1.yaml"
    assert blamed["does"] == "add_tags '<think>', '</think>', '<tool>' and 1 more"
    text = (installed.root / "migrations" / "0001_step_1.yaml").read_text("utf-8").splitlines()
    assert '"add_tags"' in text[blamed["line"] - 1]

    refused = answer(installed, "stamp", "0003", "-M", "copy", code=1)
    assert "the token '<think>' is not there" in refused["error"]["message"]
    for name in upgraded.keys() - {"tokmigrate.json"}:
        shutil.copyfile(installed.root / "m" / name, installed.root / "copy" / name)
    past = answer(installed, "stamp", "0002", "-M", "copy", code=1)
    assert "the token '<call>' is there" in past["error"]["message"]
    answer(installed, "stamp", "0003", "-M", "copy")
    workspace = read_workspace(installed.settings, {})
    made, taken = (take_snapshot(workspace.models[name]).state for name in ("m", "copy"))
    assert (taken.lineage, taken.baseline_tokens) == (made.lineage, made.baseline_tokens)

    answer(installed, "squash", "1:3", "-M", "m")
    (squashed,) = (installed.root / "migrations").glob("*.yaml")
    assert squashed.read_text("utf-8").count("add_tags:") == 2
    assert answer(installed, "status", "-M", "m")["models"][0]["pending"] == []
    answer(installed, "downgrade", "base", "-M", "m")
    assert contents(installed.root / "m") == before


def test_a_squash_keeps_what_an_installed_operation_pins(installed: Workspace) -> None:
    answer(installed, "lock")
    lock = read_lock(read_workspace(installed.settings, {}))
    assert lock is not None
    members = History.read(read_workspace(installed.settings, {})).chain()
    one = squash_migrations(members, "All", installed.root / "migrations" / "0003_all.yaml", "0003_all.yaml")
    # On no model that is here: what the several pinned is kept, since no token gets another id on the way.
    (track,) = squash_lock(lock, one, {}).tracks
    assert [pinned.revision for pinned in track.pins] == [members[-1].revision]


def test_an_installed_operation_is_rebased(installed: Workspace) -> None:
    folder = installed.root / "migrations"
    other = json.loads((folder / "0003_step_3.yaml").read_text("utf-8")) | {"revision": "aaaaaaaaaaaa"}
    for names, shared in ((["other"], []), (["x", "call"], ["the token '</call>'", "the token '<call>'"])):
        fork = folder / "0003_fork.yaml"
        fork.write_text(json.dumps(other | {"operations": [{"add_tags": {"names": names}}]}), "utf-8")
        paths = (folder / name for name in ("0003_step_3.yaml", "0003_fork.yaml"))
        ours, theirs = ([yaml_migration(path.read_bytes(), path, path.name, installed.root)] for path in paths)
        assert [each for each in find_conflicts(ours, theirs) if each.startswith("the token")] == shared
    fork.write_text(json.dumps(other | {"operations": [{"add_tags": ["other"]}]}), "utf-8")
    done = answer(installed, "rebase", "aaaaaaaaaaaa", "-M", "m")
    assert [each["revision"] for each in done["moved"]] == ["aaaaaaaaaaaa"]
    answer(installed, "upgrade", "-M", "m")


def test_an_installed_operation_is_linted(installed: Workspace) -> None:
    (installed.root / "migrations" / "0004_more.yaml").write_text(
        "format: 1\nrevision: aaaaaaaaaaaa\ndown_revision: '000000000003'\nmessage: More tags\noperations:\n"
        '  - add_tags: ["to\\u200bol"]\n'
        "  - add_tags: [more]\n"
        "  - set_token_flags: {tokens: <more>, lstrip: true}\n"
    )
    found = answer(installed, "lint", "-M", "m", code=1)["findings"]
    assert {("TM105", 6), ("TM113", 8)} <= {(each["code"], each["line"]) for each in found}


class Unknown(Operation):
    """An operation that says nothing of itself."""

    name: ClassVar[str] = "unknown"

    def apply(self, state: ModelState, context: Context) -> ModelState:
        return with_new_tokens(state, context, (NewToken(content="<x>"),), None)

    def risk(self, before: ModelState, after: ModelState) -> Risk:  # noqa: ARG002
        return Risk(RiskLevel.SAFE, "nothing is known")


def test_an_operation_that_says_nothing_of_itself_is_not_trusted(tmp_path: Path) -> None:
    made = making.workspace(tmp_path, {"m": making.llama(tmp_path / "m")}, [{"operations": []}])
    (migration,) = History.read(made.workspace).chain()
    unknown = replace(migration, operations=(PlannedOperation(Unknown(), "here:1:1"),))
    with pytest.raises(HistoryError, match="what unknown reads and writes is not known"):
        find_conflicts([unknown], [migration])
    before = take_snapshot(made.entry("m")).state
    after = Unknown().apply(before, Context(migration.revision)).settle()
    with pytest.raises(OperationError, match="what unknown does to tokens is not known, and the token '<x>' exists"):
        verify_at_revision(after, [unknown])
    assert Unknown().describe() == "unknown"


BROKEN = """
from typing import Literal
from tokmigrate.init import RowStrategy
from tokmigrate.operations.operation import Operation, Risk, RiskLevel

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
