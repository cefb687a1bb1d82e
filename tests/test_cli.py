"""The command line: what it prints where, with which exit code, and what it says to common mistakes."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from workspaces import (
    BASE,
    DEMO,
    HEAD,
    REPOSITORY,
    Workspace,
    contents,
    edit,
    on_terminal,
    run_here,
)

from tokmigrate import __version__
from tokmigrate.cli.app import COMMANDS
from tokmigrate.cli.lazy_group import postpone_imports
from tokmigrate.errors import error_types
from tokmigrate.revision.migration import Migration
from tokmigrate.state.database import open_state
from tokmigrate.state.rows import Direction


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the one JSON document on stdout."""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def fork(place: Workspace) -> None:
    """Give the history a second head."""
    text = place.migration(3).read_text("utf-8").replace(HEAD, "f0f0f0f0f0f0")
    (place.root / "migrations" / "0004_another_end.yaml").write_text(text, "utf-8")


SENTENCES: tuple[tuple[str, ...], ...] = (
    ("heads",),
    ("history",),
    ("show", "2"),
    ("lint",),
    ("plan",),
    ("upgrade", "+1"),
    ("upgrade",),
    ("upgrade",),
    ("current",),
    ("status",),
    ("log", "--limit", "2"),
    ("diff", "demo", "head"),
    ("log", "--verify-chain"),
    ("log", "--export", "ledger.jsonl"),
    ("blame", "<|im_start|>"),
    ("peft-config",),
    ("import", "another/state.db"),
    ("verify",),
    ("check",),
    ("tag", "chat", "2"),
    ("explain", "TM103"),
    ("test",),
    ("report",),
    ("restore", "3"),
    ("bake", "rows"),
    ("upgrade",),
    ("distil", "--corpus", "roles.txt", "--token", "<|im_start|>", "--steps", "1", "-m", "Distil a role"),
    ("upgrade",),
    ("evaluate", "--corpus", "roles.txt"),
    ("train", "--data", "roles.txt", "--tokens", "new", "--steps", "1", "-m", "Train the roles"),
    ("downgrade", "-1"),
    ("downgrade", BASE),
    ("recover",),
    ("learn", "extend", "tokmigrate.yaml", "--tokens", "2", "-m", "Two more"),
    ("learn", "prune", "tokmigrate.yaml", "--tokens", "900", "-m", "Fewer"),
    ("revision", "-m", "One more"),
    ("lock",),
    ("validate",),
    ("rebase",),
    ("schema",),
    ("squash", "1:2"),
    ("doctor",),
    ("init", "elsewhere"),
)


