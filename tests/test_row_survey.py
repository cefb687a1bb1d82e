"""Norms and nearest rows, read in blocks, against the same worked out over the whole matrix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import Dtype
from safetensors.torch import save_file

from tokmigrate.commands.row_survey import Nearest, Numbers, count_equal_rows, survey_rows
from tokmigrate.model.formats.safetensors_header import read_header
from tokmigrate.model.weights.tensor_rows import Geometry, TensorRows

DTYPES: tuple[Dtype, ...] = ("bfloat16", "float16", "float32", "float64")


@contextmanager
def opened(path: Path, matrix: torch.Tensor) -> Iterator[TensorRows]:
    save_file({"w": matrix}, path)
    header = read_header(path)
    entry = header.entry("w")
    geometry = Geometry.of(tuple(matrix.shape), entry.dtype, 0)
    with TensorRows(path, header.data_start + entry.begin, geometry, entry.dtype) as rows:
        yield rows


def surveyed(
    path: Path, matrix: torch.Tensor, asked: list[int], among: np.ndarray, block_bytes: int
) -> tuple[Numbers, Nearest]:
    with opened(path, matrix) as rows:
        return survey_rows(rows, len(matrix), asked, among, lambda _: None, block_bytes)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.integers(1, 9),
    st.sampled_from(DTYPES),
    st.integers(1, 700),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_blocks_give_what_the_whole_matrix_gives(
    tmp_path_factory: object, seed: int, rows: int, width: int, dtype: Dtype, block_bytes: int, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("rows") / "m.safetensors"  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, width, generator=generator, dtype=torch.float64).to(getattr(torch, dtype))
    matrix[data.draw(st.integers(0, rows - 1))] = 0
    asked = data.draw(st.lists(st.integers(0, rows - 1), unique=True, max_size=5))
    among = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    found, nearest = surveyed(path, matrix, asked, among, block_bytes)

    exact = matrix.to(torch.float64).numpy()
    norms = np.linalg.norm(exact, axis=1)
    np.testing.assert_allclose(found, norms, rtol=1e-12)
    assert list(nearest) == asked
    for number in asked:
        allowed = [
            other for other in range(rows) if among[other] and other != number and norms[other] and norms[number]
        ]
        cosines = {other: exact[number] @ exact[other] / norms[number] / norms[other] for other in allowed}
        expected = sorted(cosines.values(), reverse=True)[:5]
        near = nearest[number]
        np.testing.assert_allclose([cosine for _, cosine in near], expected, atol=1e-8)
        np.testing.assert_allclose([cosines[other] for other, _ in near], expected, atol=1e-8)


def test_equal_rows_are_named_in_the_order_of_their_ids(tmp_path: Path) -> None:
    matrix = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [1.0, 0.0], [4.0, 0.0]])
    for block_bytes in (16, 48, 1000):
        _, nearest = surveyed(tmp_path / "m.safetensors", matrix, [3], np.ones(5, bool), block_bytes)
        assert nearest[3] == [(0, 1), (2, 1), (4, 1), (1, 0)]


def test_equal_rows_are_counted(tmp_path: Path) -> None:
    matrix = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    with opened(tmp_path / "m.safetensors", matrix) as rows:
        assert count_equal_rows(rows, [0, 2, 3]) == {0: 1, 2: 1, 3: 0}


def test_rows_that_are_no_numbers_have_no_direction_and_hide_no_other(tmp_path: Path) -> None:
    matrix = torch.tensor([[1.0, 0.0], [float("nan"), 1.0], [float("inf"), 0.0], [1e-30, 1e-30], [3e38, 3e38]])
    norms, nearest = surveyed(tmp_path / "m.safetensors", matrix, [0, 1, 2, 3], np.ones(5, bool), 32)
    assert [number for number, _ in nearest[3]] == [4, 0]
    assert nearest[1] == nearest[2] == []
    assert np.isfinite(norms).tolist() == [True, False, False, True, True]
