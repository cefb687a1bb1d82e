"""Hooks of `mkdocs build`: patterns in the navigation, links to other files, tables as GitHub reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import join, normpath
from typing import Any

_GENERATED = ("operations", "reference", "rules", "strategies")
_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2$", re.DOTALL | re.MULTILINE)
_ROW = re.compile(r"^\|.*$", re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")


def on_config(config: Any) -> Any:
    """Put the pages that a pattern of the navigation matches in its place."""
    pages = Path(config.docs_dir)
    named = {each for each in _leaves(config.nav) if "*" not in each}
    config.nav = _with_pages(config.nav, pages, named)
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Lead links to files outside the folder of the pages to the repository, and read `\\|` in tables as `|`."""
    if page.is_homepage:
        page.meta.setdefault("hide", ["navigation"])
    folder = Path(page.file.src_uri).parent.as_posix()
    if folder in _GENERATED or re.search(r"^Generated (?:from|by) ", markdown, re.MULTILINE):
        page.edit_url = None
    pieces: list[str] = []
    end = 0
    for fence in (*_FENCE.finditer(markdown), None):
        prose = markdown[end : fence.start() if fence else None]
        prose = _ROW.sub(lambda row: _CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0]), prose)
        pieces += [_lead_to_repository(prose, folder, config), fence[0] if fence else ""]
        end = fence.end() if fence else end
    return "".join(pieces)


def _lead_to_repository(text: str, folder: str, config: Any) -> str:
    root = Path(config.config_file_path).parent

    def lead(link: re.Match[str]) -> str:
        target = normpath(join(folder, link[2]))
        if not target.startswith("../"):
            return link[0]
        path = normpath(join(Path(config.docs_dir).name, target))
        kind = "tree" if (root / path).is_dir() else "blob"
        return f"{link[1]}{config.repo_url}/{kind}/main/{path}{link[3]}"

    return _LINK.sub(lead, text)


def _leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for each in nav.values() if isinstance(nav, dict) else nav:
            yield from _leaves(each)


def _with_pages(nav: Any, pages: Path, named: set[str]) -> Any:
    if isinstance(nav, dict):
        return {title: _with_pages(each, pages, named) for title, each in nav.items()}
    if isinstance(nav, str):
        return nav
    found: list[Any] = []
    for each in nav:
        if isinstance(each, str) and "*" in each:
            matches = sorted(path.relative_to(pages).as_posix() for path in pages.glob(each))
            found += [match for match in matches if match not in named]
        else:
            found.append(_with_pages(each, pages, named))
    return found
