"""What `doctor` says about an installation, a state, and filesystems; it changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import postgresql
import pytest
from test_filesystem import in_namespace
from workspaces import DEMO, REPOSITORY, Workspace, edit, environment, image

from tokmigrate.apply.abilities import Abilities
from tokmigrate.commands.doctor import GIVES, DirectoryHealth, ModelHealth, WorkspaceHealth
from tokmigrate.render.doctor import workspace_text
from tokmigrate.render.terminal import format_plain
from tokmigrate.state.database import open_state


def examine(place: Workspace, *words: str, code: int = 0) -> dict[str, Any]:
    document = place.asked("doctor", *words, code=code)
    assert bool(document["problems"]) == bool(code)
    return document


def test_it_examines_a_workspace_and_changes_nothing(place: Workspace) -> None:
    before, names = image(place.root), sorted(place.root.rglob("*"))
    found = examine(place)
    assert found["state"]["kind"] == "SQLite"
    assert found["state"]["version"] is None
    ((directory,),) = [model["directories"] for model in found["models"]]
    assert directory["path"] == str(place.model)
    assert directory["abilities"]["free_bytes"] > 0
    assert (image(place.root), sorted(place.root.rglob("*"))) == (before, names)
    open_state("sqlite:///.tokmigrate/state.db", place.root)
    assert examine(place)["state"]["version"] == 2


def test_a_gguf_that_has_to_follow_is_looked_at(place: Workspace) -> None:
    text = place.settings.read_text("utf-8")
    copies = "models:\n  demo: {path: models/demo, copies: [{path: g/m.gguf, follow: true}]}\n"
    place.settings.write_text(copies.join(text.split("models:\n  demo: {path: models/demo}\n")), "utf-8")
    (problem,) = examine(place, code=1)["problems"]
    assert "cannot look at the GGUF: No such file or directory" in problem["message"]
    (place.root / "g").mkdir()
    (place.root / "g" / "m.gguf").touch()
    assert examine(place)["problems"] == []


def test_a_workspace_without_models_is_said_to_be_one(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    assert place.run("init").returncode == 0
    assert "\nno model: list one under `models:` in tokmigrate.yaml\n" in place.run("doctor").stdout


def test_outside_a_workspace_only_the_installation_is_examined(tmp_path: Path) -> None:
    script = (
        "import sys; from tokmigrate.cli.app import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "doctor", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert {"tokmigrate", "python", "transformers", "tokenizers", "torch", "safetensors"} <= set(found["versions"])
    assert not {"state", "models"} & set(found)
    assert not {"torch", "transformers", "tokenizers"} & set(done.stderr.split())


def test_extras_and_versions_that_do_not_suit(tmp_path: Path) -> None:
    about = tmp_path / "tokmigrate-9.dist-info"
    about.mkdir()
    needed = ("torch<1", "nosuch>=2", "rich", 'pyarrow<1; extra == "corpus"', 'peft; extra == "train"')
    lines = ("Metadata-Version: 2.4", "Name: tokmigrate", "Version: 9", *(f"Requires-Dist: {each}" for each in needed))
    (about / "METADATA").write_text("\n".join(lines) + "\n", "utf-8")
    command = [sys.executable, "-m", "tokmigrate", "doctor"]
    paths = {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(REPOSITORY)))}
    done = subprocess.run(command, cwd=tmp_path, env=environment() | paths, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nosuch missing" in done.stdout
    assert "problem: nosuch is missing: tokmigrate needs nosuch>=2\n  what to do: pip install " in done.stdout
    assert ": tokmigrate needs torch<1\n" in done.stdout
    assert "corpus    missing: pyarrow<1" in done.stdout
    assert 'pip install "tokmigrate[corpus]"' in done.stdout
    assert "train     complete" in done.stdout
    assert done.stdout.endswith("\n2 problems found\n")


def test_it_knows_what_each_extra_gives() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(GIVES) == set(project["optional-dependencies"]) - {"all", "dev", "docs"}


SCRIPT = """
import json, os, subprocess, sys
os.chdir("mounted")
def examine():
    command = [sys.executable, "-m", "tokmigrate", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    return [done.returncode, json.loads(done.stdout)]
found = [examine()]
subprocess.run(["mount", "-o", "remount,ro", "."], check=True)
print(json.dumps([*found, examine()]))
"""


@pytest.mark.parametrize(("maker", "reflink"), [("mkfs.xfs -q -m reflink=1", True), ("mkfs.ext4 -q -I 256", False)])
def test_abilities_are_those_of_the_filesystem(tmp_path: Path, maker: str, reflink: bool) -> None:
    if shutil.which(maker.split(maxsplit=1)[0]) is None or shutil.which("losetup") is None:
        pytest.skip(f"no {maker} or no losetup here to make a filesystem")
    (tmp_path / "mounted").mkdir()
    mounting = (
        f"truncate -s 400M image && {maker} image >&2 && mount -o loop image mounted && cp -r {DEMO} mounted/demo"
    )
    settings = "format: 1\\nmodels: {demo: {path: demo}}\\n"
    answer = in_namespace(tmp_path, f"{mounting} && printf '{settings}' > mounted/tokmigrate.yaml", SCRIPT)
    assert isinstance(answer, list)
    (code, found), (code_read_only, read_only) = answer
    abilities = found["models"][0]["directories"][0]["abilities"]
    assert 0 < abilities.pop("free_bytes") < 400 << 20
    assert (code, abilities) == (0, {"swap": True, "reflink": reflink, "hard_links": True, "attributes": True})
    assert code_read_only == 1
    assert read_only["models"][0]["directories"][0]["abilities"] is None
    assert {each["where"].rpartition("/")[2] for each in read_only["problems"]} >= {"demo"}


def test_what_a_missing_ability_means() -> None:
    none = Abilities(swap=False, reflink=False, hard_links=False, attributes=False, free_bytes=5 << 30)
    model = ModelHealth("demo", (DirectoryHealth(Path("/models/demo"), none),), None, ())
    text = "".join(map(format_plain, workspace_text(WorkspaceHealth(None, ()), [model])))
    assert text.count(" no  ") == 4
    assert "tokmigrate recover" in text
    assert "5.0 GiB" in text


def broken_yaml(place: Workspace) -> None:
    place.settings.write_text("format: 1\nnosuch: 1\n", "utf-8")


def missing_model(place: Workspace) -> None:
    shutil.rmtree(place.model)


def interrupted_change(place: Workspace) -> None:
    place.area.mkdir()
    (place.area / "journal").write_text("{}\n", "utf-8")


def damaged_journal(place: Workspace) -> None:
    place.area.mkdir()
    (place.area / "journal").write_text("{", "utf-8")


def missing_adapter(place: Workspace) -> None:
    edit(place.settings, "path: models/demo", "path: models/demo, adapters: [lora]")


def interrupted_migrations(place: Workspace) -> None:
    (place.root / ".tokmigrate").mkdir()
    (place.root / ".tokmigrate" / "migrations.journal").write_text("{}\n", "utf-8")


def newer_state(place: Workspace) -> None:
    state = open_state("sqlite:///.tokmigrate/state.db", place.root)
    with state.begin_write() as connection:
        connection.exec_driver_sql("UPDATE meta SET value = '99' WHERE key = 'schema_version'")


def no_database(place: Workspace) -> None:
    (place.root / ".tokmigrate").mkdir()
    (place.root / ".tokmigrate" / "state.db").write_text("no database" * 100, "utf-8")


def file_in_the_way(place: Workspace) -> None:
    place.area.write_text("in the way", "utf-8")


def root_as_model(place: Workspace) -> None:
    place.settings.write_text("format: 1\nmodels: {root: {path: /}}\n", "utf-8")


@pytest.mark.parametrize(
    ("breaks", "topic", "hint"),
    [
        (broken_yaml, "file-problems", None),
        (missing_model, "missing-model", "correct its path"),
        (interrupted_change, "recovery-needed", "tokmigrate recover"),
        (damaged_journal, "storage", "move both"),
        (missing_adapter, "model", "adapters:"),
        (interrupted_migrations, "recovery-needed", "tokmigrate recover"),
        (newer_state, "format", "upgrade tokmigrate"),
        (no_database, "storage", None),
        (file_in_the_way, "storage", "move it"),
        (root_as_model, "storage", "name the model directory"),
    ],
)
def test_problems(place: Workspace, breaks: Any, topic: str, hint: str | None) -> None:
    breaks(place)
    names = sorted(place.root.rglob("*"))
    (problem,) = examine(place, code=1)["problems"]
    assert problem["explain"] == topic
    assert hint is None or hint in problem["hint"]
    assert sorted(place.root.rglob("*")) == names
    said = place.run("doctor")
    assert said.returncode == 1
    assert said.stdout.endswith("\n1 problem found\n")
    assert said.stdout.startswith("tokmigrate ")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgresql.server() as found:
        yield found


def test_a_state_in_postgresql(place: Workspace, url: str) -> None:
    place.settings.write_text(f"format: 1\nstate: {url}\nmodels:\n  demo: {{path: models/demo}}\n", "utf-8")
    assert examine(place)["state"]["version"] is None
    state = open_state(url, place.root)
    found = examine(place)["state"]
    assert (found["kind"], found["version"]) == ("PostgreSQL", 2)
    with state.begin_write() as connection:
        connection.exec_driver_sql("CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    reader = url.replace("postgres@", "reader@")
    edit(place.settings, url, reader)
    (problem,) = examine(place, code=1)["problems"]
    assert "read only" in problem["message"]
