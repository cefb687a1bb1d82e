"""What README and docs tell a user to type, typed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import check_words
import make_session
import pytest
from make_plots import RESULTS, read_tables
from workspaces import DEMO, REPOSITORY, contents, environment, run_here

README = (REPOSITORY / "README.md").read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language; "" for those that name none."""
    return [
        code
        for found, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        if found == language
    ]


def typed(directory: Path, line: str) -> str:
    """Type a line into a shell with `tokmigrate` on its path, and return what it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=directory,
        env={**environment(), "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def without_installation(block: str) -> str:
    """Return a block without its `pip install`, which CI does."""
    return re.sub(r"^pip install [^&\n]*(&& )?", "", block, flags=re.MULTILINE)


def test_the_two_commands_leave_a_clean_repository(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(DEMO, clone / "models" / "demo")
    shutil.copytree(REPOSITORY / "migrations", clone / "migrations")
    shutil.copy(REPOSITORY / ".gitignore", clone)
    settings = (REPOSITORY / "tokmigrate.yaml").read_text("utf-8")
    (clone / "tokmigrate.yaml").write_text(settings.replace("verify: full", "verify: fast"), "utf-8")
    typed(clone, "git init -q && git add -A && git -c user.name=a -c user.email=a@b commit -qm start")

    upgrade, looks, tests, _ = blocks(README, "bash")
    assert upgrade == "pip install -c constraints.txt . && tokmigrate upgrade\n"
    before = contents(clone / "models" / "demo")
    assert "demo: upgraded to c07d18e2b9f4" in typed(clone, without_installation(upgrade))
    assert " M models/demo/tokenizer.json" in typed(clone, "git status --porcelain")
    said = typed(clone, without_installation(looks))
    assert "demo (head)" in said
    assert "demo: c07d18e2b9f4\n" in said
    assert "demo: c07d18e2b9f4 → base" in said
    assert typed(clone, "git status --porcelain") == ""
    assert contents(clone / "models" / "demo") == before
    assert without_installation(tests) == "pytest\n"
    assert typed(clone, "tokmigrate explain TM103").startswith("# TM103: ")


def test_the_new_rows_of_the_demo_are_trained(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "models", tmp_path / "models")
    shutil.copytree(REPOSITORY / "migrations", tmp_path / "migrations")
    settings = (REPOSITORY / "tokmigrate.yaml").read_text("utf-8").replace("verify: full", "verify: fast")
    (tmp_path / "tokmigrate.yaml").write_text(settings, "utf-8")
    before = contents(tmp_path / "models" / "demo")
    losses: list[float] = []
    for line in blocks(README, "bash")[3].splitlines():
        done = run_here(tmp_path, *shlex.split(line)[1:])
        assert (done.returncode, done.stderr) == (0, ""), line
        losses += map(float, re.findall(r"nats per new token \(\d+\) +- +([\d.]+)", done.stdout))
        if " status" in line:
            said = "2 of 3 new tokens trained by tokmigrate train: 100 steps on demo-chat.jsonl, demo-text.txt: "
            assert said in " ".join(done.stdout.split())
    assert "`migrations/0004_train_the_chat_tokens.yaml`" in README
    assert (tmp_path / "migrations" / "0004_train_the_chat_tokens.yaml").is_file()
    assert losses[0] == pytest.approx(12.5, abs=0.05)
    assert losses[1] < 1.2
    assert contents(tmp_path / "models" / "demo") == before


def test_a_migration_of_ones_own(tmp_path: Path) -> None:
    shutil.copytree(DEMO, tmp_path / "my-model")
    before = contents(tmp_path / "my-model")
    first, second = blocks(README, "")
    assert "created tokmigrate.yaml" in typed(tmp_path, first)
    listed = re.search(r"`(models: \{mine: \{path: /data/my-model\}\})`", README)
    assert listed is not None
    settings = tmp_path / "tokmigrate.yaml"
    text = settings.read_text("utf-8").replace("models:\n", listed[1].replace("/data/", "") + "\n")
    settings.write_text(text.replace("full", "fast"), "utf-8")

    typed(tmp_path, second)
    written = re.search(r"writes `(migrations/\S+)`", README)
    assert written is not None
    migration = tmp_path / written[1]
    assert migration.is_file()
    (example,) = blocks(README, "yaml")
    migration.write_text(example, "utf-8")

    planned = typed(tmp_path, "tokmigrate plan")
    assert re.search(r'^"<tool_call>"\s+1024\s+new *$', planned, re.MULTILINE)
    assert re.search(r'^"</tool_call>"\s+1025\s+new *$', planned, re.MULTILINE)
    for word in ("safe", "rows          1024 → 1026", "model-00001-of-00002.safetensors", "to be written"):
        assert word in planned
    (tmp_path / "texts.txt").write_text("No tool.\n<tool_call>look</tool_call>\n", "utf-8")
    measuring = re.search(r"`(tokmigrate plan --corpus \S+)`", README)
    assert measuring is not None
    assert re.search(r"^lines tokenized differently +1  50\.0 %", typed(tmp_path, measuring[1]), re.MULTILINE)
    assert "mine: upgraded to 5d2e8c914a7b" in typed(tmp_path, "tokmigrate upgrade")

    assert "no problem found" in typed(tmp_path, "tokmigrate doctor && tokmigrate explain TM103")
    typed(tmp_path, 'tokmigrate revision -m "In Python" --python')
    (script,) = (tmp_path / "migrations").glob("*.py")
    assert "op.add_tokens(tokens=[" in README
    text = script.read_text("utf-8").replace("    pass\n", '    op.add_tokens(tokens=["<more>"])\n')
    script.write_text(text, "utf-8")
    assert '"<more>"  1026  new' in typed(tmp_path, "tokmigrate upgrade")
    assert "<more>" in typed(tmp_path, "! tokmigrate diff my-model base --exit-code && tokmigrate status")
    typed(tmp_path, "tokmigrate downgrade base")
    assert contents(tmp_path / "my-model") == before


def test_every_command_of_the_readme_is_typed_by_a_test() -> None:
    """The blocks of README and tutorial are run from top to bottom; so are the commands of `typed` in this file."""
    pages = (REPOSITORY / "README.md", REPOSITORY / "docs" / "tutorial.md")
    run = "".join(block for page in pages for block in blocks(page.read_text("utf-8"), "bash"))
    run += Path(__file__).read_text("utf-8")
    for command in re.findall(r"`tokmigrate ([a-z-]+)", README):
        assert re.search(rf"\btokmigrate {command}\b", run), command


def test_the_picture_is_what_the_commands_print() -> None:
    path = REPOSITORY / make_session.PICTURE
    for page in ("README.md", "docs/index.md"):
        assert path.name in (REPOSITORY / page).read_text("utf-8")
    assert path.read_text("utf-8") == make_session.picture()


def test_the_figures_are_those_of_the_results() -> None:
    (measured,) = read_tables((REPOSITORY / RESULTS).read_text("utf-8"))["Two tokens, 6 GB"]
    runs = {
        "copy of the two shards, with fsync": "cp + fsync of the touched shards",
        "the script, `mean_resizing=False`": "usual script, mean_resizing=False",
        "the script": "usual script",
        "`tokmigrate upgrade`": "tokmigrate: upgrade",
        "`tokmigrate downgrade base`": "tokmigrate: downgrade",
        "the next `upgrade` with `isolate_vocab`": "isolate_vocab: second upgrade",
    }
    for name, run in runs.items():
        row = next(row for row in measured if row["run"] == run)
        (cells,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", README, re.MULTILINE)
        shown = [float(number) for number in re.findall(r"([\d.]+) G?[sB]", cells)]
        figures = (float(row["wall s"]), float(row["CPU s"]), float(row["memory MB"]) / 1000)
        assert shown == pytest.approx(figures[: len(shown)], abs=0.051)


def test_pages_and_package_use_the_words_of_the_field() -> None:
    assert [
        f"{left.path.name}:{left.line}: {left.word}: say {left.say}"
        for left in check_words.all_words_left()
        if not left.reason
    ] == []


def test_words_that_are_left_are_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('def _told():\n    # a stand-in of the model\n    return "the standard deviation settles it"\n')
    found = [*check_words.words_left(path, check_words.texts(path)), *check_words.participles(path)]
    assert [(left.line, left.word, left.reason is None) for left in found] == [
        (2, "stand-in", True),
        (3, "deviation", False),
        (3, "settles", True),
        (1, "_told", True),
    ]


def test_pages_for_developers_name_files_that_exist() -> None:
    for page in ("CONTRIBUTING.md", "docs/architecture.md", "docs/publishing.md", "docs/subsystems.md"):
        text = (REPOSITORY / page).read_text("utf-8")
        for path in re.findall(r"`([\w/.-]+/[\w-]+\.py)`", text):
            made_up = path.endswith(("set_mask.py", "half_mean.py"))
            found = [REPOSITORY / path, REPOSITORY / "tokmigrate" / path]
            assert made_up or any(each.is_file() for each in found), path


def test_every_page_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        targets = {(page.parent / target).resolve() for target in re.findall(r"\]\(([^)#:]+\.md)[^)]*\)", prose(page))}
        waiting += targets - reached
    assert {*(REPOSITORY / "docs").rglob("*.md")} <= reached


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_ci_runs_what_the_readme_says() -> None:
    script = REPOSITORY / ".ci" / "run"
    if not script.is_file():
        pytest.skip("a source distribution has no .ci/run")
    (reading,) = (line for line in script.read_text("utf-8").splitlines() if line.startswith("command="))
    assert typed(REPOSITORY, f'{reading}; echo "$command"') == blocks(README, "bash")[2]
    assert 'bash -euo pipefail -c "$command"' in script.read_text("utf-8")