def test_every_command_prints_one_document(place: Workspace) -> None:
    # What `stamp` prints is asked where a model has lost its stamp.
    assert {"stamp", *(sentence[0] for sentence in SENTENCES)} == set(COMMANDS)
    before = contents(place.model)
    another = open_state("sqlite:///state.db", place.root / "another")
    model = another.model_for("m", place.root / "m")
    run = another.begin(
        model,
        Direction.UPGRADE,
        from_revision=None,
        to_revision=HEAD,
        revisions=[HEAD],
        generation_before=None,
    )
    another.fail(run.id, "no space")
    (place.root / "roles.txt").write_text("<|im_start|>user<|im_end|>\n", "utf-8")
    (place.root / "rows").mkdir()
    config = {"peft_type": "TRAINABLE_TOKENS", "token_indices": [1024]}
    (place.root / "rows" / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    rows = {"base_model.model.model.embed_tokens.trainable_tokens_delta": np.ones((1, 128), np.float32)}
    save_file(rows, place.root / "rows" / "adapter_model.safetensors")
    for sentence in SENTENCES:
        said = place.run(*sentence, "--json")
        assert said.returncode == 0, (sentence, said)
        assert document(said)["schema_version"] == 1, sentence
        assert document(said)["command"] == " ".join(sentence[: 2 if sentence[0] == "learn" else 1])
        assert said.stderr == "", sentence
    assert contents(place.model) == before


@pytest.mark.parametrize(
    ("sentence", "code", "kind"),
    [
        (("--json",), 2, "UsageError"),
        (("nosuch", "--json"), 2, "UsageError"),
        (("upgrade", "--nosuch", "--json"), 2, "UsageError"),
        (("downgrade", "--json"), 2, "UsageError"),
        (("revision", "--json"), 2, "UsageError"),
        (("revision", "-m", "x", "--autogenerate", "--from", "demo", "--json"), 2, "UsageError"),
        (("revision", "-m", "x", "--autogenerate", "--from", "demo", "--to", "x", "--json"), 2, "UnknownNameError"),
        (("revision", "-m", "x", "--to", "demo", "--json"), 2, "UsageError"),
        (("diff", "demo", "nosuch", "--json"), 2, "UnknownNameError"),
        (("diff", "nosuch", "demo", "--json"), 2, "UnknownNameError"),
        (("log", "--limit", "0", "--json"), 2, "UsageError"),
        (("upgrade", "nosuch", "--json"), 2, "UnknownNameError"),
        (("upgrade", "-M", "nosuch", "--json"), 2, "UnknownNameError"),
        (("upgrade", "+9", "--json"), 2, "UsageError"),
        (("downgrade", BASE, "--json"), 1, "AlreadyThereError"),
    ],
)
def test_errors_are_documents_too(place: Workspace, sentence: tuple[str, ...], code: int, kind: str) -> None:
    said = place.run(*sentence)
    assert (said.returncode, said.stderr) == (code, "")
    assert document(said)["schema_version"] == 1
    error = document(said)["error"]
    assert (error["kind"], error["exit_code"]) == (kind, code)
    assert error["explain"] == {each.__name__: each.topic for each in error_types()}[kind]
    assert error["hint"]


def test_two_heads(place: Workspace) -> None:
    fork(place)
    assert [found["revision"] for found in place.asked("heads")["heads"]] == [
        HEAD,
        "f0f0f0f0f0f0",
    ]
    for command in ("plan", "upgrade"):
        said = place.run(command, "--json")
        assert said.returncode == 2
        assert document(said)["error"]["kind"] == "HistoryError"
        assert "down_revision" in document(said)["error"]["hint"]
        assert "0004_another_end.yaml" in document(said)["error"]["message"]
    assert "more than one head" in place.run("heads").stderr
    assert place.run("history").stdout.count("(head)") == 2


def test_problems_of_files_are_listed(place: Workspace) -> None:
    file = place.migration(2)
    edit(file, "add_role_tokens", "add_rol_tokens")
    said = place.run("plan", "--json")
    assert said.returncode == 2
    (problem,) = document(said)["error"]["problems"]
    assert problem["path"] == "migrations/0002_add_chat_roles.yaml"
    assert (problem["line"], problem["column"]) == (9, 5)
    assert "add_role_tokens" in f"{problem['message']} {problem['hint']}"
    assert place.run("plan").stderr.startswith("error: migrations/0002_add_chat_roles.yaml:9:5: ")


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        (("upgrad",), ("No such command 'upgrad'", "'upgrade'")),
        (("upgrade", "nosuch"), ("no revision is called 'nosuch'", "tokmigrate history")),
        (("upgrade", HEAD[:-1] + "0"), ("no revision is called", f"did you mean '{HEAD}'?")),
        (("downgrade",), ("Missing argument", "`tokmigrate downgrade -1`", "`tokmigrate downgrade base`")),
        (("downgrade", "nosuch"), ("no revision is called 'nosuch'", "tokmigrate history")),
        (("downgrade", "--nosuch"), ("no revision is called '--nosuch'", "tokmigrate history")),
        (("downgrade", "-1"), ("leads past the base", "the model is at base: there is no revision before it")),
        (("downgrade", "--", "-2"), ("leads past the base", "the model is at base: there is no revision before it")),
        (("plan", "+9"), ("leads past the head", "the model is at base: give +1 to +3, or head")),
        (("revision",), ("message", "tokmigrate revision --help")),
        (("lint", "--format", "xml"), ("'--format': 'xml' is not one of", "`tokmigrate lint --help`")),
        (("log", "--limit", "x"), ("'--limit': expected a whole number", "`tokmigrate log --help`")),
        (("log", "--limit", "0"), ("'--limit': has to be greater than or equal to 1", "`tokmigrate log --help`")),
        (("import", "none/../ex.jsonl"), ("place/ex.jsonl: there is no ledger", "an exported file")),
        (("revision", "-m", " "), ("needs a message", "-m TEXT")),
        (("init",), ("a workspace exists already", "tokmigrate.yaml")),
        (("show", BASE), ("there is no file of it", "tokmigrate history")),
        (("plan", "-M", "dem"), ("no model is called 'dem'", "did you mean 'demo'?")),
    ],
)
def test_mistakes_are_reported(place: Workspace, sentence: tuple[str, ...], words: tuple[str, ...]) -> None:
    said = place.run(*sentence)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("error: ")
    assert all(word in said.stderr for word in words), said.stderr
    assert "Traceback" not in said.stderr


