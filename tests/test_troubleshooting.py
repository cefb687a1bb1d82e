"""Each error has a page, and what the page says to do about each cause is done: then the command works."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from check_pages import check_pages
from error_scenarios import EXIT_CODE_SCENARIOS, SCENARIOS, Scenario, Trouble
from workspaces import REPOSITORY, Workspace, contents

from tokmigrate.errors import EXIT_CODES, TokmigrateError, error_types

DOCS = REPOSITORY / "docs"
INDEX = (DOCS / "troubleshooting.md").read_text("utf-8")
TYPES = {each.topic: each for each in error_types()}
EXAMPLE_ROOT = "/home/ada/chat"

_BLOCK = re.compile(r"```(bash|diff|yaml)\n(.*?)```", re.DOTALL)


def read_page(name: str) -> str:
    return (DOCS / "errors" / f"{name}.md").read_text("utf-8")


def causes_of(page: str) -> list[str]:
    """Return the headings of the remedies of a page that have something to carry out."""
    remedies = read_page(page).split("\n## What to do\n")[1].split("\n## ")[0]
    parts = re.findall(r"^### (.+)\n((?:(?!^###).*\n)*)", remedies, re.MULTILINE)
    return [cause for cause, text in parts if _BLOCK.search(text)]


def blocks(text: str, heading: str) -> Iterator[tuple[str, str, str]]:
    """Yield the blocks below a heading: the language, the text, and the file that was named before it."""
    section = re.split(rf"^###? {re.escape(heading)}\n", text, flags=re.MULTILINE)[1]
    section = re.split(r"^##", section, flags=re.MULTILINE)[0]
    for block in _BLOCK.finditer(section):
        named = re.findall(r"[Ii]n `([\w./]+)`:?", section[: block.start()])
        yield block[1], block[2], named[-1] if named else "tokmigrate.yaml"


def carry_out(place: Workspace, text: str, heading: str, trouble: Trouble) -> None:
    """Do what a page says below a heading: run the commands, and edit the files."""

    def fill(block: str) -> str:
        return re.sub(r"\b[A-Z]{2,}\b", lambda word: trouble.fill.get(word[0], word[0]), block)

    done = 0
    for language, block, file in blocks(text, heading):
        done += 1
        if language == "bash":
            for line in fill(block).splitlines():
                if line.startswith("cd "):
                    place = Workspace((place.root / line[3:]).resolve())
                else:
                    assert run(place, line) == trouble.remedy_code, line
        elif language == "diff":
            replace_lines(place.root / fill(file), fill(block))
        else:
            set_keys(place.root / file, fill(block))
    assert done


def run(place: Workspace, line: str) -> int:
    """Run a line of a page, a command of tokmigrate in this process."""
    program, *words = shlex.split(line)
    if program == "tokmigrate":
        return place.run(*words).returncode
    return subprocess.run(["bash", "-c", line], cwd=place.root, capture_output=True, check=False).returncode


def replace_lines(path: Path, diff: str) -> None:
    """Replace the line with `-` by that with `+`."""
    old, new = (re.findall(rf"^\{sign}(.*)$", diff, re.MULTILINE) for sign in "-+")
    text = path.read_text("utf-8")
    for before, after in zip(old, new, strict=True):
        assert text.count(before) == 1
        text = text.replace(before, after)
    path.write_text(text, "utf-8")


def set_keys(path: Path, yaml: str) -> None:
    """Give the keys at the top of a YAML file their new values."""
    text = path.read_text("utf-8")
    for entry in re.findall(r"^\w.*\n(?:[ ].*\n)*", yaml, re.MULTILINE):
        key = entry.split(":")[0]
        text = re.sub(rf"^{key}:.*\n(?:[ ].*\n)*", "", text, flags=re.MULTILINE) + entry
    path.write_text(text, "utf-8")


def fail(place: Workspace, trouble: Trouble) -> tuple[type[TokmigrateError], str]:
    """Run the command that fails; return the class of its error, and what a terminal shows."""
    here = Workspace(place.root / trouble.folder)
    done = here.run(*shlex.split(trouble.command), "--debug")
    name = re.findall(r"^tokmigrate\.errors\.(\w+)", done.stderr, re.MULTILINE)[-1]
    (kind,) = (each for each in TYPES.values() if each.__name__ == name)
    assert done.returncode == kind.exit_code
    said = done.stderr[done.stderr.rindex("\nerror: ") + 1 :]
    return kind, f"$ tokmigrate {trouble.command}\n{said}".replace(str(place.root), EXAMPLE_ROOT)


def without_digests(text: str) -> str:
    """Return a text without the digests that depend on the times of files."""
    return re.sub(r"\b[0-9a-f]{2}/?[0-9a-f]{62}\b", "…", text)


@pytest.mark.parametrize("case", SCENARIOS, ids=[f"{each.page}: {each.cause}" for each in SCENARIOS])
def test_the_remedy_of_an_error_works(place: Workspace, monkeypatch: pytest.MonkeyPatch, case: Scenario) -> None:
    trouble = case.provoke(place, monkeypatch)
    before = contents(place.model)
    kind, said = fail(place, trouble)
    assert kind.topic == case.page
    # "Nothing was changed."
    assert contents(place.model) == before
    page = read_page(case.page)
    if case is next(each for each in SCENARIOS if each.page == case.page):
        (example,) = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
        assert without_digests(example) == without_digests(said)
    here = Workspace(place.root / trouble.folder)
    carry_out(here, page, case.cause, trouble)
    if trouble.then is not None:
        done = here.run(*shlex.split(trouble.command))
        assert done.returncode == trouble.then, done.stdout + done.stderr


def test_each_error_has_a_page_and_each_remedy_is_carried_out() -> None:
    assert {path.stem for path in (DOCS / "errors").glob("*.md")} == TYPES.keys()
    for topic, kind in TYPES.items():
        title, _, about, *_ = read_page(topic).splitlines()
        assert title.startswith(f"# {topic}: ")
        assert f"`{kind.__name__}`" in about
        assert f"exit code {kind.exit_code} " in about
        parent = kind.__base__
        assert f"[{getattr(parent, 'topic', '')}](" in about or parent in (Exception, TokmigrateError)
        assert f"| [{topic}](errors/{topic}.md) | {kind.exit_code} |" in INDEX
        assert causes_of(topic) == [each.cause for each in SCENARIOS if each.page == topic]
    counts = re.search(r"There are (\d+) kinds of errors.* for (\d+) causes", " ".join(INDEX.split()))
    assert counts
    assert (int(counts[1]), int(counts[2])) == (len(TYPES), len(SCENARIOS))


def test_each_exit_code_has_a_section() -> None:
    assert [int(code) for code in re.findall(r"^## Exit code (\d+): ", INDEX, re.MULTILINE)] == list(EXIT_CODES)
    for code in EXIT_CODES:
        assert "In CI" in section_of(code)
    # The others send the reader to the page of an error, or need nothing.
    assert {code for code in EXIT_CODES if _BLOCK.search(section_of(code))} == EXIT_CODE_SCENARIOS.keys()


def section_of(code: int) -> str:
    return re.split(rf"^## Exit code {code}: ", INDEX, flags=re.MULTILINE)[1].split("\n## ")[0]


@pytest.mark.parametrize("code", EXIT_CODE_SCENARIOS)
def test_what_the_section_of_an_exit_code_says_works(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    trouble = EXIT_CODE_SCENARIOS[code](place, monkeypatch)
    words = shlex.split(trouble.command)
    assert place.run(*words).returncode == code
    carry_out(place, INDEX, next(line[3:] for line in INDEX.splitlines() if f"Exit code {code}:" in line), trouble)
    assert place.run(*words).returncode == 0


def test_upgrade_with_nothing_to_do_exits_with_0(place: Workspace) -> None:
    assert [place.run("upgrade").returncode for _ in range(2)] == [0, 0]


def test_what_tells_of_a_symptom_can_be_run(place: Workspace) -> None:
    shutil.copytree(place.model, place.root / "old")
    place.run("upgrade")
    (place.root / "texts.txt").write_text("A valley with apples.\n" * 5, "utf-8")
    names = {
        "OLD": "old",
        "SAVED": "old",
        "MODEL": "models/demo",
        "SERVED": "old",
        "FILE": "texts.txt",
        "TOKEN": '"<|im_start|>"',
    }
    rows = re.findall(r"^\| .*", INDEX.split("\n## No error")[1], re.MULTILINE)[1:]
    for command in dict.fromkeys(row.split(" | ")[1].strip("`") for row in rows):
        line = re.sub(r"\b[A-Z]{2,}\b", lambda word: names[word[0]], command)
        # These exit with 1 for what they find.
        finds = "--exit-code" in line or "--target gguf" in line
        assert run(place, line) == finds, line


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((REPOSITORY / "tokmigrate").rglob("*.py")):
        yield path, ast.parse(path.read_text("utf-8"))


def test_each_error_says_what_to_do() -> None:
    # The faults of FileProblems have hints of their own.
    names = {each.__name__ for each in TYPES.values()} - {"FileProblems"}
    calls = [
        (f"{path}:{call.lineno}", {keyword.arg for keyword in call.keywords})
        for path, module in sources()
        for call in ast.walk(module)
        if isinstance(call, ast.Call) and ast.unparse(call.func).removeprefix("errors.") in names and call.args
    ]
    assert len(calls) > 400
    assert [place for place, arguments in calls if "hint" not in arguments] == []


def test_commands_that_messages_name_are_commands(tmp_path: Path) -> None:
    texts = [
        re.sub(r"\{[^}]*\}", "VALUE", ast.unparse(text))
        for _, module in sources()
        for text in ast.walk(module)
        if isinstance(text, ast.JoinedStr | ast.Constant)
    ]
    named = {command for text in texts for command in re.findall(r"`(tokmigrate [^`\n]+)`", text)}
    assert len(named) > 50
    page = tmp_path / "page.md"
    page.write_text("".join(f"`{command}`\n\n" for command in sorted(named)), "utf-8")
    assert check_pages([page], tmp_path).faults == []
