"""Durations, as a histogram that keeps three digits of each from a microsecond to a minute."""

from __future__ import annotations

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

LONGEST_S = 60.0
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)
_LONGEST_US = int(LONGEST_S * 1e6)
_DIGITS = 3


class Histogram:
    """What is longer than LONGEST_S counts as that.

    To record is cheap: microseconds are counted in a dictionary, and the library, of which a record costs ten times as
    much, is told of each number once, when the first question comes.
    """

    def __init__(self) -> None:
        self._new: dict[int, int] = {}
        self._library = HdrHistogram(1, _LONGEST_US, _DIGITS)

    def record(self, seconds: float) -> None:
        """Below a microsecond, and below zero, counts as 0."""
        new = self._new
        us = int(seconds * 1e6)
        new[us] = new.get(us, 0) + 1

    def add(self, other: Histogram) -> None:
        """Record all that `other` holds too."""
        self._told().add(other._told())

    @property
    def count(self) -> int:
        return int(self._told().get_total_count())

    @property
    def mean_s(self) -> float:
        return float(self._told().get_mean_value()) / 1e6

    def percentile_s(self, percent: float) -> float:
        """Seconds within which `percent` of all lie; of 100 it is the longest, of an empty histogram 0."""
        return self.percentiles_s(percent)[percent]

    def percentiles_s(self, *percents: float) -> dict[float, float]:
        """The same for several at once; PERCENTILES if none is named. Each question goes over the whole histogram."""
        told = self._told()
        wanted = percents or PERCENTILES
        if not told.get_total_count():
            return dict.fromkeys(wanted, 0.0)
        found = told.get_percentile_to_value_dict(list(wanted))
        return {percent: found[percent] / 1e6 for percent in wanted}

    def told_ms(self) -> dict[str, float]:
        """PERCENTILES as `p50`, `p99.9`, `max`, in milliseconds, for people and their files."""
        found = self.percentiles_s()
        return {"max" if at == 100 else f"p{at:g}": round(found[at] * 1000, 3) for at in PERCENTILES}

    def share_above(self, seconds: float) -> float:
        """The share, 0 to 1, of those that took longer, to three digits of `seconds`."""
        told = self._told()
        total = told.get_total_count()
        limit = told.get_highest_equivalent_value(int(seconds * 1e6))
        above = sum(item.count_added_in_this_iter_step for item in told if item.value_iterated_to > limit)
        return above / total if total else 0.0

    def encode(self) -> str:
        """For files: HdrHistogram's own compressed form in base64, microseconds, which its tools read."""
        return bytes(self._told().encode()).decode("ascii")

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """The inverse of `encode`."""
        made = cls()
        made._library.decode_and_add(text.encode("ascii"))
        return made

    def _told(self) -> HdrHistogram:
        library, new = self._library, self._new
        for us, count in new.items():
            library.record_value(min(max(us, 0), _LONGEST_US), count)
        new.clear()
        return library
