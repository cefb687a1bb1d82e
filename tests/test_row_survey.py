"""Norms and nearest rows, read in blocks, against the same worked out over the whole matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import Dtype
from safetensors.torch import save_file

from tokmigrate.model.formats.safetensors_header import read_header
from tokmigrate.model.weights.row_survey import RowSurvey, survey_rows
from tokmigrate.model.weights.tensor_rows import Geometry, TensorRows

DTYPES: tuple[Dtype, ...] = ("bfloat16", "float16", "float32", "float64")


def surveyed(
    path: Path,
    matrix: torch.Tensor,
    asked: list[int],
    among: np.ndarray | None,
    block_bytes: int,
    compared: Sequence[int] = (),
) -> RowSurvey:
    save_file({"w": matrix}, path)
    header = read_header(path)
    entry = header.entry("w")
    geometry = Geometry.of(tuple(matrix.shape), entry.dtype, 0)
    with TensorRows(path, header.data_start + entry.begin, geometry, entry.dtype) as rows:
        return survey_rows(rows, len(matrix), asked, among, compared, block_bytes=block_bytes)


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
    found = surveyed(path, matrix, asked, among, block_bytes)

    exact = matrix.to(torch.float64).numpy()
    norms = np.linalg.norm(exact, axis=1)
    np.testing.assert_allclose(found.norms, norms, rtol=1e-12)
    assert list(found.nearest) == asked
    for number in asked:
        allowed = [
            other for other in range(rows) if among[other] and other != number and norms[other] and norms[number]
        ]
        cosines = {other: exact[number] @ exact[other] / norms[number] / norms[other] for other in allowed}
        expected = sorted(cosines.values(), reverse=True)[:5]
        near = found.nearest[number]
        np.testing.assert_allclose([each.cosine for each in near], expected, atol=1e-8)
        np.testing.assert_allclose([cosines[each.id] for each in near], expected, atol=1e-8)


def test_equal_rows_are_named_in_the_order_of_their_ids(tmp_path: Path) -> None:
    matrix = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [1.0, 0.0], [4.0, 0.0]])
    for block_bytes in (16, 48, 1000):
        found = surveyed(tmp_path / "m.safetensors", matrix, [3], None, block_bytes)
        assert [(near.id, near.cosine) for near in found.nearest[3]] == [(0, 1), (2, 1), (4, 1), (1, 0)]


def test_equal_rows_are_counted(tmp_path: Path) -> None:
    matrix = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    for block_bytes in (16, 48, 1000):
        found = surveyed(tmp_path / "m.safetensors", matrix, [], None, block_bytes, compared=[0, 2, 3])
        assert found.twins == {0: 1, 2: 1, 3: 0}


def test_rows_that_are_no_numbers_have_no_direction_and_hide_no_other(tmp_path: Path) -> None:
    matrix = torch.tensor([[1.0, 0.0], [float("nan"), 1.0], [float("inf"), 0.0], [1e-30, 1e-30], [3e38, 3e38]])
    found = surveyed(tmp_path / "m.safetensors", matrix, [0, 1, 2, 3], None, 32)
    assert [near.id for near in found.nearest[3]] == [4, 0]
    assert found.nearest[1] == found.nearest[2] == ()
    assert np.isfinite(found.norms).tolist() == [True, False, False, True, True]
