"""How much a command prints and where it goes: quiet, verbose, a pager, colours."""

from __future__ import annotations

import re
import shutil

import pytest
from command_tables import commands
from workspaces import HEAD, Workspace, edit, make_workspace, on_terminal, run_here, type_on_terminal

from tokmigrate.cli import app


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace that no test changes."""
    return make_workspace(tmp_path_factory.mktemp("shared"))


def test_no_command_has_an_option_of_the_program() -> None:
    common = {"-q", "--quiet", "-v", "--verbose", "--no-pager", "--debug"}
    assert set(app.COMMON_OPTIONS) == common
    for name, command in commands().items():
        assert not common & {word for each in command.params for word in (*each.opts, *each.secondary_opts)}, name


def test_quiet_prints_results_and_errors_only(place: Workspace) -> None:
    quiet = "-q"
    edit(place.settings, "models:\n", "models:\n  gone: {path: models/gone}\n")
    loud = place.run("status", "--here")
    assert "note: skipped" in loud.stderr
    for words in ((quiet, "status", "--here"), ("status", "--here", "--quiet")):
        done = place.run(*words)
        assert (done.returncode, done.stdout, done.stderr) == (0, loud.stdout, "")
    done = place.run("upgrade", "-M", "demo", quiet)
    line = "demo: upgraded to c07d18e2b9f4, 2.1 MiB written; `tokmigrate downgrade base` goes back\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, line, "")
    loud, done = place.run("plan", "-M", "demo", "-o", "-"), place.run("plan", "-M", "demo", "-o", "-", quiet)
    assert (done.stdout, done.stderr) == (loud.stdout, "")
    assert loud.stderr
    loud, done = place.run("status"), place.run("status", quiet)
    assert (done.returncode, done.stderr) == (loud.returncode, loud.stderr)
    assert done.returncode == 1
    assert "error: " in done.stderr


def test_quiet_shows_no_progress_on_a_terminal(place: Workspace) -> None:
    assert on_terminal(place, "upgrade", "-q").startswith("demo: upgraded to ")


def test_verbose_prints_each_step_with_its_time(place: Workspace) -> None:
    verbose = "-v"
    done = place.run("upgrade", verbose)
    assert done.returncode == 0
    *lines, last = done.stderr.splitlines()
    times, steps = zip(*(re.split(" s  demo: ", line, maxsplit=1) for line in lines), strict=True)
    assert list(map(float, times)) == sorted(map(float, times))
    # Libraries that have accepted it by then are not waited for.
    assert [step for step in steps if step != "verifying"] == [
        *("locked", "recorded", "staging, 2.1 MiB", "computing the new rows", "staged", "verified"),
        *("stamped", "prepared", "swapped", "followed", "applied", "cleaned"),
    ]
    assert re.fullmatch(r"exit code 0 after \d+\.\d\d s", last)
    done = place.run("--verbose", "show", "nosuch")
    assert done.returncode == 2
    assert re.search(r"^exit code 2 after ", done.stderr, re.MULTILINE)
    (place.root / "texts.txt").write_text("a b\n" * 9, "utf-8")
    place.run("downgrade", "base")
    assert re.search(r"demo: tokenizing the corpus took \d", place.run("plan", "--corpus", "texts.txt", verbose).stderr)


def test_the_last_option_holds_and_none_does_after_two_dashes(shared: Workspace) -> None:
    assert "exit code" not in run_here(shared.root, "current", "-v", "-q").stderr
    assert "exit code" in run_here(shared.root, "current", "-q", "-v").stderr
    assert "'-v'" in run_here(shared.root, "blame", "--", "-v").stderr
    assert "exit code" not in run_here(shared.root, "current").stderr


PAGER = "sed s/^/paged:/"


def test_commands_that_only_read_use_a_pager() -> None:
    paged = {"plan", "history", "show", "status", "diff", "log", "blame", "explain"}
    assert {name for name, entry in app.COMMANDS.items() if entry.pages} == paged


@pytest.mark.parametrize("words", [("plan",), ("explain", "TM103"), ("diff", "--help")], ids=" ".join)
def test_long_output_goes_to_a_pager(shared: Workspace, words: tuple[str, ...]) -> None:
    code, sent = type_on_terminal(shared, *words, lines=4, PAGER="cat", TOKMIGRATE_PAGER=PAGER)
    assert code == 0
    lines = sent.splitlines()
    assert len(lines) > 3
    assert all(line.startswith("paged:") for line in lines)
    assert "\x1b[" in sent


@pytest.mark.parametrize(
    ("words", "lines", "pagers"),
    [
        (("history",), 200, (PAGER, PAGER)),
        (("--no-pager", "history"), 3, (PAGER, PAGER)),
        (("history",), 3, (PAGER, "")),
        # What cannot be run or fails shows nothing, so the output is printed.
        (("history",), 3, (PAGER, "no-such-pager -x")),
        (("history",), 3, (PAGER, "false")),
        (("validate",), 1, (PAGER, PAGER)),
    ],
)
def test_what_needs_no_pager(shared: Workspace, words: tuple[str, ...], lines: int, pagers: tuple[str, str]) -> None:
    code, sent = type_on_terminal(shared, *words, lines=lines, PAGER=pagers[0], TOKMIGRATE_PAGER=pagers[1])
    assert code == 0
    assert "paged:" not in sent
    assert HEAD in sent or "3 migrations" in sent


@pytest.mark.parametrize("keys", [[b"q"], [b"G", b"\x03", b"\x03", b"q"]], ids=repr)
def test_less_is_left_without_a_trace(shared: Workspace, keys: list[bytes]) -> None:
    code, sent = type_on_terminal(shared, "diff", "demo", "head", "--exit-code", lines=9, keys=keys)
    assert code == 1
    assert "demo" in sent
    assert "Traceback" not in sent
    assert "error" not in sent
    assert "\x1b[1m" in sent


def test_a_pager_that_reads_nothing_changes_no_exit_code(place: Workspace) -> None:
    tokens = ", ".join(f"<{number}{'x' * 90}>" for number in range(3_000))
    place.add_migration(f"  - add_tokens: {{tokens: [{tokens}]}}\n")
    code, sent = type_on_terminal(place, "plan", "--json", lines=9, PAGER="true")
    assert (code, sent) == (0, "")


def test_errors_stay_in_their_place(place: Workspace) -> None:
    text = place.settings.read_text("utf-8")
    shutil.copytree(place.model, place.root / "models" / "one")
    models = "models:\n  one: {path: models/one}\n  gone: {path: models/gone}\n"
    place.settings.write_text(text.replace("models:\n", models), "utf-8")
    code, sent = type_on_terminal(place, "status", lines=200, PAGER=PAGER)
    assert code == 1
    assert sent.index("one") < sent.index("error: ") < sent.rindex("demo")
    code, sent = type_on_terminal(place, "status", lines=3, PAGER=PAGER)
    assert code == 1
    assert sent.startswith("paged:")
    assert "\nerror: " in sent


def test_colours_are_asked_for_and_refused(shared: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-9]")
    assert coloured.search(on_terminal(shared, "plan"))
    assert not coloured.search(on_terminal(shared, "plan", NO_COLOR="1"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    plain = run_here(shared.root, "plan").stdout
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    forced = run_here(shared.root, "plan").stdout
    assert coloured.search(forced)
    without = re.sub(r"\x1b\[[0-9;]*m", "", forced)
    assert [line.rstrip() for line in without.splitlines()] == plain.splitlines()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured.search(run_here(shared.root, "plan").stdout)


def test_colours_can_be_read_on_light_and_dark_ground(place: Workspace) -> None:
    sent = "".join(
        on_terminal(place, *words)
        for words in (
            ("upgrade",),
            ("plan", "--help"),
            ("--help",),
            ("log",),
            ("diff", "demo", "base"),
            ("explain", "TM103"),
        )
    )
    styles = {code for found in re.findall(r"\x1b\[([0-9;]*)m", sent) for code in found.split(";")}
    # Reset, bold, dim, underlined, red, green and magenta; no 256 colours, no bright ones, no ground.
    assert styles <= {"", "0", "1", "2", "4", "31", "32", "35"}
    assert "35" in styles
