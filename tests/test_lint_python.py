"""What `tokmigrate lint` sees in the code of Python migrations, and what any migration comes to."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import making
import pytest
from hypothesis import given
from lint_projects import ALL, Project, demo_project, empty_project
from test_properties import Chain, Kind, folder, stories, thorough
from workspaces import image

from tokmigrate.commands.lint import lint
from tokmigrate.lint.linter import Selection
from tokmigrate.lint.rules.tm4_reproducibility import (
    find_file_reads,
    find_set_orders,
    find_world_names,
    find_world_uses,
)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time\nx = time.time()", ["time.time"]),
        ("import time as clock\nx = clock.time()", ["clock.time"]),
        ("from time import time as now_\nx = now_()", ["now_"]),
        ("import os\nx = os.environ['A']", ["os.environ"]),
        ("from os import environ\nx = environ['A']", ["environ"]),
        ("import os\nx = os.getenv('A') or os.path.join('a', 'b')", ["os.getenv"]),
        ("import datetime\nx = datetime.datetime.now()", ["datetime.datetime.now"]),
        ("from datetime import date\nx = date(2026, 1, 1), date.today()", ["date.today"]),
        ("import random\nx = [random.choice('ab') for _ in 'ab']", ["random.choice"]),
        ("import numpy as np\nx = np.random.default_rng()", ["np.random"]),
        ("x = hash('a')", ["hash"]),
        ("import urllib.request\nx = urllib.request.urlopen('u')", ["urllib.request.urlopen"]),
        ("import sys\nx = sys.argv", ["sys.argv"]),
        ("import json, re, math\nx = json.loads('1') + math.pi", []),
        ("def upgrade(op):\n    op.add_tokens(tokens=[t for t in op.tokenizer.ids if t])", []),
    ],
)
def test_what_is_not_the_same_everywhere(source: str, found: list[str]) -> None:
    module = ast.parse(source)
    uses = list(find_world_uses(module, find_world_names(module)))
    assert [ast.get_source_segment(source, use) for use in uses] == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = list({'a', 'b'})", ["{'a', 'b'}"]),
        ("x = [t for t in set(y)]", ["set(y)"]),
        ("new = set(a) - set(b)\nfor t in new:\n    pass", ["new"]),
        ("x = [*{'a', 'b'}]", ["{'a', 'b'}"]),
        ("x = ' '.join(frozenset('ab'))", ["frozenset('ab')"]),
        ("x = list(d.keys() - {'a'})", ["d.keys() - {'a'}"]),
        ("x = sorted({'a', 'b'})", []),
        ("new = sorted(set(a) - set(b))\nfor t in new:\n    pass", []),
        ("x = [t for t in y if t in {'a', 'b'}]", []),
        ("x = len({'a', 'b'}), max({1, 2})", []),
        ("for t in {'a': 1}:\n    pass", []),
        ("for each in {'a', 'b'}:\n    x = list(each)", ["{'a', 'b'}"]),
    ],
)
def test_what_goes_through_a_set(source: str, found: list[str]) -> None:
    assert [ast.get_source_segment(source, use) for use in find_set_orders(ast.parse(source))] == found


@pytest.mark.parametrize(
    "source",
    [
        "x = open('tools.txt').read()",
        "from pathlib import Path\nx = (Path(__file__).parent / 'tools.txt').read_text()",
        "from pathlib import Path\nHERE = Path(__file__).with_name('tools.txt')\nx = HERE.read_text()",
        "with open('tools.txt') as file:\n    x = file.readlines()",
        "files = ['tools.txt']\nfor name in files:\n    x = open(name)",
    ],
)
def test_a_file_that_is_read_is_known_by_its_name(source: str) -> None:
    uses = list(find_file_reads(ast.parse(source)))
    assert uses
    assert all("tools.txt" in texts for _, texts in uses)


def test_what_is_imported(tmp_path: Path) -> None:
    source = (
        "from __future__ import annotations\nimport json\nfrom tokmigrate import errors\nimport yaml, numpy.random\n"
    )
    source += "from . import helper\nfrom tools import NAMES\n\n\ndef upgrade(op):\n    pass\n"
    project = empty_project(tmp_path)
    project.write(source, language="python")
    found = [each.message.split()[2].strip(",") for each in project.lint(Selection(("TM405",))).findings]
    assert sorted(found) == ["'.'", "'numpy.random'", "'tools'", "'yaml'"]


READS = """\
from pathlib import Path

message = "Add the tools"
files = {}


def upgrade(op):
    op.add_tokens(tokens=Path(__file__).with_name("{}").read_text().split())
"""


def test_a_file_is_pinned_where_it_is_listed(tmp_path: Path) -> None:
    project = empty_project(tmp_path)
    for name in ("tools.txt", "other.txt"):
        (tmp_path / "migrations" / name).write_text("<tool>", "utf-8")
    selection = Selection(("TM402",))
    for listed, read, found in (("tools.txt", "tools.txt", []), ("tools.txt", "other.txt", ["TM402"])):
        project.write(READS.format([listed], read), language="python")
        assert project.codes(selection) == found


def test_a_finding_of_several_models_is_one(tmp_path: Path) -> None:
    project = demo_project(tmp_path)
    shutil.copytree(tmp_path / "models" / "demo", tmp_path / "models" / "other")
    models = "{demo: {path: models/demo}, other: {path: models/other}}"
    (tmp_path / "tokmigrate.yaml").write_text(f"format: 1\nmodels: {models}\n", "utf-8")
    project.write("operations:\n  - set_padding: {token: '<|endoftext|>'}\n")
    found = {each.rule.code: each.models for each in project.lint().findings}
    assert found == {"TM303": ("demo", "other")}


@thorough(12)
@given(stories())
def test_any_chain_can_be_read_and_is_not_touched(story: tuple[Kind, Chain, int]) -> None:
    kind, chain, _ = story
    with folder() as root:
        kind.make(root / "m")
        made = making.workspace(root, {"m": root / "m"}, chain.migrations)
        before = image(root)
        linted = lint(made.workspace, [made.entry("m")], ALL)
        assert image(root) == before
        assert linted == lint(made.workspace, [made.entry("m")], ALL)
        assert len(linted.files) == len(chain.migrations)
        for finding in linted.findings:
            # The chain can be applied, and all its tokens are found.
            assert finding.rule.code not in {"TM001", "TM101"}
            place = finding.location
            assert 1 <= place.line <= len(finding.file.lines)
            assert 1 <= place.column <= len(finding.line)


def test_a_project_is_read_alike_from_anywhere_in_it(tmp_path: Path) -> None:
    project = demo_project(tmp_path)
    project.write("operations: []\n")
    assert Project(tmp_path / "models").run().stdout == project.run().stdout
