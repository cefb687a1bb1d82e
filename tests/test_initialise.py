"""How new rows are initialised, through the surface that operations and the weights' writer use."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from safetensors.numpy import save
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Normalizer, Replace
from tokenizers.pre_tokenizers import WhitespaceSplit

from tokmigrate.errors import ModelError, OperationError, WeightsError
from tokmigrate.init import InitRecipe, InitSpec, Request, RowStatistics, initialise_rows, seed_for, strategy_types
from tokmigrate.init.noise import gaussian
from tokmigrate.init.statistics import sum_blocks, tree_sum
from tokmigrate.model.formats.dtype import Matrix, from_float64, to_float64
from tokmigrate.strict_yaml.reading import parse
from tokmigrate.strict_yaml.validation import check
from tokmigrate.vocabulary.ids import Run
from tokmigrate.vocabulary.row_edit import Recipe, Side

WORDS = ["a", "b", "c", "d", "e", "ab", "cd", "abcd", "</s>", "Ġhello", "##"]


class WordTokenizer:
    """A byte-pair tokenizer of the tokenizers library that knows `WORDS`."""

    def __init__(self, normalizer: Normalizer | None = None) -> None:
        vocabulary = {word: number for number, word in enumerate(WORDS)}
        self._tokenizer = Tokenizer(BPE(vocabulary, [("a", "b"), ("c", "d"), ("ab", "cd")]))
        self._tokenizer.pre_tokenizer = WhitespaceSplit()
        if normalizer:
            self._tokenizer.normalizer = normalizer

    @property
    def ids(self) -> dict[str, int]:
        return self._tokenizer.get_vocab()

    def pieces(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


LOOKUP = WordTokenizer()
ROWS = len(WORDS)


def matrix(rows: int, width: int, name: bytes = b"matrix") -> Matrix:
    return gaussian(name, 0, rows * width).reshape(rows, width) * 0.5 + 0.1


def spec(**fields: Any) -> InitSpec:
    return InitSpec.model_validate(fields)


def init_recipe(
    init: InitSpec,
    label: str = "<new>",
    population: tuple[Run, ...] = ((0, ROWS),),
    attachments: Mapping[str, bytes] | None = None,
) -> InitRecipe:
    starts = [init.start(side, LOOKUP, label, attachments or {}) for side in ("input", "output")]
    return InitRecipe("9f3c2a7e41b0", label, starts[0], starts[1], population)


def reader(values: npt.NDArray[Any]) -> Callable[[Sequence[Run]], npt.NDArray[np.uint8]]:
    """Return what gives rows as a file has them."""
    return lambda runs: np.concatenate([values[start:stop] for start, stop in runs]).view(np.uint8)


def made(
    recipes: Sequence[InitRecipe],
    values: Matrix,
    side: Side = "input",
    tensor: str = "embed_tokens.weight",
    seed: str = "",
) -> Matrix:
    def source(wanted: int | Recipe) -> Matrix:
        assert isinstance(wanted, int)
        row: Matrix = values[wanted]
        return row

    def known(population: tuple[Run, ...]) -> RowStatistics:
        return RowStatistics(reader(values), "F64", population, values.shape[1])

    return join_batches(recipes, initialise_rows(recipes, side, tensor, seed, source, known))


def join_batches(recipes: Sequence[InitRecipe], batches: Iterable[tuple[list[InitRecipe], Matrix]]) -> Matrix:
    found = {recipe: row for batch, values in batches for recipe, row in zip(batch, values, strict=True)}
    return np.stack([found[recipe] for recipe in recipes])


# Sums


@given(st.integers(0, 70), st.integers(1, 5), st.sampled_from([0, 1]))
def test_tree_sum_is_near_the_exact_sum(rows: int, width: int, axis: int) -> None:
    a = matrix(rows, width)
    a = a if axis == 0 else a.T
    before = a.copy()
    exact = [math.fsum(line) for line in (a.T if axis == 0 else a)]
    np.testing.assert_allclose(tree_sum(a, axis), exact, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(a, before)


def test_tree_sum_has_the_order_that_it_promises() -> None:
    numbers = np.array([1e16, 1.0, -1e16, 1.0, 3.0])
    # ceil(5/2) = 3: 0 takes 3, 1 takes 4; then 0 takes 2; then 0 takes 1.
    expected = ((1e16 + 1.0) + -1e16) + (1.0 + 3.0)
    assert float(tree_sum(numbers, 0)) == expected


def test_tree_sum_is_the_same_for_any_memory_layout() -> None:
    a = matrix(1000, 7)
    assert tree_sum(np.asfortranarray(a), 0).tobytes() == tree_sum(a, 0).tobytes()
    assert tree_sum(a[:, ::-1], 0).tobytes() == tree_sum(a, 0)[::-1].tobytes()
    assert tree_sum(a.T, 1).tobytes() == tree_sum(a, 0).tobytes()


# Statistics


def statistics(values: Matrix, cuts: Sequence[int] = ()) -> RowStatistics:
    population = list(itertools.pairwise([0, *cuts, len(values)]))
    return RowStatistics(reader(values), "F64", population, values.shape[1])


def weighting(numbers: Matrix) -> Callable[[int, int], Matrix]:
    return lambda count, start: numbers[start : start + count]


BIG = matrix(2600, 70)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2600), max_size=12).map(sorted))
def test_no_statistic_depends_on_how_the_rows_are_cut(cuts: list[int]) -> None:
    whole, cut = statistics(BIG), statistics(BIG, cuts)
    weights = [weighting(gaussian(b"weights", 0, 2600))]
    assert whole.mean.tobytes() == cut.mean.tobytes()
    assert whole.median_norm == cut.median_norm
    assert whole.weighted_sums(weights).tobytes() == cut.weighted_sums(weights).tobytes()


def test_statistics_are_near_numpys() -> None:
    known = statistics(BIG, [1000])
    noise = gaussian(b"weights", 0, 5200).reshape(2, 2600)
    np.testing.assert_allclose(known.mean, BIG.mean(0), rtol=1e-12)
    assert math.isclose(known.median_norm, float(np.median(np.linalg.norm(BIG, axis=1))), rel_tol=1e-12)
    found = known.weighted_sums([weighting(line) for line in noise])
    np.testing.assert_allclose(found, noise @ (BIG - BIG.mean(0)), rtol=1e-9, atol=1e-9)


def test_median_of_an_odd_number_of_rows() -> None:
    assert statistics(np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 9.0]])).median_norm == 5.0


def test_a_weighted_sum_does_not_depend_on_the_others() -> None:
    noise = gaussian(b"weights", 0, 3 * 2600).reshape(3, 2600)
    weights = [weighting(line) for line in noise]
    together = statistics(BIG).weighted_sums(weights)
    assert together[1].tobytes() == statistics(BIG).weighted_sums(weights[1:2])[0].tobytes()


def test_no_statistic_depends_on_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    large = matrix(3000, 400)
    noise = gaussian(b"weights", 0, 3000)
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr("tokmigrate.parallel.count_cores", lambda cores=cores: cores)
        known = statistics(large)
        found.append((known.mean.tobytes(), known.median_norm, known.weighted_sums([weighting(noise)]).tobytes()))
    assert found[0] == found[1] == found[2]


def test_sums_of_blocks_are_trees_of_1024_rows_added_in_order() -> None:
    numbers = matrix(2600, 300)
    rows = np.frombuffer(from_float64(numbers, "BF16"), np.uint8).reshape(2600, 600)
    rounded = to_float64(rows, "BF16").reshape(2600, 300)
    total = np.zeros(300)
    for start in range(0, 2600, 1024):
        total += tree_sum(rounded[start : start + 1024], 0)
    blocks = sum_blocks(rows, "BF16")
    assert len(blocks) == 3
    assert (blocks[0] + blocks[1] + blocks[2]).tobytes() == total.tobytes()
    read = RowStatistics(
        lambda runs: np.concatenate([rows[start:stop] for start, stop in runs]), "BF16", [(0, 2600)], 300
    )
    assert read.mean.tobytes() == (total / 2600.0).tobytes()


def test_infinities_and_empty_populations_are_refused() -> None:
    values = matrix(4, 3)
    values[2, 1] = np.inf
    for name in ("mean", "median_norm"):
        with pytest.raises(ModelError, match="infinity or a NaN") as caught:
            getattr(statistics(values), name)
        assert caught.value.hint
        with pytest.raises(OperationError, match="no row of the baseline"):
            getattr(RowStatistics(reader(values), "F64", [], 3), name)


# Strategies


def test_mean_is_over_the_population_only() -> None:
    values = matrix(ROWS, 6)
    rows = made([init_recipe(spec(strategy="mean"), population=((1, 3), (6, 9)))], values)
    np.testing.assert_allclose(rows[0], values[[1, 2, 6, 7, 8]].mean(0), rtol=1e-13)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 40), st.floats(0.1, 30), st.integers(0, 10**6))
def test_mean_rows_keep_the_bound_on_the_models_behaviour(
    rows: int, width: int, new: int, spread: float, seed: int
) -> None:
    head, bias = matrix(rows, width, b"h%d" % seed) * spread, matrix(rows, 1, b"b%d" % seed)
    context = gaussian(b"c%d" % seed, 0, width)
    recipes = [init_recipe(spec(strategy="mean"), f"<{number}>", ((0, rows),)) for number in range(new)]
    logits = np.concatenate([head, made(recipes, head, "output")]) @ context
    logits += np.concatenate([bias, made(recipes, bias, "output", "lm_head.bias")])[:, 0]
    old = logits[:rows]
    # KL(p‖p') = log Z' - log Z, since the old logits stay.
    divergence = np.logaddexp.reduce(logits) - np.logaddexp.reduce(old)
    assert divergence <= math.log1p(new / rows) + 1e-9


def test_mean_cov_has_the_scaled_covariance_of_the_baseline() -> None:
    values = matrix(200, 4) @ np.array([[2, 0, 0, 1], [0, 1, 0.5, 0], [0, 0, 0.3, 0], [0, 0, 0, 1.0]])
    init = spec(strategy="mean_cov", scale="0.25")
    recipes = [init_recipe(init, f"<{number}>", ((0, 200),)) for number in range(4000)]
    rows = made(recipes, values)
    expected = 0.25 * np.cov(values.T)
    size = float(np.sqrt(np.diag(expected).max()))
    np.testing.assert_allclose(rows.mean(0), values.mean(0), atol=4 * size / math.sqrt(4000))
    np.testing.assert_allclose(np.cov(rows.T), expected, atol=0.08 * size**2)


def test_mean_cov_is_what_its_formula_says() -> None:
    values = matrix(ROWS, 6)
    rows = made([init_recipe(spec(strategy="mean_cov", scale=1.0))], values, seed="s")
    noise = gaussian(seed_for("s", "9f3c2a7e41b0", "<new>", "embed_tokens.weight"), 0, ROWS)
    centred = values - values.mean(0)
    np.testing.assert_allclose(rows[0], values.mean(0) + noise @ centred / math.sqrt(ROWS - 1), rtol=1e-11)


def test_mean_cov_defaults_to_rows_near_the_mean_and_to_two_rows_at_least() -> None:
    values = matrix(ROWS, 6)
    rows = made([init_recipe(spec(strategy="mean_cov"))], values)
    assert 0 < float(np.abs(rows[0] - values.mean(0)).max()) < 1e-3
    with pytest.raises(OperationError, match="two rows"):
        made([init_recipe(spec(strategy="mean_cov"), population=((0, 1),))], values)


def test_zeros_and_normal() -> None:
    values = matrix(ROWS, 20_000)
    assert not made([init_recipe(spec(strategy="zeros"))], values).any()
    row = made([init_recipe(spec(strategy="normal", std="0.5", mean="3"))], values)[0]
    assert abs(float(row.mean()) - 3) < 4 * 0.5 / math.sqrt(20_000)
    assert abs(float(row.std()) - 0.5) < 0.02
    assert 0.019 < float(made([init_recipe(spec(strategy="normal"))], values)[0].std()) < 0.021


def test_copy_gives_the_very_row() -> None:
    values = matrix(ROWS, 6)
    rows = made([init_recipe(spec(strategy="copy", token="</s>"))], values)
    assert rows[0].tobytes() == values[WORDS.index("</s>")].tobytes()


def test_average_divides_by_the_sum_of_its_weights() -> None:
    values = matrix(ROWS, 6)
    weighted = made([init_recipe(spec(strategy="average", tokens={"b": "6", "a": "2"}))], values)[0]
    np.testing.assert_allclose(weighted, 0.25 * values[0] + 0.75 * values[1], rtol=1e-13)
    alike = made([init_recipe(spec(strategy="average", tokens=["a", "b", "c"]))], values)[0]
    np.testing.assert_allclose(alike, values[:3].mean(0), rtol=1e-13)
    away = made([init_recipe(spec(strategy="average", tokens={"a": 2, "b": -1}))], values)[0]
    np.testing.assert_allclose(away, 2 * values[0] - values[1], rtol=1e-13)


def test_interpolate_lies_between_the_mean_and_the_pieces() -> None:
    values = matrix(ROWS, 6)
    for side in ("input", "output"):
        fields = {"strategy": "interpolate", "output": "first_piece"}
        mean, pieces = (
            made([init_recipe(spec(**init), "cdab")], values, side)[0]
            for init in ({"strategy": "mean"}, {"strategy": "subtokens", "output": "first_piece"})
        )
        none, half, most, all_of_it = (
            made([init_recipe(spec(**fields, **share), "cdab")], values, side)[0]
            for share in ({"share": 0}, {"share": "0.5"}, {}, {"share": 1})
        )
        assert none.tobytes() == mean.tobytes()
        assert all_of_it.tobytes() == pieces.tobytes()
        np.testing.assert_allclose(half, (mean + pieces) / 2, rtol=1e-13)
        np.testing.assert_allclose(most, 0.25 * mean + 0.75 * pieces, rtol=1e-13)
    pinned = made([init_recipe(spec(strategy="interpolate", share=0.3), "cdab")], values)
    assert blake3(pinned.astype("<f8").tobytes()).hexdigest() == (
        "2afa699c0e0bb8600f9beb14278637a10d53eb00bc63bf21fc8880941a028e49"
    )


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.floats(0.1, 30), st.integers(0, 10**6))
def test_interpolate_keeps_the_bound_that_it_states(share: float, spread: float, seed: int) -> None:
    head, context = matrix(ROWS, 4, b"h%d" % seed) * spread, gaussian(b"c%d" % seed, 0, 4)
    labels = ("cdab", "abab", "eab")
    recipes = [init_recipe(spec(strategy="interpolate", share=share), label) for label in labels]
    old, new = head @ context, made(recipes, head, "output") @ context
    before = np.exp(old - np.logaddexp.reduce(old))
    of_pieces = sum(float(before[list(LOOKUP.pieces(label))].mean()) for label in labels)
    divergence = np.logaddexp.reduce([*old, *new]) - np.logaddexp.reduce(old)
    assert divergence <= math.log1p((1 - share) * len(labels) / ROWS + share * of_pieces) + 1e-9


def test_weighted_takes_the_weights_as_they_are() -> None:
    values = matrix(ROWS, 6)
    row = made([init_recipe(spec(strategy="weighted", tokens={"b": "1.5", "a": "-0.25"}))], values)[0]
    np.testing.assert_allclose(row, 1.5 * values[1] - 0.25 * values[0], rtol=1e-13)
    pinned = made([init_recipe(spec(strategy="weighted", tokens={"a": 0.1, "b": 0.7, "c": -3}))], values)
    assert blake3(pinned.astype("<f8").tobytes()).hexdigest() == (
        "3b90e021a47357acd3c44caa80e3c2e8ea9bba2ea09b6057365210846bc99880"
    )


def test_the_order_of_an_averages_mapping_means_nothing() -> None:
    one = spec(strategy="average", tokens={"a": 0.1, "b": 0.2, "c": 0.7})
    other = spec(strategy="average", tokens={"c": 0.7, "a": 0.1, "b": 0.2})
    assert one == other
    assert hash(one) == hash(other)
    assert json.dumps(one.model_dump(mode="json")) == json.dumps(other.model_dump(mode="json"))


def test_subtokens_averages_the_pieces_of_the_text() -> None:
    values = matrix(ROWS, 6)
    rows = made(
        [init_recipe(spec(strategy="subtokens"), "cdab"), init_recipe(spec(strategy="subtokens"), "abab")], values
    )
    np.testing.assert_allclose(rows[0], (values[6] + values[5]) / 2, rtol=1e-13)
    np.testing.assert_allclose(rows[1], values[5], rtol=1e-13)


@pytest.mark.parametrize("label", ["Ġcdab", "▁cdab", "##cdab"])
def test_subtokens_strips_marks_where_the_text_gives_nothing(label: str) -> None:
    deaf = WordTokenizer(Replace(Regex("^(Ġ|▁|##).*"), ""))
    assert deaf.pieces(label) == ()
    assert spec(strategy="subtokens").start("input", deaf, label, {}).sources == (6, 5)


def test_subtokens_takes_the_text_as_it_stands_first() -> None:
    assert init_recipe(spec(strategy="subtokens"), "##cd").input.sources == LOOKUP.pieces("##cd")


def test_first_piece_looks_at_the_side() -> None:
    values = matrix(ROWS, 6)
    recipe = init_recipe(spec(strategy="subtokens", output="first_piece"), "eab" + "cde")
    assert recipe.input.sources == (4, 7, 4)
    recipe = init_recipe(spec(strategy="description", text="a b c", output="first_piece"))
    predicted, read = (made([recipe], values, side)[0] for side in ("output", "input"))
    np.testing.assert_allclose(predicted, (4 * values[0] + 2 * values[1] + values[2]) / 7, rtol=1e-13)
    np.testing.assert_allclose(read, (values[0] + 2 * values[1] + 4 * values[2]) / 7, rtol=1e-13)


def test_description_takes_the_pieces_of_its_text() -> None:
    values = matrix(ROWS, 6)
    rows = made([init_recipe(spec(strategy="description", text="ab e"))], values)
    np.testing.assert_allclose(rows[0], (values[5] + values[4]) / 2, rtol=1e-13)


def test_noise_on_a_description_is_the_draw_of_mean_cov() -> None:
    values = matrix(ROWS, 6)
    fields = {"strategy": "description", "text": "ab e"}
    plain = made([init_recipe(spec(**fields))], values)[0]
    one, other = (init_recipe(spec(**fields, noise="0.25"), label) for label in ("<one>", "<other>"))
    rows = made([one, other], values)
    draw = made([init_recipe(spec(strategy="mean_cov", scale=0.25), "<one>")], values)[0] - values.mean(0)
    np.testing.assert_allclose(rows[0], plain + draw, rtol=1e-12)
    assert not np.allclose(rows[0], rows[1])
    assert made([init_recipe(spec(**fields, noise=0))], values)[0].tobytes() == plain.tobytes()
    with pytest.raises(OperationError, match="two rows"):
        made([init_recipe(spec(**fields, noise=1), population=((0, 1),))], values)


def test_noise_is_not_drawn_again_for_the_factor_of_an_adapter() -> None:
    strategy = spec(strategy="description", text="ab e", noise=1).side("input")
    values, request = matrix(ROWS, 2), Request(matrix(ROWS, 2)[[5, 4]], b"seed")
    added = strategy.additions("input", [request], statistics(values))
    np.testing.assert_array_equal(added[0], (values[5] + values[4]) / 2)


@pytest.mark.parametrize(
    "init",
    [
        {"strategy": "mean"},
        {"strategy": "mean_cov", "scale": 1},
        {"strategy": "normal"},
        {"strategy": "interpolate", "share": 0.25},
        {"strategy": "description", "text": "a b", "noise": 0.5},
        {"strategy": "copy", "token": "a"},
        {"strategy": "average", "tokens": ["a", "b"]},
        {"strategy": "description", "text": "a b"},
        {"strategy": "subtokens"},
    ],
)
def test_norm_match_gives_the_median_norm_but_not_to_biases(init: dict[str, Any]) -> None:
    values, bias = matrix(ROWS, 6), matrix(ROWS, 1)
    scaled, plain = init_recipe(spec(**init, norm="match"), "abc"), init_recipe(spec(**init), "abc")
    row, unscaled = made([scaled], values)[0], made([plain], values)[0]
    median = float(np.median(np.linalg.norm(values, axis=1)))
    assert math.isclose(float(np.linalg.norm(row)), median, rel_tol=1e-12)
    np.testing.assert_allclose(row / np.linalg.norm(row), unscaled / np.linalg.norm(unscaled), rtol=1e-12)
    assert made([scaled], bias).tobytes() == made([plain], bias).tobytes()


def test_norm_match_leaves_a_row_of_zeros() -> None:
    assert not made([init_recipe(spec(strategy="zeros", norm="match"))], matrix(ROWS, 6)).any()


# Sides, seeds and batches


def test_input_and_output_are_apart() -> None:
    values = matrix(ROWS, 6)
    both = init_recipe(spec(input={"strategy": "copy", "token": "a"}, output={"strategy": "zeros"}))
    assert made([both], values, "input")[0].tobytes() == values[0].tobytes()
    assert not made([both], values, "output").any()
    for only in ("input", "output"):
        recipe = init_recipe(spec(**{only: {"strategy": "copy", "token": "b"}}))
        assert recipe.input == recipe.output


MIXED: list[tuple[str, dict[str, Any]]] = [
    ("ab c", {"strategy": "mean_cov", "scale": 1}),
    ("cdab", {"strategy": "subtokens", "output": "first_piece"}),
    ("x1", {"strategy": "mean_cov", "scale": 1}),
    ("x2", {"strategy": "normal", "norm": "match"}),
    ("x3", {"strategy": "mean"}),
    ("x4", {"strategy": "average", "tokens": {"a": 0.3, "b": 0.9, "c": 1.7}}),
    ("x5", {"strategy": "description", "text": "a b cd e"}),
    ("x6", {"strategy": "mean_cov", "scale": 1, "norm": "match"}),
    ("x7", {"strategy": "zeros"}),
]


def mixed() -> list[InitRecipe]:
    return [init_recipe(spec(**init), label) for label, init in MIXED]


@given(st.permutations(range(len(MIXED))), st.integers(1, len(MIXED)))
@settings(deadline=None, max_examples=40)
def test_a_row_does_not_depend_on_what_it_is_made_with(order: list[int], kept: int) -> None:
    values, recipes = matrix(ROWS, 6), mixed()
    whole = made(recipes, values)
    part = made([recipes[place] for place in order[:kept]], values)
    assert part.tobytes() == whole[order[:kept]].tobytes()


def test_pinned_bits_of_every_strategy() -> None:
    rows = made(mixed(), matrix(ROWS, 70), "output", "lm_head.weight", "workspace")
    assert blake3(rows.astype("<f8").tobytes()).hexdigest() == (
        "6eeffe987b0b61dbca0afde63eb1b4a1ea7f5d87df149f3ad72e1b668d11741a"
    )


def test_noise_depends_on_seed_revision_token_and_tensor() -> None:
    values = matrix(ROWS, 6)
    recipe = init_recipe(spec(strategy="normal"))
    later = InitRecipe("000000000000", recipe.label, recipe.input, recipe.output, recipe.population)
    rows = [
        made([recipe], values),
        made([recipe], values, tensor="lm_head.weight"),
        made([recipe], values, seed="1"),
        made([later], values),
        made([init_recipe(spec(strategy="normal"), "<other>")], values),
    ]
    assert len({row.tobytes() for row in rows}) == len(rows)
    assert made([recipe], values).tobytes() == rows[0].tobytes()


@given(st.tuples(*[st.text(max_size=4)] * 4), st.tuples(*[st.text(max_size=4)] * 4))
def test_seeds_are_unambiguous(one: tuple[str, str, str, str], other: tuple[str, str, str, str]) -> None:
    assert (seed_for(*one) == seed_for(*other)) == (one == other)


def test_seeds_tell_shifted_texts_apart() -> None:
    assert seed_for("a", "b", "", "") != seed_for("ab", "", "", "")
    assert len(seed_for("", "", "\ud800", "")) == 32


@pytest.mark.parametrize(
    "strategy", [{"strategy": "zeros"}, {"strategy": "normal"}, {"strategy": "copy", "token": "a"}]
)
def test_the_baseline_is_read_only_where_a_strategy_needs_it(strategy: dict[str, Any]) -> None:
    def unread(_: Sequence[Run]) -> npt.NDArray[np.uint8]:
        raise AssertionError("the baseline was read")

    recipes = [init_recipe(spec(**strategy))]
    batches = initialise_rows(
        recipes,
        "input",
        "t",
        "",
        lambda _: np.ones(4),
        lambda population: RowStatistics(unread, "F64", population, 4),
    )
    assert join_batches(recipes, batches).shape == (1, 4)


def test_a_nan_is_never_handed_on() -> None:
    values = matrix(ROWS, 3)
    values[0, 1] = np.nan
    with pytest.raises(ModelError, match="'<new>' would hold a NaN") as caught:
        made([init_recipe(spec(strategy="copy", token="a"))], values)
    assert caught.value.where == "embed_tokens.weight"


# Errors of single tokens


@pytest.mark.parametrize(
    "init", [{"strategy": "copy", "token": "</s"}, {"strategy": "average", "tokens": ["a", "</s"]}]
)
def test_an_unknown_token_is_named_with_the_nearest(init: dict[str, Any]) -> None:
    with pytest.raises(OperationError, match="'</s' is not a token") as caught:
        init_recipe(spec(**init))
    assert caught.value.hint == "did you mean '</s>'?"
    assert caught.value.where == "<new>"


def test_an_unknown_token_may_lack_the_mark_of_a_space() -> None:
    with pytest.raises(OperationError) as caught:
        init_recipe(spec(strategy="copy", token="hello"))
    assert caught.value.hint == "did you mean 'Ġhello'?"


@pytest.mark.parametrize("init", [{"strategy": "subtokens"}, {"strategy": "description", "text": "xyz"}])
def test_no_pieces_are_an_error(init: dict[str, Any]) -> None:
    with pytest.raises(OperationError, match="gives no pieces") as caught:
        init_recipe(spec(**init), "xyz")
    assert caught.value.hint


def test_subtokens_of_a_token_that_is_its_own_piece() -> None:
    with pytest.raises(OperationError, match="a token of its own"):
        init_recipe(spec(strategy="subtokens"), "abcd")


# Files


def stored(**tensors: Any) -> dict[str, bytes]:
    return {"rows.safetensors": save({name: np.asarray(value) for name, value in tensors.items()})}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_file_gives_its_row_exactly(dtype: type[np.floating[Any]]) -> None:
    row = matrix(1, 6)[0].astype(dtype)
    init = spec(strategy="file", path="rows.safetensors")
    recipe = init_recipe(init, "tool", attachments=stored(other=row * 2, tool=row))
    assert made([recipe], matrix(ROWS, 6))[0].tobytes() == row.astype(np.float64).tobytes()
    assert hash(recipe) == hash(init_recipe(init, "tool", attachments=stored(other=row * 2, tool=row)))
    assert init.references() == ("rows.safetensors",)
    named = spec(strategy="file", path="rows.safetensors", tensor="other")
    assert (
        made([init_recipe(named, "tool", attachments=stored(other=row))], matrix(ROWS, 6))[0].tolist() == row.tolist()
    )


def test_file_reads_bfloat16() -> None:
    header = b'{"t":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    data = len(header).to_bytes(8, "little") + header + b"\x80\x3f\x40\xc0"
    recipe = init_recipe(spec(strategy="file", path="f"), "t", attachments={"f": data})
    assert made([recipe], matrix(ROWS, 2))[0].tolist() == [1.0, -3.0]


def test_file_starts_biases_as_their_mean_and_takes_norm() -> None:
    row = np.ones(6)
    recipe = init_recipe(spec(strategy="file", path="rows.safetensors", norm="match"), "t", attachments=stored(t=row))
    bias, values = matrix(ROWS, 1), matrix(ROWS, 6)
    np.testing.assert_allclose(made([recipe], bias, "output")[0], bias.mean(0), rtol=1e-13)
    median = float(np.median(np.linalg.norm(values, axis=1)))
    np.testing.assert_allclose(made([recipe], values)[0], np.full(6, median / math.sqrt(6)), rtol=1e-13)


@pytest.mark.parametrize(
    ("attachments", "message"),
    [
        ({}, "does not belong to the migration"),
        (stored(tol=np.ones(6)), "no tensor 'tool'"),
        (stored(tool=np.ones((1, 6))), r"one axis .* this is F64 \[1, 6\]"),
        (stored(tool=np.ones(6, np.int32)), "this is I32"),
        (stored(tool=np.array([1.0, np.nan])), "infinity or a NaN"),
    ],
)
def test_file_faults(attachments: dict[str, bytes], message: str) -> None:
    with pytest.raises(OperationError, match=message) as caught:
        init_recipe(spec(strategy="file", path="rows.safetensors"), "tool", attachments=attachments)
    assert caught.value.hint


def test_file_of_another_width_and_file_that_is_none() -> None:
    init = spec(strategy="file", path="rows.safetensors")
    with pytest.raises(OperationError, match="5 numbers, the embeddings are 6 wide"):
        made([init_recipe(init, "t", attachments=stored(t=np.ones(5)))], matrix(ROWS, 6))
    with pytest.raises(WeightsError):
        init_recipe(init, "t", attachments={"rows.safetensors": b"no weights at all"})


# What stands in a migration file


class Document(BaseModel):
    init: InitSpec


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("init: {strategy: men}", (1, 18), ["unknown strategy 'men'", "'mean'"]),
        ("init: {strategy: quux}", (1, 18), ["unknown strategy 'quux'", "subtokens", "mean_cov"]),
        ("init: {}", (1, 7), ["strategy"]),
        ("init: mean", (1, 7), ["a mapping"]),
        ("init: {strategy: mean_cov, scael: 1}", (1, 28), ["unknown field 'scael'", "'scale'"]),
        ("init: {strategy: mean_cov, scale: x}", (1, 35), ["a number"]),
        ("init: {strategy: interpolate, share: 1.5}", (1, 38), ["less than or equal to 1"]),
        ("init: {strategy: mean_cov, scale: -1}", (1, 35), ["greater than or equal to 0"]),
        ("init:\n  input: {strategy: mean}\n  output: {strategy: copy}", (3, 11), ["'token' is missing"]),
        ("init:\n  input: {strategy: mean}\n  outptu: {strategy: mean}", (3, 3), ["'outptu'", "'output'"]),
        ("init: {strategy: mean, output: {strategy: zeros}}", (1, 7), ["not both"]),
        ("init: {strategy: average, tokens: {a: 1, b: much}}", (1, 45), ["a number"]),
        ("init: {strategy: average, tokens: {a: 1, b: -1}}", (1, 35), ["add up to zero"]),
        ("init: {strategy: average, tokens: {a: 1e308, b: 1e308}}", (1, 35), ["sum"]),
        ("init: {strategy: average, tokens: []}", (1, 35), ["at least one"]),
        ("init: {strategy: average, tokens: [a, a]}", (1, 35), ["'a' is named twice"]),
        ("init: {strategy: mean, norm: macth}", (1, 30), ["'match'"]),
    ],
)
def test_a_fault_has_its_place_and_a_hint(text: str, place: tuple[int, int], words: list[str]) -> None:
    _, (problem,) = check(Document, parse(text, "m.yaml"))
    assert (problem.line, problem.column) == place
    for word in words:
        assert word in str(problem)


def test_infinite_weights_are_refused() -> None:
    for value in ("inf", "nan"):
        with pytest.raises(ValidationError, match="finite"):
            spec(strategy="average", tokens={"a": value})
        with pytest.raises(ValidationError, match="finite"):
            spec(strategy="mean_cov", scale=value)


@pytest.mark.parametrize(
    "written",
    [
        {"strategy": "mean"},
        {"strategy": "mean_cov", "scale": 1.0, "norm": "match"},
        {"strategy": "average", "tokens": ["b", "a"]},
        {"strategy": "average", "tokens": {"a": 1.0, "b": 2.5}},
        {"strategy": "file", "path": "rows.safetensors"},
        {"input": {"strategy": "subtokens", "output": "first_piece"}, "output": {"strategy": "zeros"}},
    ],
)
def test_a_dump_is_what_was_written(written: dict[str, Any]) -> None:
    init = InitSpec.model_validate(written)
    dumped = init.model_dump(mode="json", exclude_defaults=True)
    assert dumped == written
    assert InitSpec.model_validate(dumped) == init
    assert InitSpec.model_validate(json.loads(init.model_dump_json())) == init
    assert hash(InitSpec.model_validate(dumped)) == hash(init)
    assert Document(init=init).model_dump(mode="json", exclude_defaults=True) == {"init": written}
    with pytest.raises(ValidationError):
        init.input = None  # type: ignore[misc]


def test_what_means_the_same_is_dumped_alike() -> None:
    alike = [
        spec(strategy="mean"),
        spec(input={"strategy": "mean"}),
        spec(output={"strategy": "mean"}),
        spec(input={"strategy": "mean"}, output={"strategy": "mean", "norm": None}),
    ]
    assert [init.model_dump(mode="json", exclude_defaults=True) for init in alike] == [{"strategy": "mean"}] * 4


def test_references_are_those_of_both_sides_once() -> None:
    one, other = ({"strategy": "file", "path": path} for path in ("a.safetensors", "b.safetensors"))
    assert spec(input=one, output=other).references() == ("a.safetensors", "b.safetensors")
    assert spec(input=one, output=one).references() == ("a.safetensors",)
    assert spec(strategy="mean").references() == ()


def test_json_schema_describes_every_strategy() -> None:
    schema = Document.model_json_schema()
    either = schema["$defs"]["InitSpec"]["anyOf"]
    assert set(either[0]["discriminator"]["mapping"]) == set(strategy_types())
    assert set(either[1]["properties"]) == {"input", "output", "table"}
    for kind in strategy_types().values():
        described = schema["$defs"][kind.__name__]
        assert described["description"]
        assert "strategy" in described["required"]
        assert all(field.get("description") for name, field in described["properties"].items() if name != "strategy")


# Plug-ins

PLUGIN = '''
from typing import Literal
import numpy as np
from tokmigrate.init import RowStrategy

class Constant(RowStrategy):
    """Every number the same."""
    strategy: Literal["constant"]
    value: float = 1.0

    def unscaled_rows(self, side, requests, statistics):
        return np.full((len(requests), statistics.width), self.value)
'''


def install(folder: Path, entry: str, name: str = "rowplug") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(PLUGIN)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tokmigrate.strategies]\n{entry}\n")


def test_an_installed_plug_in_is_a_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError):
        spec(strategy="constant")
    install(tmp_path, "constant = plug_one:Constant", "plug_one")
    monkeypatch.syspath_prepend(tmp_path)
    init = spec(strategy="constant", value="2.5")
    assert made([init_recipe(init)], matrix(ROWS, 3)).tolist() == [[2.5, 2.5, 2.5]]
    assert init.model_dump(mode="json", exclude_defaults=True) == {"strategy": "constant", "value": 2.5}
    assert "Constant" in Document.model_json_schema()["$defs"]
    assert "constant" in strategy_types()
    monkeypatch.undo()
    assert "constant" not in strategy_types()
