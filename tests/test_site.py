"""The documentation site: it builds without a warning, needs no network, and its links and search work."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
from browser import browsed
from generated_files import find_stale
from make_plots import PATTERNS, RESULTS, generated
from workspaces import REPOSITORY


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def test_every_page_is_on_the_site_and_in_the_navigation(site: Path) -> None:
    navigation = (site / "index.html").read_text("utf-8").split('data-md-type="navigation"')[1]
    for page in (REPOSITORY / "docs").rglob("*.md"):
        name = page.relative_to(REPOSITORY / "docs").with_suffix(".html").as_posix()
        assert (site / name).is_file(), name
        assert f'href="{name}"' in navigation, name


def test_links_of_the_site_lead_somewhere(site: Path) -> None:
    pages = {path: path.read_text("utf-8") for path in site.rglob("*.html") if path.name != "404.html"}
    anchors = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    for path, text in pages.items():
        for link in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            parts = urlsplit(html.unescape(link))
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), (path.name, link)
            if parts.fragment and parts.fragment != "__skip":
                assert unquote(parts.fragment) in anchors[target], (path.name, link)


def test_links_to_other_files_of_the_repository_name_files(site: Path) -> None:
    repository = re.escape("https://github.com/tokmigrate/tokmigrate/")
    named = {
        path
        for page in site.rglob("*.html")
        for path in re.findall(rf'href="{repository}(?:blob|tree|edit)/main/([^"#]+)', page.read_text("utf-8"))
    }
    assert "benchmarks/RESULTS.md" in named
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    for path in site.rglob("*.html"):
        loading = r'<(?:script|img|iframe|link rel="(?:stylesheet|icon|preconnect)")[^>]*(?:src|href)="(?:https?:)?//'
        assert not re.search(loading, path.read_text("utf-8")), path


def test_search_works_in_a_folder_without_a_server(site: Path) -> None:
    dom = browsed(site / "rules" / "TM103.html", "--dump-dom", fragment="?q=padding")
    results = set(re.findall(r'<a href="([^"?#]+)[^"]*" class="md-search-result__link"', dom))
    assert (site / "operations" / "set_padding.html").as_uri() in results


def test_tables_are_read_as_github_reads_them(site: Path) -> None:
    assert "<code>NAME|PATH</code>" in (site / "reference" / "commands-run.html").read_text("utf-8")


def test_the_plots_are_made_of_the_results() -> None:
    texts = generated((REPOSITORY / RESULTS).read_text("utf-8"))
    assert find_stale(texts, PATTERNS) == [], "python scripts/make_plots.py"
    for text in texts.values():
        ElementTree.fromstring(text)  # noqa: S314 - a file of this repository
