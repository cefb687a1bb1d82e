"""What a plan does to a text: the figures are those of counting each line with the tokenizers library, one by one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring import DOCS, NO_SPLIT, SPLIT, begin_with, impact_on, measured
from shared_models import SharedModel, shared_model

from tokmigrate.commands.plan import plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.model.tokenizer.byte_level import text_of_letters
from tokmigrate.plan.corpus import CorpusChange
from tokmigrate.plan.plan import Plan

AROUND = """
- set_post_processor:
    type: TemplateProcessing
    single: [{SpecialToken: {id: "%s", type_id: 0}}, {Sequence: {id: A, type_id: 0}}]
    pair: [{Sequence: {id: A, type_id: 0}}, {Sequence: {id: B, type_id: 1}}]
    special_tokens: {"%s": {id: "%s", ids: [%d], tokens: ["%s"]}}
"""


@dataclass(frozen=True)
class Encoded:
    """A line as the library gives it: all ids, and the tokens of its text."""

    ids: list[int]
    tokens: list[str]


def library_of(document: Any) -> tokenizers.Tokenizer:
    """Load a tokenizer.json, without what would cut or fill the lines."""
    library = tokenizers.Tokenizer.from_str(json.dumps(document))
    library.no_padding()
    library.no_truncation()
    return library


def one_by_one(library: tokenizers.Tokenizer, lines: list[str]) -> list[Encoded]:
    """Encode each line on its own."""
    return [
        Encoded(
            library.encode(line).ids,
            [library.id_to_token(number) for number in library.encode(line, add_special_tokens=False).ids],
        )
        for line in lines
    ]


def counted(made: list[Encoded], limit: int | None, unknown: str | None) -> tuple[Any, ...]:
    """Return tokens, longest line, lines beyond the limit and unknown tokens."""
    lengths = [len(each.ids) for each in made]
    beyond = None if limit is None else sum(length > limit for length in lengths)
    return sum(lengths), max(lengths), beyond, unknown and sum(each.tokens.count(unknown) for each in made)


def figures(shift: CorpusChange) -> tuple[Any, ...]:
    sides = tuple(
        (counts.tokens, counts.longest, counts.beyond, counts.unknown) for counts in (shift.before, shift.after)
    )
    return (shift.tokenized_differently, shift.other_ids, *sides)


Limits = tuple[int | None, int | None]


def expected(old: list[Encoded], new: list[Encoded], limits: Limits, unknown: str | None) -> tuple[Any, ...]:
    """Return what `figures` should be."""
    return (
        sum(one.tokens != other.tokens for one, other in zip(old, new, strict=True)),
        sum(one.ids != other.ids for one, other in zip(old, new, strict=True)),
        counted(old, limits[0], unknown),
        counted(new, limits[1], unknown),
    )


def expected_worst(old: list[Encoded], new: list[Encoded], lines: list[str]) -> list[int]:
    """Return the places of the ten worst lines: all of them sorted, each text once."""
    ranked = sorted(
        (
            -max(0, len(made.tokens) - len(was.tokens)),
            -((Counter(was.tokens) - Counter(made.tokens)) + (Counter(made.tokens) - Counter(was.tokens))).total(),
            place,
        )
        for place, (was, made) in enumerate(zip(old, new, strict=True))
        if was.tokens != made.tokens and lines.index(lines[place]) == place
    )
    return [place for *_, place in ranked[:10]]


@dataclass(frozen=True)
class Pending:
    """A plan for a model, with its first and its last state."""

    plan: Plan
    before: tokenizers.Tokenizer
    after: tokenizers.Tokenizer
    limits: Limits
    unknown: str | None


def operation(case: str, model: SharedModel) -> str:
    """Return the operations of a case, as YAML."""
    library = model.library()
    first = next(iter(library.get_added_tokens_decoder().values())).content
    two = [library.id_to_token(number) for number in (40, 41)]
    return {
        "NFKC": "- set_normalizer: NFKC",
        "no Split": NO_SPLIT,
        "a word": "- add_tokens: {tokens: [nationis, 'is the']}",
        "moves": f"- move_tokens: {{acknowledge: breaking, tokens: {json.dumps({two[0]: 41, two[1]: 40})}}}",
        "a token around": AROUND % (first, first, first, library.token_to_id(first), first),
        "truncation": "- set_truncation: {max_length: 7}",
    }[case]


CASES = (
    ("gpt2-chatml", "NFKC"),
    ("gpt2-chatml", "no Split"),
    ("bert-base-uncased", "NFKC"),
    ("bert-base-uncased", "a word"),
    ("gpt2-chatml", "moves"),
    ("oromo-t5", "moves"),
    ("gpt2-chatml", "a token around"),
    ("gpt2-chatml", "truncation"),
)


@pytest.fixture(scope="module", params=CASES, ids=" ".join)
def pending(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pending:
    name, case = request.param
    model = shared_model(tmp_path_factory.mktemp("pending"), name)
    if case == "no Split":
        begin_with(model, pre_tokenizer=SPLIT)
    if (name, case) == ("gpt2-chatml", "NFKC"):
        begin_with(model, normalizer={"type": "NFC"})
    model.write(operation(case, model))
    planned = plan(model.workspace, model.entry)
    limit = {"gpt2-chatml": 131072, "oromo-t5": 512}.get(name)
    unknown = {"bert-base-uncased": "[UNK]", "oromo-t5": "<unk>"}.get(name)
    return Pending(
        planned,
        library_of(model.json("tokenizer.json")),
        library_of(planned.final.documents["tokenizer.json"]),
        (limit, 7 if case == "truncation" else limit),
        unknown,
    )


lines = st.lists(
    st.text(
        st.sampled_from("aeinost  'd1²ﬁ①…éé￼Ａ日ぁ<>|[]\t\r.,#")
        | st.characters(exclude_characters="\n", codec="utf-8"),
        max_size=30,
    )
    # A `\r` before the line's end is part of that end, a mark at the very start is none of the text.
    .filter(lambda line: line and not line.endswith("\r") and not line.startswith("\ufeff"))
    | st.sampled_from(["A nation is the station", "&'(", "\u202eabc", "<|im_start|>user", "  two   three    four"]),
    min_size=1,
    max_size=40,
)


@settings(max_examples=6, deadline=None)
@given(lines=lines)
def test_figures_and_worst_lines_are_those_of_a_direct_count(pending: Pending, lines: list[str]) -> None:
    impact = impact_on(pending.plan, "\n".join(lines))
    old, new = one_by_one(pending.before, lines), one_by_one(pending.after, lines)
    assert impact is not None
    assert (impact.lines, impact.empty) == (len(lines), 0)
    assert impact.text_bytes == sum(len(line.encode()) for line in lines)
    assert figures(impact.whole) == expected(old, new, pending.limits, pending.unknown)
    assert [shift for _, shift in impact.migrations][-1:] == [impact.whole]

    worst = expected_worst(old, new, lines)
    assert [example.line for example in impact.worst] == [place + 1 for place in worst]
    for example, place in zip(impact.worst, worst, strict=True):
        was, made = old[place], new[place]
        assert example.text in lines[example.line - 1]
        assert (example.before.tokens, example.after.tokens) == (len(was.ids), len(made.ids))
        for shown, all_of_them in ((example.before, was.tokens), (example.after, made.tokens)):
            stop = len(all_of_them) - shown.more
            assert list(shown.shown) == all_of_them[example.skipped : stop]
        # What is left out on either side is the same in both, or too much to show.
        assert was.tokens[: example.skipped] == made.tokens[: example.skipped]
        assert example.before.shown != example.after.shown
        if len(example.before.shown) < 40 and len(example.after.shown) < 40:
            assert example.before.more == example.after.more
            left_out = [side.tokens[len(side.tokens) - example.before.more :] for side in (was, made)]
            assert left_out[0] == left_out[1]


def test_moves_cut_nothing_otherwise_and_give_other_ids(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    library = model.library()
    moves = {library.id_to_token(number): 300 + (number - 293) % 40 for number in range(300, 340)}
    model.write(f"- move_tokens: {{acknowledge: breaking, tokens: {json.dumps(moves, ensure_ascii=False)}}}")
    impact = measured(model, DOCS)
    assert impact is not None
    assert impact.whole.tokenized_differently == 0
    assert impact.whole.other_ids > 100
    assert impact.whole.before == impact.whole.after
    assert impact.worst == ()


def test_a_chain_is_the_sum_of_its_steps(tmp_path: Path) -> None:
    steps = [
        "- set_normalizer: NFKC",
        "- set_decoder: null",
        NO_SPLIT,
        "- add_tokens: {tokens: [tokmigrate]}",
    ]
    whole, stepwise = shared_model(tmp_path / "whole", "gpt2-chatml"), shared_model(tmp_path / "step", "gpt2-chatml")
    for step in steps:
        whole.write(step)
    impact = measured(whole, DOCS)
    assert impact is not None
    for (migration, shift), step in zip(impact.migrations, steps, strict=True):
        stepwise.write(step)
        alone = measured(stepwise, DOCS)
        assert shift == (alone and alone.whole), migration.shown
        upgrade(stepwise.workspace, stepwise.entry)
    assert [shift is None for _, shift in impact.migrations] == [False, True, False, False]
    lines = DOCS.split("\n")
    old, new = (one_by_one(library_of(each.json("tokenizer.json")), lines) for each in (whole, stepwise))
    assert figures(impact.whole) == expected(old, new, (131072, 131072), None)


def test_what_is_taken_back_is_no_change_of_the_whole(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    for form in ("NFKC", "null"):
        model.write(f"- set_normalizer: {form}")
    impact = measured(model, DOCS)
    assert impact is not None
    assert (impact.whole.tokenized_differently, impact.whole.other_ids) == (0, 0)
    there, back = (shift for _, shift in impact.migrations)
    assert there is not None
    assert back is not None
    assert there.tokenized_differently == back.tokenized_differently > 0
    assert (there.before, there.after) == (back.after, back.before)


@pytest.mark.parametrize(
    "operations",
    [
        "- set_decoder: null",
        '- set_padding: {token: "<|endoftext|>", side: left, max_length: 64}',
        "- resize_vocab: {multiple_of: 64}",
        "- reinit_tokens: {acknowledge: breaking, tokens: Ġthe, init: {strategy: mean}}",
        "- set_pre_tokenizer: {acknowledge: breaking, type: ByteLevel, add_prefix_space: false, trim_offsets: true,"
        " use_regex: true}",
    ],
)
def test_what_cuts_nothing_does_not_read_the_corpus(operations: str, tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    model.write(operations)
    # No text at all: reading it would be an error.
    assert measured(model, b"\xff\xfe") is None


@pytest.mark.parametrize(
    "operations", ["- set_token_flags: {tokens: nation, special: true}", "- set_special_tokens: {additional: [nation]}"]
)
def test_what_cuts_a_word_out_is_seen_whatever_it_is_called(operations: str, tmp_path: Path) -> None:
    model = shared_model(tmp_path, "bert-base-uncased")
    model.write(operations)
    impact = measured(model, "the nationality\nno tion")
    assert impact is not None
    assert (impact.whole.tokenized_differently, impact.whole.other_ids) == (1, 1)
    (example,) = impact.worst
    assert list(example.before.shown) == ["the", "nationality"]
    assert list(example.after.shown)[:2] == ["the", "nation"]


def test_dropout_and_truncation_of_the_file_do_not_count(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "gpt2-chatml")
    truncation = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    begin_with(model, model={**model.json("tokenizer.json")["model"], "dropout": 0.9}, truncation=truncation)
    model.write("- set_normalizer: NFC")
    impact = measured(model, DOCS)
    assert impact is not None
    assert impact.whole.tokenized_differently == 0
    assert impact.whole.before.longest > 20


def test_where_the_limit_comes_from(tmp_path: Path) -> None:
    config = {"model_type": "llama", "vocab_size": 32014, "hidden_size": 4, "tie_word_embeddings": False}
    endless = {"model_max_length": 1000000000000000019884624838656}
    for place, (files, found) in enumerate(
        (
            ({}, (4096, "model_max_length")),
            ({"tokenizer_config.json": endless}, None),
            (
                {"tokenizer_config.json": endless, "config.json": {**config, "max_position_embeddings": 9}},
                (9, "max_position_embeddings"),
            ),
            (
                {"tokenizer_config.json": {}, "config.json": {**config, "n_positions": 8}},
                (8, "n_positions"),
            ),
        )
    ):
        model = shared_model(tmp_path / str(place), "mistral-chat", files)
        model.write("- set_normalizer: NFC")
        impact = measured(model, "one two three four five six seven eight nine ten\none\n①")
        assert impact is not None
        limit = impact.whole.after.limit
        assert (limit and (limit.tokens, limit.source)) == found
        assert impact.whole.after.beyond == (None if found is None else int(found[0] < 10))
        # The sign has no token, and phi-3 writes its bytes; NFC does not put a space before a text.
        assert (impact.whole.before.unknown, impact.whole.before.byte_tokens) == (0, 3)


def test_the_order_of_lines_changes_only_their_numbers(tmp_path: Path) -> None:
    model = shared_model(tmp_path, "bert-base-uncased")
    model.write("- set_normalizer: NFC")
    # Each text once, and each with a growth of its own: no two are equally bad.
    lines = ["A" + "B C " * count for count in range(1, 30)] + DOCS.lower().split("\n")[:60]
    found = []
    for mixed in (lines, lines[::-1], sorted(lines)):
        impact = measured(model, "\n".join(mixed))
        assert impact is not None
        found.append((figures(impact.whole), [mixed[example.line - 1] for example in impact.worst]))
    assert found[0] == found[1] == found[2]


@given(st.text())
def test_letters_for_bytes_stand_for_their_text(text: str) -> None:
    letters = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    assert text_of_letters("".join(piece for piece, _ in letters)) == text
