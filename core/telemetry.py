"""Metrics: plain numbers, added to once per batch and read by a collector when someone asks.

docs/http.md lists the names. Nothing here costs a request anything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from operator import add
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COUNTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


Source = Callable[[], Iterable[Metric]]
"""Reads the metrics of one component as they are now."""


class Histogram:
    """How often values fell below each bound; `bounds` ascend."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @classmethod
    def sum_of(cls, histograms: Sequence[Histogram]) -> Histogram:
        """All values of `histograms`, which have the same bounds, in one."""
        total = cls(histograms[0].bounds)
        for each in histograms:
            total.counts = list(map(add, total.counts, each.counts))
            total.sum += each.sum
        return total

    def family(self, name: str, text: str) -> Metric:
        names = [*map(str, self.bounds), "+Inf"]
        buckets = list(zip(names, accumulate(map(float, self.counts)), strict=True))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self.sum)


def counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


class _Readings(Collector):
    def __init__(self, read: Source) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        yield from self._read()


class Exposition:
    """The text that /metrics answers: what `sources` yield, and the process itself."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, *sources: Source) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        for source in sources:
            self._registry.register(_Readings(source))

    def text(self) -> bytes:
        return generate_latest(self._registry)
