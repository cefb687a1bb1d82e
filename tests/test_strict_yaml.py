"""Strict YAML: texts stay texts, faults have places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tokmigrate.errors import FileProblems, Problem
from tokmigrate.strict_yaml.reading import decode, parse, read
from tokmigrate.strict_yaml.tree import Plain, Tree
from tokmigrate.strict_yaml.validation import OptionalText, check

M = TypeVar("M", bound=BaseModel)


def problems(text: str) -> list[Problem]:
    with pytest.raises(FileProblems) as caught:
        parse(decode(text.encode("utf-8"), "f.yaml"), "f.yaml")
    return list(caught.value.problems)


def spots(found: list[Problem]) -> list[tuple[int, int]]:
    return [(each.line, each.column) for each in found]


class Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Mean(Closed):
    strategy: Literal["mean"] = "mean"
    norm: Literal["match", "keep"] = "keep"


class Copy(Closed):
    strategy: Literal["copy"] = "copy"
    row: str


class Token(Closed):
    content: str
    special: bool = False


class Sample(Closed):
    text: str = ""
    whole: int = 0
    limit: int | None = None
    share: float = 0.5
    flag: bool = False
    note: OptionalText = None
    init: Annotated[Mean | Copy, Field(discriminator="strategy")] | None = None
    tokens: tuple[str | Token, ...] = ()
    sizes: dict[str, int] = {}

    @field_validator("whole")
    @classmethod
    def _small(cls, whole: int) -> int:
        if whole > 1000:
            raise ValueError("larger than a thousand")
        return whole


def build(model: type[M], tree: Tree) -> M:
    instance, found = check(model, tree)
    assert instance is not None, found
    return instance


def faults(text: str) -> list[tuple[int, int, str]]:
    _, found = check(Sample, parse(text, "f.yaml"))
    return [(each.line, each.column, each.message) for each in found]


@pytest.mark.parametrize(
    "text",
    ["no", "0002", "1_000", "12:30", "12:30:45", "2024-01-01", "0x10", ".inf", "=", "<<", "null", "~", "yes"],
)
def test_a_scalar_stays_the_text_that_it_looks_like(text: str) -> None:
    tree = parse(f"text: {text}\n", "f.yaml")
    assert tree.value == {"text": text}
    assert build(Sample, tree).text == text


def test_plain_and_quoted_text_can_be_distinguished() -> None:
    value = parse("a: null\nb: 'null'\nc:\nd: |\n  null\n", "f.yaml").value
    assert [isinstance(each, Plain) for each in value.values()] == [True, False, True, False]


def test_places_of_values_and_keys() -> None:
    tree = parse("a:\n  - x\n  - {b: c,  dd: e}\n", "f.yaml")
    assert tree.place(("a", 1, "dd")) == (3, 17)
    assert tree.key_place(("a", 1, "dd")) == (3, 13)
    assert tree.place(()) == (1, 1)
    assert tree.where(("a", 0)) == "f.yaml:2:5"
    assert tree.at(("a", 1)).value == {"b": "c", "dd": "e"}


def test_all_forbidden_things_are_reported_at_once() -> None:
    text = "a: &x 1\nb: *x\na: !!int 3\n? [k]\n: v\n--- \nz: 1\n"
    found = problems(text)
    assert spots(found) == [(1, 4), (2, 4), (3, 1), (3, 4), (4, 3), (6, 1)]
    told = "\n".join(each.message for each in found)
    for word in (
        "anchor '&x'",
        "alias '*x'",
        "'a' appears twice",
        "tag",
        "key has to be text",
        "second document",
    ):
        assert word in told
    assert "line 1, column 1" in str(found[2].hint)


def test_an_alias_bomb_is_refused_without_being_expanded() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert len(problems("\n".join(lines))) >= 90


def test_a_flood_of_faults_is_shortened() -> None:
    assert len(problems("[" + "*a, " * 5000 + "x]")) == 100


def test_nesting_has_a_limit() -> None:
    assert parse("[" * 64 + "]" * 64, "f.yaml")
    found = problems("[" * 100_000 + "]" * 100_000)
    assert [each.message for each in found] == ["nested deeper than 64 levels"]
    assert spots(found) == [(1, 65)]


def test_a_large_text_is_refused() -> None:
    assert "8 MiB" in problems("a" * (8 * 2**20 + 1))[0].message
    assert "8 MiB" in problems("ä" * (5 * 2**20))[0].message


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a: [1, 2\nb: 3\n", 2, 2),
        ("a: 'x\n", 2, 1),
        ("a: b: c\n", 1, 5),
        ("\ta: 1\n", 1, 1),
        ("a: @x\n", 1, 4),
        ('a: "\\q"\n', 1, 6),
        ("a: 1\nb: \x00\n", 2, 4),
        ('a: "\\ud83d"\n', 1, 4),
        ("\ufeffa: 1\n", 1, 1),
    ],
)
def test_a_broken_text_has_a_place(text: str, line: int, column: int) -> None:
    found = problems(text)
    assert spots(found)[0] == (line, column), found


def test_an_impossible_escape_is_a_problem() -> None:
    assert "Unicode" in problems('a: "\\UFFFFFFFF"\n')[0].message


@pytest.mark.parametrize(
    ("data", "line", "column", "word"),
    [
        (b"\xef\xbb\xbfa: 1\n", 1, 1, "byte order mark"),
        ("a: 1\n".encode("utf-16"), 1, 1, "byte order mark"),
        (b"a: 1\r\nb: \xc3\xa4\xff\n", 2, 5, "0xff"),
    ],
)
def test_a_file_in_another_encoding(tmp_path: Path, data: bytes, line: int, column: int, word: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(data)
    with pytest.raises(FileProblems) as caught:
        read(path)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line, problem.column) == (str(path), line, column)
    assert word in problem.message


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileProblems, match="no such file"):
        read(tmp_path / "none.yaml")


def test_fields_give_texts_their_types() -> None:
    text = (
        "text: '8'\nwhole: 8\nlimit: -3\nshare: 1e-3\nflag: no\nnote: null\n"
        "init: {strategy: copy, row: 0007}\ntokens: [0002, {content: no, special: true}]\nsizes: {a: 1}\n"
    )
    assert build(Sample, parse(text, "f.yaml")) == Sample(
        text="8",
        whole=8,
        limit=-3,
        share=0.001,
        init=Copy(row="0007"),
        tokens=("0002", Token(content="no", special=True)),
        sizes={"a": 1},
    )


def test_null_means_nothing_where_no_text_is_meant() -> None:
    sample = build(Sample, parse("text: null\nlimit: ~\nnote:\ninit: null\n", "f.yaml"))
    assert (sample.text, sample.limit, sample.note, sample.init) == ("null", None, None, None)
    assert build(Sample, parse("note: 'null'\n", "f.yaml")).note == "null"
    assert faults("whole: null\n") == [(1, 8, "expected a whole number, found nothing")]
    assert faults("limit: 'null'\n") == [(1, 8, "expected a whole number, found 'null'")]


@pytest.mark.parametrize("text", ["1_000", "0x10", "8.0", "+8", "008", "' 8'", "1e3", "eight", "٣", "''"])
def test_a_whole_number_is_written_as_one(text: str) -> None:
    assert [each[:2] for each in faults(f"whole: {text}\n")] == [(1, 8)]
    assert "whole number" in faults(f"limit: {text}\n")[0][2]


@pytest.mark.parametrize("text", ["1_0.5", "nan", "inf", "' 1.5'", "x"])
def test_a_number_is_written_as_one(text: str) -> None:
    assert [each[:2] for each in faults(f"share: {text}\n")] == [(1, 8)]


def test_every_fault_has_its_place_and_all_are_found() -> None:
    text = (
        "whole: 1_000\nlimit: x\nflag: maybe\ntext: [a]\n"
        "init: {strategy: mean, nrom: match}\n"
        "tokens:\n  - a\n  - {contnet: b}\n  - [c]\nsizes: {a: b}\nspecail: 1\n"
    )
    assert faults(text) == [
        (1, 8, "expected a whole number, found '1_000'"),
        (2, 8, "expected a whole number, found 'x'"),
        (3, 7, "expected true or false, found 'maybe'"),
        (4, 7, "expected text, found a list"),
        (5, 24, "unknown field 'nrom'"),
        (8, 5, "field 'content' is missing"),
        (8, 6, "unknown field 'contnet'"),
        (9, 5, "expected text or a mapping, found a list"),
        (10, 12, "expected a whole number, found 'b'"),
        (11, 1, "unknown field 'specail'"),
    ]


def test_hints_name_the_nearest_field() -> None:
    _, found = check(
        Sample,
        parse("init: {strategy: mean, nrom: match}\ntokens: [{content: a, specail: no}]\nwhloe: 1\n", "f.yaml"),
    )
    assert [each.hint for each in found] == [f"did you mean '{word}'?" for word in ("norm", "special", "whole")]


def test_discriminated_unions_have_sensible_places() -> None:
    _, found = check(Sample, parse("init:\n  strategy: maen\n", "f.yaml"))
    assert [(each.line, each.column, each.message, each.hint) for each in found] == [
        (2, 13, "unknown strategy 'maen'", "did you mean 'mean'?")
    ]
    assert faults("init: {norm: match}\n") == [(1, 7, "field 'strategy' is missing")]
    assert faults("init: {strategy: copy}\n") == [(1, 7, "field 'row' is missing")]
    assert faults("init: {strategy: mean, norm: macth}\n")[0][:2] == (1, 30)


def test_a_list_that_lost_its_items_to_faults_is_not_called_empty() -> None:
    class Listed(Closed):
        names: tuple[Annotated[str, Field(min_length=2)], ...] = Field(min_length=1)

    def told(text: str) -> list[str]:
        return [str(each) for each in check(Listed, parse(text, "f"))[1]]

    assert told("names: []") == ["f:1:8: expected at least 1 item, found an empty list"]
    assert told("names: [a]") == ["f:1:9: expected at least 2 characters, found 'a'"]


def test_a_validator_speaks_for_itself() -> None:
    assert faults("whole: 2000\n") == [(1, 8, "larger than a thousand")]


def test_no_message_has_the_jargon_of_the_library() -> None:
    text = "whole: x\ntext: {}\ninit: 3\ntokens: 3\nsizes: [1]\nnope: 1\n"
    for _, _, message in faults(text):
        assert "pydantic" not in message
        assert "Input" not in message
        assert "http" not in message


def test_a_part_can_be_checked_and_wrapped() -> None:
    tree = parse("items:\n  - copy: {row: a, strategy: copy}\n  - b\n", "f.yaml")
    assert build(Copy, tree.at(("items", 0, "copy"))).row == "a"
    assert build(Copy, tree.at(("items", 1)).under("row")).row == "b"
    _, (problem,) = check(Copy, tree.at(("items", 1)))
    assert str(problem).startswith("f.yaml:3:5: expected a mapping, found 'b'")


texts = st.text(
    st.characters(
        codec="utf-8",
        exclude_categories=["Cc", "Cs"],
        exclude_characters="\ufeff\u2028\u2029\x85\ufffe\uffff",
    )
)
values = st.recursive(texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=12)


@settings(max_examples=60, deadline=None)
@given(values)
def test_what_json_writes_comes_back_as_it_was(value: Any) -> None:
    assert parse(json.dumps(value, ensure_ascii=False, indent=1), "f.yaml").value == value


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.text("ab: -[]{}&*!|>'\"\n#,?%~", max_size=60))
def test_any_text_gives_a_tree_or_problems(text: str) -> None:
    try:
        parse(text, "f.yaml")
    except FileProblems as error:
        assert all(each.line >= 1 and each.column >= 1 for each in error.problems)  # noqa: PT017


FRAGMENTS = (
    *("a", "b: ", "- ", "? ", ": ", ":", " ", "  ", "\n", "\n  ", "{", "}", "[", "]", ", ", ",", '"', "'", "'it''s'"),
    *("#c", " # c", "|", ">", "|-", ">+\n", "\t", "---\n", "...\n", "&a", "*a", "!t", "`", "?", "\\", "a:b", "{a:1}"),
    *('"\\u00e9"', '"\\UFFFFFFFF"', "\r\n", "\x85", "\u2028", "\ufeff", "\u3000", "\U0001f642", "x: |\n  a\n", "~"),
)


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=9).map("".join))
def test_both_parsers_read_a_text_alike(text: str) -> None:
    """Whether PyYAML was built with libyaml changes neither a tree nor a problem."""

    def read() -> object:
        try:
            return parse(text, "f")
        except FileProblems as error:
            return error.problems

    fast = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yaml.__with_libyaml__", False)
        assert read() == fast