def test_ambiguous_prefixes_are_reported(place: Workspace) -> None:
    file = place.migration(3)
    edit(file, HEAD, "9f3c99999999")
    said = place.run("upgrade", "9f3c")
    assert said.returncode == 2
    assert "'9f3c' can mean any of 9f3c2a7e41b0" in said.stderr
    assert "9f3c99999999" in said.stderr
    assert place.run("show", "9f3c2").returncode == 0


def test_the_first_steps_of_a_user(tmp_path: Path) -> None:
    said = run_here(tmp_path, "current")
    assert said.returncode == 2
    assert "tokmigrate init" in said.stderr
    assert run_here(tmp_path, "init").returncode == 0
    assert (tmp_path / ".gitignore").read_text("utf-8").splitlines() == [".tokmigrate/", ".*.tokmigrate/"]
    assert [path.name for path in (tmp_path / "migrations").iterdir()] == [".gitkeep"]
    for command in ("history", "heads"):
        assert "no migrations yet" in run_here(tmp_path, command).stdout
    said = run_here(tmp_path, "upgrade")
    assert said.returncode == 2
    assert "the workspace has no models" in said.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    for sentence in (("plan",), ("upgrade",), ("verify",), ("status",), ("downgrade", BASE)):
        said = run_here(tmp_path, *sentence, "-M", "empty")
        assert (said.returncode, said.stdout) == (1, "")
        assert "there is no config.json" in said.stderr
    assert list(empty.iterdir()) == []
    assert "next: fill in its operations" in run_here(tmp_path, "revision", "-m", "First things").stdout
    assert run_here(tmp_path, "revision", "-m", "Second things", "--python").returncode == 0
    assert sorted(path.name for path in (tmp_path / "migrations").iterdir()) == [
        ".gitkeep",
        "0001_first_things.yaml",
        "0002_second_things.py",
        "tokmigrate.lock",
        "tokmigrate.schema.json",
    ]


@pytest.mark.parametrize("mark", ["#", "# "])
def test_a_line_of_the_new_settings_is_uncommented(tmp_path: Path, mark: str) -> None:
    assert run_here(tmp_path, "init").returncode == 0
    settings = tmp_path / "tokmigrate.yaml"
    lines = settings.read_text("utf-8").splitlines(keepends=True)
    assert "#  demo: {path: models/demo}\n" in lines
    shutil.copytree(DEMO, tmp_path / "models" / "demo")
    settings.write_text("".join(line.removeprefix(mark) if "demo:" in line else line for line in lines), "utf-8")
    assert run_here(tmp_path, "current").stdout == "demo: base\n"
    blocks = "".join(lines).partition("models:\n")[2].partition("\n\n")
    uncommented = "".join(f"{line.removeprefix(mark)}\n" for line in blocks[0].splitlines())
    settings.write_text("".join(lines).replace(f"{blocks[0]}\n", uncommented), "utf-8")
    assert run_here(tmp_path, "current").stdout == "demo: base\n"
    assert "support-7b: " in run_here(tmp_path, "current").stderr


