"""The N(0, 1) stream: right, the same on every machine, and the same wherever it is entered."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from tokmigrate.init.noise import gaussian, normal_quantile

SEED = b"a seed"


def test_pinned_bits() -> None:
    assert blake3(gaussian(SEED, 0, 1000).astype("<f8").tobytes()).hexdigest() == (
        "ee9b236e7c8464cc1fa4aac234a94966a8d59e97ebb5ebc25441b7b813c5faaf"
    )


def test_agrees_with_the_standard_library() -> None:
    octets = blake3(SEED).digest(length=8 * 20_000)
    uniform = ((np.frombuffer(octets, "<u8") >> np.uint64(12)).astype(np.float64) * 2 + 1) / 2.0**53
    expected = np.array([NormalDist().inv_cdf(float(u)) for u in uniform])
    np.testing.assert_allclose(gaussian(SEED, 0, 20_000), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("k", [0, 1, 2, 63, 64, 12_345, 10**9, 2**40, 2**51 - 1, 2**51, 2**52 - 2, 2**52 - 1])
def test_tails_and_middle(k: int) -> None:
    found = float(normal_quantile(np.array([float(k)]))[0])
    assert math.isclose(found, NormalDist().inv_cdf((2 * k + 1) / 2**53), rel_tol=1e-14)
    # An independent check: the error function, where it is well conditioned, gives the probability back.
    tail = min(2 * k + 1, 2**53 - 2 * k - 1) / 2**53
    assert math.isclose(math.erfc(abs(found) / math.sqrt(2)) / 2, tail, rel_tol=1e-13)


@given(st.integers(0, 2**52 - 1))
def test_symmetric_and_finite(k: int) -> None:
    low, high = normal_quantile(np.array([float(k), float(2**52 - 1 - k)]))
    assert low == -high
    assert math.isfinite(low)


@given(st.integers(0, 10**6), st.integers(0, 70), st.integers(0, 70))
def test_no_number_depends_on_where_the_stream_is_entered(start: int, first: int, second: int) -> None:
    whole = gaussian(SEED, start, first + second)
    parts = np.concatenate([gaussian(SEED, start, first), gaussian(SEED, start + first, second)])
    assert whole.tobytes() == parts.tobytes()


def test_borders_of_large_draws() -> None:
    whole = gaussian(SEED, 0, 140_000)
    assert whole[65_530:65_545].tobytes() == gaussian(SEED, 65_530, 15).tobytes()
    assert whole[4:10].tobytes() == gaussian(SEED, 4, 6).tobytes()


def test_seeds_have_streams_of_their_own() -> None:
    one, other = gaussian(b"1", 0, 50_000), gaussian(b"2", 0, 50_000)
    assert abs(float(np.mean(one * other))) < 4 / math.sqrt(50_000)


def test_moments_and_distance() -> None:
    count = 200_000
    numbers = np.sort(gaussian(SEED, 0, count))
    for power, expected, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs(float(np.mean(numbers**power)) - expected) < 4 * math.sqrt(variance / count)
    cdf = np.array([NormalDist().cdf(float(x)) for x in numbers])
    steps = np.arange(count + 1) / count
    distance = max(float(np.max(steps[1:] - cdf)), float(np.max(cdf - steps[:-1])))
    # 1.95 / √n is what Kolmogorov and Smirnov's distance exceeds once in a thousand times.
    assert distance < 1.95 / math.sqrt(count)
    lag = float(np.mean(gaussian(SEED, 0, count)[1:] * gaussian(SEED, 0, count)[:-1]))
    assert abs(lag) < 4 / math.sqrt(count)


def test_nothing_and_nonsense() -> None:
    assert gaussian(SEED, 5, 0).shape == (0,)
