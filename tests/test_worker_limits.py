"""What a worker may use, and the error where it needs more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_worker import write_model, write_tokenizer
from workspaces import Workspace, contents, make_workspace

from tokmigrate.commands.lint import lint
from tokmigrate.errors import FileProblems, LimitError, OperationError
from tokmigrate.lint.linter import Selection
from tokmigrate.model.documents.chat_template import parse_template
from tokmigrate.model.worker.worker import call_worker
from tokmigrate.settings import WorkerLimits, read_workspace

MEMORY = "{{ 'x' * 900000000 }}"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
SLOW = "{% for a in range(99999) %}{% for b in range(999) %}{% if b %}{% endif %}{% endfor %}{% endfor %}"


def model_with_template(root: Path, template: str) -> str:
    directory = write_model(root)
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "chat_template": template}), "utf-8")
    return str(directory)


@pytest.mark.parametrize(
    ("template", "limits", "words"),
    [
        (MEMORY, WorkerLimits(memory_mib=400), "more than 400 MiB of memory"),
        (LOOPS, WorkerLimits(cpu_seconds=1), "more than 1 second of CPU time"),
    ],
)
def test_a_template_that_needs_too_much_is_an_error(
    tmp_path: Path, template: str, limits: WorkerLimits, words: str
) -> None:
    directory = model_with_template(tmp_path, template)
    start = time.monotonic()
    with pytest.raises(LimitError, match=words) as raised:
        call_worker("transformers", {"directory": directory}, limits)
    assert time.monotonic() - start < 30
    assert raised.value.where == directory
    (setting,) = (name for name in ("memory_mib", "cpu_seconds") if name in str(raised.value.hint))
    assert f"worker: {{{setting}: {2 * getattr(limits, setting)}}}" in str(raised.value.hint)


@pytest.mark.parametrize(
    "template", [f"{{{{ {'(' * 9999}1{')' * 9999} }}}}", "{% if 1 %}" * 9999, f"{{{{ {'9' * 9999} }}}}"]
)
def test_a_template_that_jinja_cannot_compile_is_an_error(template: str) -> None:
    with pytest.raises(OperationError, match="not a Jinja template that can be compiled"):
        parse_template(template)


def test_every_worker_is_limited(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path)
    with pytest.raises(LimitError, match="output"):
        call_worker("tokenizer", {"file": str(path), "encode": ["ab" * 200_000]}, WorkerLimits(output_mib=1))
    with pytest.raises(LimitError, match="memory"):
        call_worker("tokenizer", {"file": str(path), "encode": ["ab" * 3_000_000]}, WorkerLimits(memory_mib=100))
    assert (
        call_worker(
            "tokenizer",
            {"file": str(path), "encode": ["ab"]},
            WorkerLimits(memory_mib=100, cpu_seconds=5, output_mib=1),
        )["size"]
        == 6
    )


def test_cpu_time_counts_again_with_each_step_of_a_long_answer() -> None:
    code = """
import time
from tokmigrate.model.worker.worker_main import run_streaming_worker

def answer(request, tell):
    for step in range(4):
        until = time.process_time() + 0.9
        while time.process_time() < until:
            pass
        tell(step)
    return {}

run_streaming_worker(answer)
"""
    # A second more than a step needs: the kernel counts in ticks, and is not exact where the machine is busy.
    limits = {"memory_mib": 4096, "cpu_seconds": 2, "output_mib": 1}
    asked = json.dumps({"limits": limits})
    done = subprocess.run([sys.executable, "-c", code], input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"answer": {}}


def make_place(root: Path, template: str, limits: str) -> Workspace:
    """Make a workspace with limits, whose only migration sets a chat template."""
    place = make_workspace(root)
    settings = place.settings.read_text("utf-8")
    place.settings.write_text(f"{settings}worker: {{{limits}}}\n", "utf-8")
    for path in (place.root / "migrations").glob("*"):
        path.unlink()
    text = json.dumps(template)
    migration = f"revision: aaaa0001\ndown_revision: null\nmessage: m\noperations:\n  - set_chat_template: {text}\n"
    (place.root / "migrations" / "0001_m.yaml").write_text(f"format: 1\n{migration}", "utf-8")
    return place


def test_limits_are_those_of_the_settings_and_nothing_is_changed(tmp_path: Path) -> None:
    place = make_place(tmp_path / "w", MEMORY, "memory_mib: 400, cpu_seconds: 20")
    settings = place.settings.read_text("utf-8")
    place.settings.write_text(settings.replace("verify: fast", "verify: full"), "utf-8")
    before = contents(place.model)
    done = place.run("upgrade")
    assert (done.returncode, contents(place.model)) == (1, before)
    assert "need more than 400 MiB of memory" in done.stderr
    assert "worker: {memory_mib: 800}" in done.stderr


def test_wrong_limits_are_named_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "tokmigrate.yaml"
    path.write_text("format: 1\nworker:\n  memory_mib: 0\n  cpu_second: 3\n", "utf-8")
    with pytest.raises(FileProblems) as raised:
        read_workspace(path, {})
    assert [(problem.line, problem.column) for problem in raised.value.problems] == [(3, 15), (4, 3)]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (LOOPS, "need more than 2 seconds of CPU time"),
        (MEMORY, "need more than 400 MiB of memory"),
        ("{{ messages[0].text.strip() }}", "cannot be rendered: UndefinedError"),
        ("{{ raise_exception('no system message') }}", "cannot be rendered: TemplateError: no system message"),
        ("{{ ''.__class__.__mro__ }}", "cannot be rendered: SecurityError"),
        ("{{ bos_token + messages[0].content }}{% generation %}a{% endgeneration %}{{ strftime_now('%Y') }}", None),
    ],
)
def test_lint_warns_of_templates(tmp_path: Path, template: str, words: str | None) -> None:
    found = warnings(tmp_path, template)
    assert [words in each for each in found if words] == ([True] if words else [])
    assert bool(found) == bool(words)


def test_lint_warns_of_slow_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokmigrate.commands.lint._TEMPLATE_SECONDS", 60)
    (found,) = warnings(tmp_path, SLOW)
    assert re.search(r"needs \d+\.\d seconds of CPU time for one message", found)


def warnings(root: Path, template: str) -> list[str]:
    """Return what the rule on rendering says of a migration that sets the template."""
    place = make_place(root / "w", template, "memory_mib: 400")
    workspace = read_workspace(place.settings, {})
    found = lint(workspace, workspace.select([]), Selection(("TM309",))).findings
    return [each.message for each in found]
