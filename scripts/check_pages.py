"""Check links and examples of all pages: `python scripts/check_pages.py` prints faults, and how many were checked."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import typer._click.exceptions as click
import yaml
from command_tables import commands

from tokmigrate.cli.app import COMMANDS, COMMON_OPTIONS
from tokmigrate.errors import FileProblems
from tokmigrate.operations.registry import operation_types
from tokmigrate.revision.yaml_file import yaml_migration
from tokmigrate.settings import FILE_NAME, read_workspace

ROOT = Path(__file__).resolve().parent.parent
HOME = re.compile(r"https://github\.com/tokmigrate/tokmigrate/(?:blob|tree|edit)/main/([^#]*)")

# Pages whose YAML is for a plug-in, or shows what lint refuses; tests run all of it.
_RUN_ELSEWHERE = re.compile(r"docs/(plugins\.md|rules/.*)")
_FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_HEREDOC = re.compile(r"^[^\n#]*?(?:>+ *(\S+) *)?<<'?(\w+)'?[^\n]*\n(.*?)^\2$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_HEAD = {"format": "1", "revision": "aaaa0001"}
# What starts another command in a line of a shell.
_OPERATORS = {"&&", "||", ";", "|", "(", ")", "!", "&", "{", "}", "then", "do", "$("}


@dataclass
class Report:
    """Faults, and how many things of each kind were checked."""

    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, where: str, fault: str | None) -> None:
        self.counts[kind] += 1
        if fault:
            self.faults.append(f"{where}: {fault}")


def pages(root: Path = ROOT) -> list[Path]:
    """Return every page of the repository, those that only GitHub shows too."""
    patterns = ("*.md", "docs/**/*.md", "benchmarks/*.md", ".github/**/*.md")
    return sorted(path for pattern in patterns for path in root.glob(pattern))


def check_pages(paths: list[Path], root: Path = ROOT) -> Report:
    """Check links and examples of pages."""
    report = Report()
    for path in paths:
        _check_links(path, root, report)
        _check_examples(path, root, report)
    return report


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    shown = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in shown}


def _check_links(path: Path, root: Path, report: Report) -> None:
    prose = _SPAN.sub("", _FENCE.sub("", path.read_text("utf-8")))
    links = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'\b(?:src|srcset|href)="([^"\s]+)"', prose)
    for link in links:
        home = HOME.match(link)
        if home:
            report.add("links to the repository", f"{_name(path, root)}: {link}", _missing(root / home[1]))
        elif re.match(r"[a-z]+:", link):
            report.counts["links to other sites, which are not followed"] += 1
        else:
            report.add("links", f"{_name(path, root)}: {link}", _find_link_fault(path, link))


def _missing(path: Path) -> str | None:
    return None if path.exists() else "leads nowhere"


def _find_link_fault(page: Path, link: str) -> str | None:
    target, _, anchor = link.partition("#")
    there = page.parent / unquote(target) if target else page
    if anchor and there.is_file() and anchor not in anchors(there):
        return "has no such heading"
    return _missing(there)


def _check_examples(path: Path, root: Path, report: Report) -> None:
    text, name = path.read_text("utf-8"), _name(path, root)
    for fence in _FENCE.finditer(text):
        language, code = fence[2], re.sub(rf"^{fence[1]}", "", fence[3], flags=re.MULTILINE)
        where = f"{name}:{text[: fence.start()].count(chr(10)) + 1}"
        if language in ("bash", "sh"):
            report.add("shell examples", where, _find_shell_fault(code))
            for target, _, content in _HEREDOC.findall(code):
                _check_file(target.rpartition(".")[2], content, where, report)
            _check_commands(_HEREDOC.sub("", code), where, report)
        elif language in ("", "text", "console"):
            # The rest of a text is what a command printed.
            prompt = r"\$ " if language else r"(?:\$ )?"
            _check_commands("\n".join(re.findall(rf"^{prompt}(tokmigrate .*)", code, re.MULTILINE)), where, report)
        elif language != "yaml" or not _RUN_ELSEWHERE.fullmatch(name):
            _check_file(language, code, where, report)
    for span in _SPAN.finditer(_FENCE.sub("", text)):
        words = " ".join(span[2].split())
        if words.startswith("tokmigrate "):
            report.add("commands in text", f"{name}: `{words}`", _find_option_fault(words))


def _check_file(kind: str, content: str, where: str, report: Report) -> None:
    if kind in ("yaml", "yml"):
        _check_yaml(content, where, report)
    elif kind in _READERS:
        name, read = _READERS[kind]
        fault = None
        try:
            read(content)
        except (ValueError, SyntaxError) as error:
            fault = str(error)
        report.add(f"{name} examples", where, fault)


def _compile(text: str) -> object:
    return compile(text, "example", "exec")


_READERS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "json": ("JSON", json.loads),
    "jsonl": ("JSON", lambda text: [*map(json.loads, text.splitlines())]),
    "python": ("Python", _compile),
    "py": ("Python", _compile),
    "toml": ("TOML", tomllib.loads),
}


def _find_shell_fault(code: str) -> str | None:
    done = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)  # noqa: S607
    return done.stderr.strip() or None


def _check_yaml(text: str, where: str, report: Report) -> None:
    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        report.add("YAML of other tools", where, str(error))
        return
    keys = {*value[0]} if isinstance(value, list) and value and isinstance(value[0], dict) else set()
    if keys & set(operation_types()):
        text = "operations:\n" + "".join(f"  {line}\n" for line in text.splitlines())
        value = {"operations": value}
    if not isinstance(value, dict) or _is_of_another_tool(value):
        known = isinstance(value, dict) or {"uses", "repo", "run"} & keys
        report.add("YAML of other tools", where, None if known else "is neither a migration nor known")
    elif {"operations", "preconditions", "revision", "init"} & set(value) or isinstance(value.get("verify"), list):
        report.add("migrations", where, _find_migration_fault(text, value))
    else:
        report.add("settings", where, _find_settings_fault(text, value))


def _is_of_another_tool(value: Mapping[str, Any]) -> bool:
    jobs = (each for each in value.values() if isinstance(each, dict))
    # YAML 1.1 takes `on` for true.
    return bool({"jobs", "repos", True} & set(value)) or any("script" in job for job in jobs)


def _find_migration_fault(text: str, value: Mapping[str, Any]) -> str | None:
    head = "".join(f"{key}: {given}\n" for key, given in _HEAD.items() if key not in value)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "migrations" / "0001_example.yaml"
        try:
            yaml_migration((head + text).encode(), path, path.name, Path(folder))
        except FileProblems as error:
            # Files that an example names are not there.
            faults = [
                problem.message
                for problem in error.problems
                if not re.search("no such file|not there", problem.message)
            ]
            return "; ".join(faults) or None
    return None


def _find_settings_fault(text: str, value: Mapping[str, Any]) -> str | None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAME
        path.write_text(text if "format" in value else f"format: 1\n{text}", "utf-8")
        try:
            read_workspace(path, {})
        except FileProblems as error:
            return "; ".join(problem.message for problem in error.problems)
    return None


def _check_commands(code: str, where: str, report: Report) -> None:
    for words in _commands_in(code.replace("\\\n", " ")):
        line = shlex.join(words)
        report.add("commands in examples", f"{where}: {line}", _find_command_fault(words))


def _commands_in(code: str) -> Iterator[list[str]]:
    """Yield the words of each call of tokmigrate."""
    for line in _logical_lines(code):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        found: list[str] | None = None
        is_start = True
        for word in lexer:
            if set(word) <= set("();<>|&") or word in _OPERATORS:
                if found:
                    yield found
                found, is_start = None, word not in (">", ">>", "<", ">&", "&>")
            elif found is not None:
                found.append(word)
            elif is_start and word == "tokmigrate":
                found = [word]
            else:
                # A setting of the environment may stand before a command.
                is_start = is_start and "=" in word
        if found:
            yield found


def _logical_lines(code: str) -> Iterator[str]:
    """Yield lines; one whose quotation goes on is joined with the next."""
    held = ""
    for line in code.splitlines():
        held = f"{held}\n{line}" if held else line
        try:
            shlex.split(held, comments=True)
        except ValueError:
            continue
        yield held
        held = ""


def _find_command_fault(words: list[str]) -> str | None:
    name, rest = _command_of(words[1:])
    if name is None:
        return None if words[1:2] in (["--version"], ["--help"]) else "is no command"
    if "--help" in rest:
        return None
    try:
        known()[name].make_context(name, [word for word in rest if word not in COMMON_OPTIONS])
    except click.ClickException as error:
        return error.format_message()
    return None


def _find_option_fault(words: str) -> str | None:
    """Return what is wrong with a command in text, which may leave out arguments."""
    given = words.split()[1:]
    name, rest = _command_of(given)
    if name is None:
        # A group, an option of the program or a placeholder is none.
        return "is no command" if re.fullmatch(r"[a-z][a-z-]*", given[0]) and given[0] not in COMMANDS else None
    options = {word for each in known()[name].params for word in (*each.opts, *each.secondary_opts)}
    used = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    unknown = used - options - {*COMMON_OPTIONS, "--help"}
    return f"has no option {', '.join(sorted(unknown))}" if unknown else None


def _command_of(words: list[str]) -> tuple[str | None, list[str]]:
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in known():
            return name, words[length:]
    return None, words


@cache
def known() -> Mapping[str, Any]:
    """Return the commands by their names."""
    return commands()


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def main() -> int:
    """Print faults and numbers; return 1 where there is a fault."""
    paths = pages()
    report = check_pages(paths)
    print(*report.faults, sep="\n", end="\n" if report.faults else "")
    print(f"{len(paths)} pages:", ", ".join(f"{number} {kind}" for kind, number in sorted(report.counts.items())))
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(main())