def test_show_tells_all_that_a_migration_says(place: Workspace) -> None:
    said = [
        'init: {strategy: copy, token: "the"}',
        'preconditions: [{token_absent: "<new>"}, {model_type: llama}]',
        'operations: [{add_tokens: ["<new>"]}]',
        'verify: [{single_token: "<new>"}, {encodes: {text: "a<new>", tokens: ["a", "<new>"]}}]',
    ]
    head = f"format: 1\nrevision: aaaa0001\ndown_revision: {HEAD}\nauthor: Somebody\nmessage: All of it\n"
    (place.root / "migrations" / "0004_all.yaml").write_text(head + "\n".join(said) + "\n", "utf-8")
    shown = place.run("show", "aaaa").stdout
    told = place.asked("show", "aaaa")["migration"]
    assert told["preconditions"] == [{"token_absent": "<new>"}, {"model_type": "llama"}]
    assert told["verify"][1] == {"encodes": {"text": "a<new>", "tokens": ["a", "<new>"]}}
    assert told["init"] == {"strategy": "copy", "token": "the"}
    for line in ('token_absent: "<new>"', 'model_type: "llama"', 'single_token: "<new>"', '"tokens": ["a", "<new>"]'):
        assert line in shown
    assert '{"strategy": "copy", "token": "the"}' in shown
    # A field that a migration gets one day has to be shown too.
    renamed = {
        "checks": "verify",
        "path": "file",
        "shown": "file",
        "number": "file",
        "source": "python",
        "data": "file",
    }
    assert {renamed.get(field.name, field.name) for field in fields(Migration)} == told.keys()


def test_a_migration_without_operations_is_a_warning(place: Workspace) -> None:
    place.run("revision", "-m", "Nothing yet")
    warning = "migrations/0004_nothing_yet.yaml has no operations: it changes nothing but the revision"
    said = place.run("plan")
    assert "Nothing yet" in said.stdout
    assert "it has no operations" in said.stdout
    assert said.stderr == f"warning: demo: {warning}\n"
    assert place.asked("plan")["models"][0]["warnings"] == [warning]
    # An empty migration is applied, as Alembic does.
    done = place.run("upgrade", "--json")
    assert (done.returncode, done.stderr) == (0, f"warning: demo: {warning}\n")
    assert document(done)["models"][0]["warnings"] == [warning]


def test_models_by_name_and_by_path(place: Workspace) -> None:
    other = place.root / "models" / "other"
    shutil.copytree(place.model, other)
    for word in ("demo", "models/demo", str(place.model)):
        models = place.asked("current", "--model", word)["models"]
        assert [model["model"] for model in models] == ["demo"]
    words = ("-M", "models/demo", "-M", "demo", "-M", "models/other")
    assert place.run("upgrade", *words, "0001").returncode == 0
    models = place.asked("current", *words)["models"]
    assert models == [{"model": "demo", "revision": "3b8f0d5a61c2"}, {"model": "other", "revision": "3b8f0d5a61c2"}]
    assert run_here(place.root / "migrations", "current").stdout == "demo: 3b8f0d5a61c2\n"


