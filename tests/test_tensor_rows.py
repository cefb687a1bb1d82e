"""Numbers as stored, rows along either axis, and their digests."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokmigrate.errors import ModelError, StorageError, WeightsError
from tokmigrate.model.formats.dtype import ITEM_BITS, from_float64, to_float64
from tokmigrate.model.weights.tensor_rows import Geometry, TensorRows, digest_range, digest_rows, tensor_digest

FORMATS = {"BF16": (8, 7), "F16": (5, 10), "F32": (8, 23), "F64": (11, 52)}


def nearest_even(value: float, dtype: str) -> int:
    """Return the stored bits of a finite `value`: an exact and slow reference over fractions."""
    exponent_bits, fraction_bits = FORMATS[dtype]
    bias = (1 << (exponent_bits - 1)) - 1
    sign = (math.copysign(1, value) < 0) << (exponent_bits + fraction_bits)
    size = abs(Fraction(value))
    exponent = 1 - bias
    while size >= Fraction(2) ** (exponent + 1):
        exponent += 1
    # The stored bits of positive numbers count up with them: bits = steps above the exponent's first.
    steps = size / Fraction(2) ** (exponent - fraction_bits)
    count = steps.numerator // steps.denominator
    rest = steps - count
    if rest > Fraction(1, 2) or (rest == Fraction(1, 2) and count % 2):
        count += 1
    bits = ((exponent + bias - 1) << fraction_bits) + count
    return sign | min(bits, ((1 << exponent_bits) - 1) << fraction_bits)


def stored(value: float, dtype: str) -> int:
    return int.from_bytes(from_float64(np.array([value]), dtype), "little")


def near_ties(dtype: str) -> st.SearchStrategy[float]:
    """Numbers that are halfway between two of `dtype`, and their float64 neighbours."""
    _, fraction_bits = FORMATS[dtype]

    def number(parts: tuple[int, int, int, bool]) -> float:
        exponent, steps, nudge, negative = parts
        value = math.ldexp(2 * steps + 1, exponent - fraction_bits - 1)
        for _ in range(abs(nudge)):
            value = math.nextafter(value, math.inf if nudge > 0 else 0.0)
        return -value if negative else value

    return st.tuples(
        st.integers(-160, 130), st.integers(0, (2 << fraction_bits) - 1), st.integers(-1, 1), st.booleans()
    ).map(number)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_rounds_once_to_nearest_even(dtype: str) -> None:
    @given(near_ties(dtype) | st.floats(allow_nan=False, allow_infinity=False))
    @example(1.0 + 2.0**-8 + 2.0**-40)  # by way of float32 this would be a tie, and round down
    @example(1.0 + 3 * 2.0**-8 - 2.0**-40)
    @example(5e-324)
    @example(-0.0)
    @example(1.7976931348623157e308)
    @example(65519.99999999999)
    @example(65520.0)
    @example(2.0**-25)
    @settings(deadline=None, max_examples=300)
    def check(value: float) -> None:
        assert stored(value, dtype) == nearest_even(value, dtype)

    check()


def test_float32_agrees_with_the_processor() -> None:
    bits = np.random.default_rng(7).integers(0, 1 << 64, 200_000, np.uint64)
    values = bits.view(np.float64)
    values = np.concatenate([values[np.isfinite(values)], np.float64(2.0) ** np.arange(-152, 130)])
    with np.errstate(over="ignore", under="ignore"):
        assert from_float64(values, "F32") == values.astype("<f4").tobytes()
        assert from_float64(values, "F16") == values.astype("<f2").tobytes()


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_number_of_sixteen_bits_comes_back(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    patterns = np.arange(1 << 16, dtype=np.uint16)
    values = to_float64(patterns.view(np.uint8), dtype)
    torch_dtype = torch.bfloat16 if dtype == "BF16" else torch.float16
    theirs = torch.from_numpy(patterns.view(np.int16)).view(torch_dtype).to(torch.float64).numpy()
    assert np.array_equal(values, theirs, equal_nan=True)
    back = np.frombuffer(from_float64(values, dtype), np.uint16)
    _, fraction_bits = FORMATS[dtype]
    quiet = np.uint16(1 << (fraction_bits - 1))
    expected = np.where(np.isnan(values), patterns | quiet, patterns)
    assert np.array_equal(back, expected)


@pytest.mark.parametrize(("dtype", "infinity"), [("BF16", 0x7F80), ("F16", 0x7C00), ("F32", 0x7F800000)])
def test_infinities_and_nan(dtype: str, infinity: int) -> None:
    sign = 1 << (ITEM_BITS[dtype] - 1)
    assert stored(math.inf, dtype) == infinity
    assert stored(-math.inf, dtype) == sign | infinity
    assert stored(1e300, dtype) == infinity
    assert stored(-1e300, dtype) == sign | infinity
    assert math.isnan(to_float64(from_float64(np.array([math.nan]), dtype), dtype)[0])
    # A payload in the lowest bit alone is cut off: the number must not become infinity.
    smallest = np.array([0x7FF0000000000001], np.uint64).view(np.float64)
    assert math.isnan(to_float64(from_float64(smallest, dtype), dtype)[0])


@given(st.lists(st.floats(), max_size=20))
def test_float64_comes_back(values: list[float]) -> None:
    array = np.array(values, np.float64)
    assert to_float64(from_float64(array, "F64"), "F64").tobytes() == array.tobytes()


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_float32_comes_back(values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert from_float64(to_float64(array.tobytes(), "F32"), "F32") == array.tobytes()


def test_only_floating_rows_can_be_made() -> None:
    with pytest.raises(KeyError, match="I64"):
        to_float64(b"", "I64")
    with pytest.raises(KeyError, match="I64"):
        from_float64(np.zeros(1), "I64")


@pytest.mark.parametrize(
    ("shape", "dtype", "axis", "geometry"),
    [
        ((5, 3), "BF16", 0, Geometry(1, 5, 6)),
        ((5,), "F32", 0, Geometry(1, 5, 4)),
        ((1, 5), "F32", 1, Geometry(1, 5, 4)),
        ((4, 5), "F16", 1, Geometry(4, 5, 2)),
        ((2, 5, 3), "F64", 1, Geometry(2, 5, 24)),
        ((5, 4), "F4", 0, Geometry(1, 5, 2)),
        ((5, 0), "F32", 0, Geometry(1, 5, 0)),
    ],
)
def test_geometry(shape: tuple[int, ...], dtype: str, axis: int, geometry: Geometry) -> None:
    assert Geometry.of(shape, dtype, axis) == geometry
    assert geometry.size * 8 == math.prod(shape) * ITEM_BITS[dtype]


def test_geometry_refuses() -> None:
    with pytest.raises(ModelError, match="no axis 2"):
        Geometry.of((5, 3), "F32", 2)
    with pytest.raises(ModelError, match="F4"):
        Geometry.of((5, 3), "F4", 0)


@pytest.fixture(scope="module")
def matrix() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((50, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, matrix: npt.NDArray[np.float32]) -> Path:
    path = tmp_path_factory.mktemp("rows") / "data"
    path.write_bytes(b"before!" + matrix.tobytes() + b"after")
    return path


def test_rows_of_axis_0(path: Path, matrix: npt.NDArray[np.float32]) -> None:
    with TensorRows(path, 7, Geometry.of((50, 6), "F32", 0), "F32") as rows:
        assert rows.width == 6
        assert rows.read_run(3, 9).tobytes() == matrix[3:9].tobytes()
        assert rows.read_run(50, 50).shape == (0, 24)
        assert np.array_equal(rows.row(49), matrix[49])
        for start, stop in ((-1, 2), (3, 51), (4, 3)):
            with pytest.raises(IndexError):
                rows.read_run(start, stop)
        table = digest_rows(rows.read_runs([(0, 20), (20, 50)]))
    digests = [blake3(row.tobytes()).digest() for row in matrix]
    assert table == b"".join(digests)
    assert tensor_digest(table) == "r1:" + blake3(b"".join(digests)).hexdigest()


@pytest.mark.parametrize("shape", [(5, 60), (1, 300), (10, 15, 2), (3, 100, 1)])
def test_rows_of_axis_1(path: Path, matrix: npt.NDArray[np.float32], shape: tuple[int, ...]) -> None:
    tensor = matrix.reshape(shape)
    by_row = np.moveaxis(tensor, 1, 0).reshape(shape[1], -1)
    with TensorRows(path, 7, Geometry.of(shape, "F32", 1), "F32") as rows:
        assert rows.read_run(2, 11).tobytes() == by_row[2:11].tobytes()
        assert np.array_equal(rows.row(4), by_row[4])
        assert digest_rows(rows.read_run(1, 3)) == b"".join(blake3(row.tobytes()).digest() for row in by_row[1:3])


runs = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda run: (min(run), max(run))))


@given(runs, st.integers(1, 600))
@settings(deadline=None, max_examples=60)
def test_blocks_do_not_depend_on_how_rows_are_cut_into_runs(
    path: Path, matrix: npt.NDArray[np.float32], wanted: list[tuple[int, int]], block_bytes: int
) -> None:
    single = [(row, row + 1) for start, stop in wanted for row in range(start, stop)]
    with TensorRows(path, 7, Geometry.of((50, 6), "F32", 0), "F32") as rows:
        blocks = list(rows.float_rows(wanted, block_bytes))
        others = list(rows.float_rows(single, block_bytes))
    assert [block.tobytes() for block in blocks] == [block.tobytes() for block in others]
    expected = [matrix[start:stop] for start, stop in wanted]
    assert np.array_equal(np.concatenate([np.empty((0, 6)), *blocks]), np.concatenate([np.empty((0, 6)), *expected]))
    assert all(block.nbytes <= max(block_bytes, 48) for block in blocks)


def test_a_long_bias(tmp_path: Path) -> None:
    bias = np.arange(150_000, dtype=np.uint16)
    path = tmp_path / "bias"
    path.write_bytes(bias.tobytes())
    with TensorRows(path, 0, Geometry.of((150_000,), "BF16", 0), "BF16") as rows:
        table = digest_rows(rows.read_run(0, 150_000))
        total = sum(len(block) for block in rows.float_rows([(0, 150_000)]))
    assert (len(table), total) == (32 * 150_000, 150_000)
    assert table[-32:] == blake3(bias[149_999:].tobytes()).digest()


def test_rows_without_numbers(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with TensorRows(tmp_path / "empty", 0, Geometry.of((3, 0), "F32", 0), "F32") as rows:
        assert digest_rows(rows.read_run(0, 3)) == blake3().digest() * 3
        assert [block.shape for block in rows.float_rows([(0, 3)])] == [(3, 0)]


def test_a_file_that_ends_too_early(path: Path, tmp_path: Path) -> None:
    with (
        TensorRows(path, 7, Geometry.of((60, 6), "F32", 0), "F32") as rows,
        pytest.raises(WeightsError, match="too early"),
    ):
        rows.read_run(0, 60)
    with pytest.raises(WeightsError, match="missing"), TensorRows(tmp_path / "no", 0, Geometry(1, 1, 1), "U8"):
        pass
    with pytest.raises(StorageError, match="is a directory"):
        digest_range(tmp_path, 0, 1)


def test_digest_range(path: Path, matrix: npt.NDArray[np.float32]) -> None:
    octets = path.read_bytes()
    for begin, end in ((0, len(octets)), (7, 20), (5, 5)):
        assert digest_range(path, begin, end) == blake3(octets[begin:end]).hexdigest()
    with pytest.raises(WeightsError, match="too early"):
        digest_range(path, 0, len(octets) + 1)


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(20 * 1024 * 1024)
    yield path
    path.unlink()


def test_more_than_one_block(large: Path) -> None:
    size = large.stat().st_size
    assert digest_range(large, 1, size) == blake3(bytes(size - 1)).hexdigest()
    with TensorRows(large, 0, Geometry.of((5120, 1024), "F32", 0), "F32") as rows:
        blocks = [block.shape for block in rows.float_rows([(0, 5120)])]
    assert blocks == [(1024, 1024)] * 5
