"""Noise: how far apart two rows, or one row in two sittings, must be before they are called different.

Pure. A row has few turns, three to five, so its own spread says little; a sitting has many rows, so together they say
much. All is done on logarithms, where noise is a share of the figure and a change in per cent is a difference.

*A row's estimate* is the mean of its turns, in which a turn beyond 1.3 times the noise pulls no more than one at that
distance (Huber's). Of three turns a median would throw away a third of what they tell.

*A row's noise* is its own variance, moved towards that of all rows as much as rows are alike (Smyth 2004, Linear models
and empirical Bayes methods, as in limma): where all are about equally noisy a row counts as one of them, where rows
differ a noisier one keeps more of its own. Student's t for the degrees of freedom that come of it gives the
threshold that an equal pair passes once in a hundred. Of fewer than six rows it cannot be told how alike they are;
all their turns make one variance then.

*Two sittings* differ as a whole if the build changed, so what all rows did together is looked at as well: when the
median of their differences is beyond its noise, a row that follows it counts as changed, although its own turns alone
would not show it. A change of less than LEAST is never called one: a machine is not the same twice.

What it takes to see 10 % in 9 rows of 10: of rows that changed alone, with three turns each, a noise of at most 2.7 %
(the standard deviation of one turn), with five 3.6 %; of 16 rows that changed together, with three turns, 4 %, also
when one turn in ten was disturbed by another 10 %. The tests show it. That holds of figures as they were taken; what a
correction may be wrong by (`Error`) comes on top.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev, variance
from typing import Final, Literal, TypeVar

from bench.lab.student import digamma, quantile, trigamma, trigamma_inverse

FALSE_CALLS: Final = 0.01
"""Of pairs that are equal, how many may be called different."""
FALSE_MOVES: Final = 0.001
"""Of pairs of sittings that are equal, in how many all rows may be taken to have moved together."""
LEAST: Final = 0.03
"""As a difference of logarithms, about per cent."""
_PULL: Final = 1.345
_EFFICIENCY: Final = 1.06
"""The variance of the estimate against that of a plain mean; 0.95 of its efficiency remain by that pull."""
_ROUNDS: Final = 30
_ENDLESS: Final = math.log(1e6)
"""No larger noise is told."""
_MANY: Final = 6
"""From so many rows on how much they differ in noise can be told. Of four rows with two turns each it would be told so
badly that two equal rows in a hundred are called different."""
_SURE: Final = 1000.0
"""Degrees of freedom beyond which more make no difference."""

Call = Literal["lower", "equal", "higher", "unknown"]
"""`unknown`: no row has two turns, so that nothing is known about noise."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Noise:
    """What the turns of many rows say about noise. `variance` is that of one turn's logarithm; `freedom` is how many
    turns of its own a row would need to weigh as much as this; None where no row has two turns."""

    variance: float
    freedom: float
    whole: bool = False
    """Whether it stands for each row as it is: of so few rows that how much they differ in noise is not known, a row's
    own turns are in it already and must not count twice."""

    @property
    def share(self) -> float:
        """The standard deviation of one turn, as a share of the figure."""
        return math.expm1(math.sqrt(self.variance))


@dataclass(frozen=True, slots=True)
class Error:
    """What B's figures may be wrong by against A's, beyond what turns of a row show of it: variances of logarithms.
    `shared` is the same error in all rows, `own` one of each row; `freedom` is how well they are known."""

    shared: float = 0.0
    own: float = 0.0
    freedom: float = 1.0

    def of_row(self, false_calls: float) -> float:
        return quantile(self.freedom, false_calls) * math.sqrt(self.shared + self.own)

    def of_all(self, false_calls: float) -> float:
        return quantile(self.freedom, false_calls) * math.sqrt(self.shared)


NO_ERROR: Final = Error()


@dataclass(frozen=True, slots=True)
class Difference:
    """B against A. `change` and `noise` are shares: 0.1 is 10 % more, and a change up to `noise` is none."""

    change: float
    noise: float
    call: Call


@dataclass(frozen=True, slots=True)
class Estimate:
    """A row's figure, as a logarithm, with what its turns say about noise."""

    centre: float
    turns: int
    squares: float
    """The sum of squared differences from the mean of its turns."""


def pool(rows: Sequence[Sequence[float]]) -> Noise | None:
    """The noise that all rows have in common; `rows` are turns, each a positive figure. None without two turns of any
    row."""
    return _pooled([(variance(logs), len(logs) - 1) for logs in map(_logs, rows) if len(logs) > 1])