def test_what_people_read(place: Workspace) -> None:
    said = place.run("upgrade")
    assert "rows          1024 → 1088" in said.stdout
    assert said.stdout.endswith("`tokmigrate downgrade base` goes back\n")
    assert f"nothing is pending, it is at {HEAD}" in place.run("upgrade").stdout
    newest, *_, oldest = place.run("history").stdout.splitlines()[1:]
    assert newest.rstrip().endswith("demo (head)")
    assert oldest.split()[:3] == ["0001", "3b8f0d5a61c2", "base"]
    assert 'add_role_tokens: {"preset": "chatml"}' in place.run("show", "2").stdout
    run, *_ = place.run("log").stdout.splitlines()
    assert f"demo: upgrade base → {HEAD}  APPLIED, " in run
    assert place.run("verify").stdout == f"demo: {HEAD}, no file changed\n"
    template = place.model / "chat_template.jinja"
    template.write_text(template.read_text("utf-8") + " ", "utf-8")
    said = place.run("verify")
    assert said.returncode == 4
    assert said.stdout == f"demo: {HEAD}, changed since it was migrated: chat_template.jinja\n"
    assert document(place.run("verify", "--json"))["models"][0]["changed"] == ["chat_template.jinja"]
    assert place.run("downgrade", BASE).returncode == 4


