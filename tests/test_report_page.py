"""The page of the report: what a parser and a browser make of it, whatever tokens are called."""

from __future__ import annotations

import base64
import copy
import json
import re
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import browsed
from hypothesis import given, settings
from hypothesis import strategies as st
from making import llama, migrated
from PIL import Image
from shared_models import SharedModel, shared_model

from tokmigrate.commands.report import Report, collect_report
from tokmigrate.render.escape import escape_parts, escape_prose_parts
from tokmigrate.render.html import LISTED_AT_MOST, format_page

VOID = {"meta", "input", "br", "link", "img", "hr"}
HOSTILE = "</script><b>\u202eevil\u200b\u0007"


@dataclass
class Parsed(HTMLParser):
    """A page as Python's parser reads it.

    Args:
        tags: Every tag, in order.
        lines: The token of each line of the table, as its attribute gives it.
        shown: The text of each element that shows a token.
        links: What the page refers to.
        ids: The ids of its elements.
        pack: The tokens without a line.
    """

    tags: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    pack: str = ""
    _open: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    @staticmethod
    def of(text: str) -> Parsed:
        parsed = Parsed()
        parsed.feed(text)
        parsed.close()
        assert parsed._open == []
        return parsed

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if "data-token" in held:
            self.lines.append(json.loads(held["data-token"] or ""))
        if tag not in VOID:
            what = "token" if held.get("class") == "token" else held.get("id") or ""
            self._open.append((tag, what))
            if what == "token":
                self.shown.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        where = {what for _, what in self._open}
        if "token" in where:
            self.shown[-1] += data
        elif "vocabulary" in where:
            self.pack += data

    @property
    def rest(self) -> list[list[object]]:
        """The tokens that have no line."""
        found: list[list[object]] = json.loads(zlib.decompress(base64.b64decode(self.pack)))
        return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report on a tiny model with one new token."""
    root = tmp_path_factory.mktemp("small")
    made = migrated(root / "w", llama(root / "m"), {"add_tokens": {"tokens": ["<x>"]}})
    return collect_report(made.workspace, made.entry("m"))


def called(report: Report, text: str) -> Report:
    """Return a report in which the new token, a base token and all words about them are called `text`."""
    document = copy.deepcopy(report.document)
    (token,) = [token for token in document["listed"] if token["kind"] == "added"]
    token["token"] = token["neighbours"][0]["token"] = text
    token["init"] = {"input": {"strategy": text, text: text}}
    for step in document["timeline"]:
        step.update(dict.fromkeys(("message", "author", "file", "user", "host"), text))
    document["norms"][0]["tensor"] = text
    document |= {"model": text, "path": text}
    document["concerns"] = [{"level": "caution", "subject": text, "text": text, "tokens": [text]}]
    return Report(document, {**report.texts, token["id"]: text, 3: text}, {4: text})


MARKUP = ("</script>", "<!--", "-->", "]]>", "<b>", "&lt;", '"', "'", "{{ 1 }}", "{% x %}", "\0", "\r\n", "\ud800")
UNSEEN = ("\u202e", "\u200f", "\u2066", "\u0301", "\ufe0f", "\u3164", "\u2800", "\U000e0041", "\u2028", " ", "a", "ש")
TEXTS = st.one_of(
    st.text(st.characters(codec=None), max_size=12),
    st.lists(st.sampled_from(MARKUP + UNSEEN), max_size=6).map("".join),
)


@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_no_text_breaks_the_page_and_each_comes_back(small: Report, text: str) -> None:
    parsed = Parsed.of(format_page(called(small, text)))
    assert text in parsed.lines
    assert [text, "base"] in [each[1:3] for each in parsed.rest]
    spelt = sum(bool(part.name) for part in escape_parts(text))
    plain = Parsed.of(format_page(called(small, "x")))
    assert [tag for tag in parsed.tags if tag not in ("span", "bdi")] == [
        tag for tag in plain.tags if tag not in ("span", "bdi")
    ]
    assert "".join(part.text for part in escape_parts(text)) in parsed.shown
    assert parsed.tags.count("span") - plain.tags.count("span") >= spelt
    for shown in parsed.shown:
        assert all(unicodedata.category(letter)[0] not in "CZ" for letter in shown)


@given(st.text(st.characters(codec=None), max_size=20))
@settings(max_examples=200)
def test_what_is_shown_hides_nothing_and_can_be_read_back(text: str) -> None:
    parts = escape_parts(text)
    read = "".join(chr(int(part.name.split()[0][2:], 16)) if part.name else part.text for part in parts)
    assert read.replace("◌", "") == text.replace("◌", "")
    assert not any(unicodedata.category(letter)[0] in "CZ" for part in parts for letter in part.text)
    assert "".join(part.text for part in escape_prose_parts(text)).replace(" ", "␣") == "".join(
        part.text for part in parts
    )
    # What stands in front of a text gets no mark of it.
    assert not parts or not unicodedata.category(parts[0].text[0]).startswith("M")


def test_the_page_needs_nothing_beside_it(small: Report) -> None:
    text = format_page(small)
    parsed = Parsed.of(text)
    assert {"svg", "rect", "path"} <= set(parsed.tags)
    assert all(link.startswith("#") for link in parsed.links)
    assert all(link[1:] in parsed.ids for link in parsed.links if "=" not in link)
    assert not {"link", "img", "iframe", "object"} & set(parsed.tags)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_the_page_is_labelled_for_readers_of_every_kind(small: Report) -> None:
    text = format_page(small)
    assert '<html lang="en">' in text
    assert text.count("<h1>") == 1
    assert [int(level) for level in re.findall(r"<h(\d)", text)] == [1] + [2] * 8
    labels = set(re.findall(r'aria-labelledby="([^"]*)"', text))
    assert labels <= set(Parsed.of(text).ids)
    assert all("aria-label" in opening for opening in re.findall(r"<(?:section|nav|form|table class)[^>]*>", text))
    assert all(
        'aria-hidden="true"' in opening or "aria-label=" in opening for opening in re.findall(r"<svg[^>]*>", text)
    )
    # Whatever takes part in the order of the keyboard is an element that browsers know, or says what it is.
    assert all('role="region"' in opening for opening in re.findall(r"<[^>]*tabindex[^>]*>", text))
    assert not re.search(r'tabindex="[^0]|\son\w+=', text)
    fields = re.findall(r"<(?:input|select)", text)
    assert len(re.findall(r"<label[^>]*>[^<]+<(?:input|select)", text)) == len(fields) == 5


def test_many_tokens_have_no_line_but_are_found_by_searching(small: Report) -> None:
    number = len(small.texts)
    many = {number + place: f"<many {place}>" for place in range(LISTED_AT_MOST + 500)}
    example = next(token for token in small.document["listed"] if token["kind"] == "added")
    moved = [{**example, "id": place, "token": text, "kind": "moved", "neighbours": []} for place, text in many.items()]
    runs = [*small.document["runs"][:-1], {"kind": "moved", "first": number, "last": number + len(many) - 1}]
    document = {**small.document, "listed": [*small.document["listed"], *moved], "runs": runs}
    texts = {**small.texts, **many}
    parsed = Parsed.of(format_page(Report(document, texts, {})))
    assert len(parsed.lines) == LISTED_AT_MOST
    # More happened to these than a move.
    assert {token["token"] for token in small.document["listed"]} <= set(parsed.lines)
    assert sorted([*parsed.lines, *(str(each[1]) for each in parsed.rest)]) == sorted(texts.values())


@pytest.fixture(scope="module")
def phi(tmp_path_factory: pytest.TempPathFactory) -> tuple[SharedModel, Path]:
    """phi-3-mini with random rows, migrated in every way, and its page."""
    model = shared_model(tmp_path_factory.mktemp("phi"), "mistral-chat")
    hostile = json.dumps(HOSTILE)
    model.migrate(
        f"""