def pool_pairs(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Noise | None:
    """The same of rows in two sittings, each around its own mean."""
    spreads = []
    for pair in pairs:
        squares, freedom = squares_within(map(_logs, pair))
        if freedom:
            spreads.append((squares / freedom, freedom))
    return _pooled(spreads)


def squares_within(rows: Iterable[Sequence[float]]) -> tuple[float, int]:
    """The sum of squares of turns around the mean of their row, and its degrees of freedom."""
    squares, freedom = 0.0, 0
    for turns in rows:
        middle = fmean(turns)
        squares += sum((each - middle) ** 2 for each in turns)
        freedom += len(turns) - 1
    return squares, freedom


def typical(turns: Sequence[float], noise: Noise | None) -> float:
    """The estimate of a row's figure; raises ValueError without turns."""
    return math.exp(_centre(_logs(turns), noise))


def difference(
    a: Sequence[float],
    b: Sequence[float],
    noise: Noise | None,
    *,
    least: float = 0.0,
    false_calls: float = FALSE_CALLS,
    error: Error = NO_ERROR,
) -> Difference:
    """Two rows, each with at least one turn; less than `least` (a difference of logarithms) counts for nothing. Of
    pairs that are equal a share of `false_calls` is called different."""
    change = _centre(_logs(b), noise) - _centre(_logs(a), noise)
    if noise is None:
        return Difference(math.expm1(change), math.inf, "unknown")
    threshold = max(least, math.hypot(_threshold((a, b), noise, false_calls), error.of_row(false_calls)))
    return Difference(math.expm1(change), math.expm1(min(threshold, _ENDLESS)), _call(change, threshold))


def differences(
    pairs: Mapping[Key, tuple[Sequence[float], Sequence[float]]], *, least: float = LEAST, error: Error = NO_ERROR
) -> tuple[dict[Key, Difference], Difference | None]:
    """The rows of two sittings, and what all of them did together; None for the latter where that is not known, as of
    fewer than three rows."""
    noise = pool_pairs(list(pairs.values()))
    alone = {key: difference(a, b, noise, least=least, error=error) for key, (a, b) in pairs.items()}
    together = _together(list(alone.values()), least, error)
    if together is None or together.call == "equal":
        return alone, together
    return {key: _followed(one, together, least) for key, one in alone.items()}, together


def _together(alone: Sequence[Difference], least: float, error: Error) -> Difference | None:
    """The median over rows: a few that changed for themselves do not move it. Its noise is that of a median of means,
    from how much the rows' changes differ, and what they share."""
    if len(alone) < 3 or any(one.call == "unknown" for one in alone):
        return None
    changes = [math.log1p(one.change) for one in alone]
    spread = math.sqrt(math.pi / 2) * stdev(changes) / math.sqrt(len(changes))
    moved = quantile(len(changes) - 1, FALSE_MOVES) * spread
    threshold = max(least, math.hypot(moved, error.of_all(FALSE_CALLS)))
    middle = median(changes)
    return Difference(math.expm1(middle), math.expm1(threshold), _call(middle, threshold))


def _followed(one: Difference, together: Difference, least: float) -> Difference:
    """A row that by itself is equal, but moved as all did."""
    if one.call != "equal" or _call(math.log1p(one.change), least) != together.call:
        return one
    return Difference(one.change, together.noise, together.call)


def _call(change: float, threshold: float) -> Call:
    if abs(change) <= threshold:
        return "equal"
    return "higher" if change > 0 else "lower"


def _threshold(rows: Sequence[Sequence[float]], noise: Noise, false_calls: float) -> float:
    squares, freedom = (0.0, 0) if noise.whole else squares_within(map(_logs, rows))
    variance = (noise.freedom * noise.variance + squares) / (noise.freedom + freedom)
    spread = math.sqrt(_EFFICIENCY * variance * sum(1 / len(turns) for turns in rows))
    return quantile(noise.freedom + freedom, false_calls) * spread


def _logs(turns: Sequence[float]) -> list[float]:
    return [math.log(turn) for turn in turns]


def _centre(logs: Sequence[float], noise: Noise | None) -> float:
    middle = median(logs)
    if noise is None or noise.variance == 0:
        return middle
    reach = _PULL * math.sqrt(noise.variance)
    for _ in range(_ROUNDS):
        weights = [1.0 if abs(each - middle) <= reach else reach / abs(each - middle) for each in logs]
        middle = sum(weight * each for weight, each in zip(weights, logs, strict=True)) / sum(weights)
    return middle


def _pooled(spreads: Sequence[tuple[float, int]]) -> Noise | None:
    """Rows' variances, each with its degrees of freedom, as a scaled F distribution: Smyth's section 6.2. The logarithm
    of a variance of none at all is taken as that of a thousandth of the mean."""
    if not spreads:
        return None
    mean = sum(each * freedom for each, freedom in spreads) / sum(freedom for _, freedom in spreads)
    if mean == 0:
        return Noise(0.0, _SURE)
    if len(spreads) < _MANY:
        return Noise(mean, float(sum(freedom for _, freedom in spreads)), whole=True)
    logs = [
        math.log(max(each, mean / 1000)) - digamma(freedom / 2) + math.log(freedom / 2) for each, freedom in spreads
    ]
    excess = variance(logs) - fmean(trigamma(freedom / 2) for _, freedom in spreads)
    if excess <= 0:
        return Noise(mean, float(sum(freedom for _, freedom in spreads)))
    half = trigamma_inverse(excess)
    return Noise(math.exp(fmean(logs) + digamma(half) - math.log(half)), min(_SURE, 2 * half))