def test_an_interruption_by_the_user(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tokmigrate.revision.history.migration_files", stop)
    said = place.run("history")
    assert said.returncode == 130
    assert "tokmigrate recover" in said.stderr
    error = document(place.run("history", "--json"))["error"]
    assert (error["message"], error["exit_code"]) == ("stopped", 130)


def test_help_and_version(place: Workspace) -> None:
    bare = place.run()
    assert bare.returncode == 2
    assert "Usage: tokmigrate" in bare.stdout
    assert "error" not in bare.stderr
    assert place.run("--version").stdout == f"tokmigrate {__version__}\n"
    for name in COMMANDS:
        said = place.run(name, "--help")
        assert said.returncode == 0
        assert f"Usage: tokmigrate {name}" in said.stdout
        assert "--json" in said.stdout or name == "learn"
    for name in ("extend", "prune", "transplant", "reinit"):
        assert "--json" in place.run("learn", name, "--help").stdout


def loaded(*words: str, cwd: Path) -> set[str]:
    """Return the top-level modules that a Python program loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=True
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_nothing_heavy_is_loaded_early(place: Workspace) -> None:
    heavy = {"torch", "transformers", "tokenizers", "safetensors", "numpy", "sqlalchemy", "jinja2"}
    found = loaded("-c", "import tokmigrate.cli.app", cwd=place.root)
    assert "typer" in found
    assert not (heavy | {"pydantic", "rich"}) & found
    load_all = "import typer; from tokmigrate.cli.app import *; group = typer.main.get_command(app);"
    assert not heavy & loaded("-c", f"{load_all} [group.load(name) for name in COMMANDS]", cwd=place.root)
    assert not heavy & loaded("-m", "tokmigrate.cli.app", "current", cwd=place.root)
    # There is no state yet, and nothing to compute: of both packages only the name is known.
    run_late = {"numpy", "sqlalchemy", "jinja2"}
    for command in ("history", "status", "plan"):
        found = loaded("-m", "tokmigrate.cli.app", command, cwd=place.root)
        assert not ({*heavy, "numpy._core", "sqlalchemy.sql"} - run_late) & found, command


def test_a_module_that_two_threads_use_first_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(0.2)\nANSWERS = [42]\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with postpone_imports("slow_*"):
        module = import_module("slow_module")
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        answers = [answer.result() for answer in [pool.submit(getattr, module, "ANSWERS") for _ in range(4)]]
    assert time.monotonic() - started > 0.2
    assert all(each is answers[0] for each in answers)


def test_each_command_leads_to_its_code() -> None:
    """From a command one follows definitions: no closure, lambda or partial stands between, and no local import."""
    for path in (REPOSITORY / "tokmigrate" / "cli").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        assert not [each for each in ast.walk(tree) if isinstance(each, ast.Lambda)], path
        for function in (each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)):
            inner = [each for each in ast.walk(function) if each is not function]
            assert not [each for each in inner if isinstance(each, ast.FunctionDef | ast.Import | ast.ImportFrom)], path
            assert not [each for each in inner if isinstance(each, ast.Name) and each.id == "partial"], path


def test_a_terminal_of_80_columns(place: Workspace) -> None:
    sent = on_terminal(place, "upgrade")
    plan, work = re.split(r"their share *\n", sent, maxsplit=1)
    assert "━" not in plan
    assert "2.1 MiB to be written\n" in plan
    bar, _, result = work.rpartition("━")
    assert "━" in bar
    assert result.endswith(
        "\x1b[1A\x1b[2Kdemo: upgraded to c07d18e2b9f4, 2.1 MiB written; `tokmigrate downgrade base` goes back\n"
    )
    for command in ("log", "status"):
        sent = on_terminal(place, command, NO_COLOR="1")
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", sent)
        shown = re.sub(r"\x1b\[[0-9;]*m", "", sent)
        assert max(len(line) for line in shown.splitlines()) <= 80
        assert HEAD in shown


def test_what_a_narrow_terminal_folds_hangs(place: Workspace) -> None:
    place.run("upgrade")
    for words, headline in ((("log",), r"\d{4}-\d\d-\d\d "), (("blame", "<|im_start|>"), "demo: ")):
        sent = on_terminal(place, *words, COLUMNS="60", NO_COLOR="1")
        lines = re.sub(r"\x1b\[[0-9;]*m", "", sent).splitlines()
        assert all(len(line) <= 60 for line in lines)
        assert [line for line in lines if not line.startswith("  ")] == [
            line for line in lines if re.match(headline, line)
        ]
        assert any(re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  ", line) for line in lines)


def test_a_terminal_shows_what_is_being_done(place: Workspace) -> None:
    sent = on_terminal(place, "upgrade", "+2")
    steps = (
        "staging",
        "computing the new rows",
        "comparing what was written",
        "publishing",
        "upgraded to",
    )
    places = [sent.index(step) for step in steps]
    assert places == sorted(places)
    assert "2.1 MiB of 2.1 MiB" in sent
    assert not re.search(r"\d [kMG]B", sent)
    edit(place.settings, "verify: fast", "verify: full")
    sent = on_terminal(place, "downgrade", "base")
    assert "demo: verifying" in sent
    assert "demo: reading" in on_terminal(place, "report")


def test_a_plan_is_there_before_the_work(place: Workspace) -> None:
    edit(place.migration(3), '"<|pad|>"\n', '"a b c"\n')
    done = place.run("upgrade")
    assert done.returncode == 1
    assert "rows          1024 → 1088" in done.stdout
    assert "upgraded" not in done.stdout
    assert "a `verify:` case does not hold" in done.stderr


def test_a_plan_in_a_file_is_reported(place: Workspace) -> None:
    said = place.run("plan", "-o", "plan.json")
    assert said.stdout.endswith("wrote plan.json: `tokmigrate upgrade --plan plan.json` applies it\n")
    held = (place.root / "plan.json").read_text("utf-8")
    said = place.run("plan", "-o", "-")
    assert json.loads(said.stdout) == json.loads(held)
    assert "rows          1024 → 1088" in said.stderr
    assert not (place.root / "-").exists()
    said = place.run("plan", "--json", "-o", "plan.json")
    assert document(said)["command"] == "plan"
    said = place.run("plan", "--json", "-o", "-")
    assert (said.returncode, document(said)["error"]["kind"]) == (2, "UsageError")


def test_a_pipe_gets_whole_lines(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "")
    done = run_here(place.root, "plan")
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "  safe     old text is tokenized as before; the new rows are not trained yet\n" in done.stdout
    monkeypatch.setenv("COLUMNS", "40")
    assert "…" not in run_here(place.root, "plan").stdout
