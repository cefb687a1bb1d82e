"""Independent N(0, 1) numbers that are the same bits on every machine, at any place of a stream.

Number i of a stream is Φ⁻¹(u_i). u_i comes from bytes 8i to 8i + 8 of the extendable output of BLAKE3 over
the seed, read as a little-endian integer: its upper 52 bits k give u = (2k + 1) / 2⁵³, exact in a float64,
never 0 or 1, and symmetric about 1/2. Φ⁻¹ is PPND16 of Wichura's Algorithm AS 241 (Applied Statistics 37,
1988), accurate to about 1 part in 10¹⁶.

Its logarithm is computed here, since `np.log` and the C library's differ between machines in the last bit.
All that is used is `np.frexp`, which is exact, and the four operations and the square root, whose rounding
IEEE 754 lays down. Each is a numpy call of its own, so that no compiler fuses two into one rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from blake3 import blake3

from tokmigrate.model.formats.dtype import Matrix

_BYTES = 8
_CHUNK = 1 << 16

# AS 241, PPND16, by rising powers: numerators and denominators for the centre, the nearer and the farther tail.
_NUMERATORS = """
    3.3871328727963666080e0 1.42343711074968357734e0  6.65790464350110377720e0
    1.3314166789178437745e2 4.63033784615654529590e0  5.46378491116411436990e0
    1.9715909503065514427e3 5.76949722146069140550e0  1.78482653991729133580e0
    1.3731693765509461125e4 3.64784832476320460504e0  2.96560571828504891230e-1
    4.5921953931549871457e4 1.27045825245236838258e0  2.65321895265761230930e-2
    6.7265770927008700853e4 2.41780725177450611770e-1 1.24266094738807843860e-3
    3.3430575583588128105e4 2.27238449892691845833e-2 2.71155556874348757815e-5
    2.5090809287301226727e3 7.74545014278341407640e-4 2.01033439929228813265e-7
"""
_DENOMINATORS = """
    1.0                     1.0                       1.0
    4.2313330701600911252e1 2.05319162663775882187e0  5.99832206555887937690e-1
    6.8718700749205790830e2 1.67638483018380384940e0  1.36929880922735805310e-1
    5.3941960214247511077e3 6.89767334985100004550e-1 1.48753612908506148525e-2
    2.1213794301586595867e4 1.48103976427480074590e-1 7.86869131145613259100e-4
    3.9307895800092710610e4 1.51986665636164571966e-2 1.84631831751005468180e-5
    2.8729085735721942674e4 5.47593808499534494600e-4 1.42151175831644588870e-7
    5.2264952788528545610e3 1.05075007164441684324e-9 2.04426310338993978564e-15
"""


def _columns(table: str) -> Iterator[tuple[float, ...]]:
    return zip(*(map(float, line.split()) for line in table.strip().splitlines()), strict=True)


_A, _C, _E = _columns(_NUMERATORS)
_B, _D, _F = _columns(_DENOMINATORS)

# ln 2 in two parts; the upper one has 21 zero bits at its end, so that a small integer times it is exact.
_LN2_UPPER = 6.93147180369123816490e-01
_LN2_LOWER = 1.90821492927058770002e-10
_SQRT_HALF = 0.7071067811865476
# 2 atanh(s) = 2s (1 + s²/3 + s⁴/5 + …); with s² ≤ 0.0295 the next term is below 2⁻⁶⁵.
_ATANH = tuple(1.0 / (2 * k + 1) for k in range(12))


def gaussian(seed: bytes, start: int, count: int) -> Matrix:
    """Return numbers `start` to `start + count` of the N(0, 1) stream that `seed` names, `(count,)`.

    Args:
        start: The first number wanted, from 0; the same number comes whatever it is asked along with.
    """
    numbers = np.empty(count)
    source = blake3(seed)
    for begin in range(0, count, _CHUNK):
        end = min(begin + _CHUNK, count)
        octets = source.digest(length=_BYTES * (end - begin), seek=_BYTES * (start + begin))
        bits = np.frombuffer(octets, dtype="<u8") >> np.uint64(12)
        numbers[begin:end] = normal_quantile(bits.astype(np.float64))
    return numbers


def normal_quantile(k: Matrix) -> Matrix:
    """Return Φ⁻¹((2k + 1) / 2⁵³), of the shape of `k`.

    Args:
        k: Whole numbers from 0 up to, not including, 2⁵².
    """
    # With p = (2k + 1) / 2⁵³, both p and p - 1/2 are exact.
    p = (k * 2.0 + 1.0) * 2.0**-53
    q = p - 0.5
    square = 0.180625 - q * q
    found: Matrix = q * (_polynomial(_A, square) / _polynomial(_B, square))
    tail = np.abs(q) > 0.425
    found[tail] = _tail_quantile(p[tail], q[tail])
    return found


def _tail_quantile(p: Matrix, q: Matrix) -> Matrix:
    r = np.sqrt(-_log(np.where(q < 0.0, p, 1.0 - p)))
    near, far = r - 1.6, r - 5.0
    size = np.where(
        r <= 5.0, _polynomial(_C, near) / _polynomial(_D, near), _polynomial(_E, far) / _polynomial(_F, far)
    )
    signed: Matrix = np.where(q < 0.0, -size, size)
    return signed


def _polynomial(coefficients: Sequence[float], x: Matrix) -> Matrix:
    value: Matrix = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x
        value = value + coefficient
    return value


def _log(x: Matrix) -> Matrix:
    """Return the natural logarithm of positive, normal numbers."""
    fraction, exponent = np.frexp(x)
    low = fraction < _SQRT_HALF
    m = np.where(low, fraction * 2.0, fraction)
    e = exponent.astype(np.float64) - low.astype(np.float64)
    s = (m - 1.0) / (m + 1.0)
    series = s * 2.0 * _polynomial(_ATANH, s * s)
    result: Matrix = e * _LN2_UPPER + (e * _LN2_LOWER + series)
    return result