- add_tokens:
    tokens:
      - {{content: "<|planner|>", special: true}}
      - {{content: {hostile}}}
- rename_tokens: {{tokens: {{"<|placeholder1|>": "<|tool|>"}}}}
- remove_tokens: {{tokens: ["<|placeholder2|>"], ids: tombstone, acknowledge: breaking}}
"""
    )
    model.migrate('- move_tokens: {tokens: {"<|planner|>": 32013}, acknowledge: breaking}')
    path = model.root / "page.html"
    path.write_text(format_page(collect_report(model.workspace, model.entry)), "utf-8")
    return model, path


def test_each_token_of_the_library_is_on_the_page_once(phi: tuple[SharedModel, Path]) -> None:
    model, path = phi
    text = path.read_text("utf-8")
    parsed = Parsed.of(text)
    vocabulary = model.library().get_vocab(with_added_tokens=True)
    assert sorted([*parsed.lines, *(each[1] for each in parsed.rest)]) == sorted(vocabulary)
    assert all(vocabulary[str(each[1])] == each[0] for each in parsed.rest)
    assert f'<dd id="count-tokens">{model.library().get_vocab_size():,}</dd>' in text
    assert len(text) < 600_000


def found_in(dom: str) -> dict[str, str]:
    """Return the shown token of each line that is not hidden, by its shown id."""
    found: dict[str, str] = {}
    for opening, row in re.findall(r"<tr([^>]*)>(.*?)</tr>", dom, re.DOTALL):
        cells = [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
        if cells and not re.search(r"\bhidden\b", opening):
            found[cells[0]] = unescape(cells[1])
    return found


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        ("q=Planner", lambda token, _: "planner" in token),
        # SentencePiece writes a mark for the space.
        ("q=+there", lambda token, _: "▁there" in token.lower()),
        ("q=32003", lambda _, number: number == 32003),
        ("q=%E2%80%AEevil", lambda token, _: token == HOSTILE),
        ("kind=placeholder", lambda token, _: token.startswith("<|removed_")),
        ("trained=untrained&q=%3C", lambda token, _: token in (HOSTILE, "<|planner|>")),
        ("from=31995&to=32001", lambda _, number: 31995 <= number <= 32001),
    ],
)
def test_searching_finds_lines_and_the_base_vocabulary(
    phi: tuple[SharedModel, Path], asked: str, fits: Callable[[str, int], bool]
) -> None:
    model, path = phi
    dom = browsed(path, "--dump-dom", fragment=f"#{asked}")
    assert 'data-ready="yes"' in dom
    vocabulary = model.library().get_vocab(with_added_tokens=True)
    expected = {f"{number:,}": token for token, number in vocabulary.items() if fits(token, number)}
    assert 0 < len(expected) < 100
    assert found_in(dom) == {
        number: "".join(part.text for part in escape_parts(token)) for number, token in expected.items()
    }


def test_a_search_finds_what_is_written_in_letters_for_bytes(small: Report, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(format_page(small), "utf-8")
    # The letters Ã and ã are the bytes 0xc3 and 0xe3.
    for asked, expected in (("+THE", {"Ġthe"}), ("%C3%83", {"Ã"}), ("the", {"the", "Ġthe"})):
        found = found_in(browsed(path, "--dump-dom", fragment=f"#q={asked}"))
        assert {shown.split("\\x")[0] for shown in found.values()} == expected


def test_it_follows_the_theme_of_its_reader(phi: tuple[SharedModel, Path], tmp_path: Path) -> None:
    brightness = []
    for scheme in ("dark", "light"):
        shot = tmp_path / f"{scheme}.png"
        theme = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
        browsed(phi[1], theme, "--window-size=390,900", f"--screenshot={shot}")
        with Image.open(shot) as image:
            brightness.append(image.convert("L").getpixel((2, 2)))
    dark, light = brightness
    assert dark < 60
    assert light > 200


# The page inside frames of several widths; what is around them writes down how wide the contents are.
FRAMES = """<!DOCTYPE html><title>-</title>{frames}<script>
onload = () => document.title = Array.from(frames, (each) => each.document.documentElement.scrollWidth).join(" ")
</script>"""


def test_nothing_is_wider_than_the_window(phi: tuple[SharedModel, Path]) -> None:
    widths = (320, 390, 768, 1400)
    around = phi[1].with_name("frames.html")
    frames = [f'<iframe src="page.html" style="width:{width}px; height:800px; border:0"></iframe>' for width in widths]
    around.write_text(FRAMES.format(frames="".join(frames)), "utf-8")
    dom = browsed(around, "--allow-file-access-from-files", "--dump-dom")
    assert "<title>320 390 768 1400</title>" in dom
