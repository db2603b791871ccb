"""Mean difference of two methods on the same prompts: test and 95 % interval.

Two tests of the same mean, and the larger p counts, so the interval is the hull of both intervals:

- the exact sign-flip test (Fisher 1935) for up to 20 prompts, Student's t above. Right if the differences are
  symmetric; too narrow under skew (exponential differences at 8 prompts: 90 %).
- t with Hall's correction for skewness (Hall 1992, J. R. Statist. Soc. B 54, p. 221). Right under skew; too
  narrow under heavy tails.

docs/statistics.md shows how often the interval contains the truth.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Values = NDArray[np.floating[Any]]

ALPHA = 0.05
#: Prompts below which nothing is decided: the smallest p of a sign-flip test of 5 prompts is 2/2^5 = .0625.
FEWEST = 6
#: Up to this number all 2^n sign patterns are counted.
MOST_EXACT = 20
_HALVINGS = 60


class Difference(NamedTuple):
    """Mean of a − b over prompts, its 95 % interval (nan below `FEWEST` prompts) and two-sided p."""

    mean: float
    low: float
    high: float
    prompts: int
    p: float = math.nan

    def text(self, decimals: int) -> str:
        if np.isnan(self.low):
            return signed(self.mean, decimals)
        return f"{signed(self.mean, decimals)} [{signed(self.low, decimals)}, {signed(self.high, decimals)}]"

    @property
    def decided(self) -> bool:
        """Whether p is at most .05, for this difference alone; several need `multiple.holm`."""
        return bool(self.prompts >= FEWEST and self.p <= ALPHA)


def signed(value: float, decimals: int) -> str:
    """With its sign, and a minus that is as wide as the plus."""
    return f"{value:+.{decimals}f}".replace("-", "−")


def smallest_p(prompts: int) -> float:
    """The smallest p that any differences on this many prompts can give: 2 / 2^n up to 20 prompts."""
    return min(1.0, 2.0 ** (1 - prompts)) if prompts <= MOST_EXACT else 0.0


def paired_difference(a: Values, b: Values) -> Difference:
    """Difference of values [P] and [P] on the same prompts; prompts missing in either are dropped."""
    difference = np.asarray(a, float) - np.asarray(b, float)
    return of_differences(difference[np.isfinite(difference)])


def of_differences(difference: Values) -> Difference:
    """The same from finite differences [P]."""
    n = len(difference)
    if n == 0:
        return Difference(math.nan, math.nan, math.nan, 0)
    mean = float(difference.mean())
    p = p_value(difference)
    if n < FEWEST:
        return Difference(mean, math.nan, math.nan, n, p)
    first = _sign_flip_interval(difference) if n <= MOST_EXACT else _t_interval(difference)
    second = _hall_interval(difference)
    return Difference(mean, min(first[0], second[0]), max(first[1], second[1]), n, p)


def p_value(difference: Values) -> float:
    """Two-sided p of mean zero, for finite differences [P]: the larger of the two tests; 1 without data."""
    n = len(difference)
    if n == 0 or not difference.any():
        return 1.0
    if n <= MOST_EXACT:
        return max(sign_flip_p(difference), _hall_p(difference) if n >= FEWEST else 0.0)
    return max(_t_p(difference), _hall_p(difference))


def sign_flip_p(difference: Values) -> float:
    """Exact two-sided p: the share of the 2^P sign patterns whose |sum| is at least the observed one."""
    d = np.asarray(difference, float)
    return min(1.0, 2.0 * min(_subsets(d), _subsets(-d)) / 2.0 ** len(d))


def _subsets(d: Values) -> int:
    """Number of subsets of d [P], the empty one included, whose sum is at most zero.

    Flipping the signs of a subset makes the sum larger or equal exactly if the subset's sum is at most zero.
    Sums of the two halves are listed and matched, so 20 prompts cost 2 · 2^10 sums instead of 2^20.
    """
    half = len(d) // 2
    first, second = _sums(d[:half]), np.sort(_sums(d[half:]))
    rounding = 1e-12 * float(np.abs(d).sum())
    return int(np.searchsorted(second, rounding - first, side="right").sum())


def _sums(d: Values) -> Values:
    """Sums of all subsets [2^P]."""
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums, sums + value])
    return sums


def _sign_flip_interval(d: Values) -> tuple[float, float]:
    """All means that the test keeps at .05: from one mean of a subset to another (Hartigan 1969)."""
    return _lowest_kept(d), -_lowest_kept(-d)


def _lowest_kept(d: Values) -> float:
    """The limit below which a mean is rejected as too low."""
    most = math.floor(ALPHA / 2 * 2 ** len(d) + 1e-9)
    low, high = float(d.min()), float(d.max())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _subsets(d - middle) <= most:
            low = middle
        else:
            high = middle
    return high


def _t(d: Values) -> tuple[float, float, int]:
    """Mean, its standard error and the degrees of freedom."""
    return float(d.mean()), float(d.std(ddof=1)) / math.sqrt(len(d)), len(d) - 1


def _is_constant(d: Values) -> bool:
    return float(np.ptp(d)) <= 1e-12 * float(np.abs(d).max())


def _t_p(d: Values) -> float:
    mean, error, freedom = _t(d)
    return 0.0 if _is_constant(d) else float(2.0 * stdtr(freedom, -abs(mean / error)))


def _t_interval(d: Values) -> tuple[float, float]:
    mean, error, freedom = _t(d)
    reach = float(stdtrit(freedom, 1 - ALPHA / 2)) * error
    return mean - reach, mean + reach


def _skewness(d: Values) -> float:
    """Sample skewness, without the bias of small samples in the third moment, over sqrt(n)."""
    n, centred = len(d), d - d.mean()
    third = float((centred**3).sum()) * n / ((n - 1) * (n - 2))
    return third / float(d.std(ddof=1)) ** 3 / math.sqrt(n)


def _hall_p(d: Values) -> float:
    if _is_constant(d):
        return 0.0
    mean, error, freedom = _t(d)
    t, a = mean / error, _skewness(d)
    return float(2.0 * stdtr(freedom, -abs(t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6)))


def _hall_interval(d: Values) -> tuple[float, float]:
    """The means at which the corrected t is at the limits of Student's t."""
    mean, error, freedom = _t(d)
    if _is_constant(d):
        return mean, mean
    a, limit = _skewness(d), float(stdtrit(freedom, 1 - ALPHA / 2))

    def inverse(x: float) -> float:
        return x if abs(a) < 1e-6 else 3 / a * (math.cbrt(1 + a * (x - a / 6)) - 1)

    return mean - inverse(limit) * error, mean - inverse(-limit) * error
