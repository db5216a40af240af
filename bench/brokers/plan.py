"""In which order what is measured: rounds over the contestants, one topology up at a time, no round in the order of the
one before, so that none always has the same neighbour or the same hour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.bars import Options
from bench.brokers.contestants import Contestant
from bench.brokers.measures import Measure
from stack.topology import Topology

_UP_AND_DOWN_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class Stop:
    """One topology brought up for some measures; `turn` counts from 1."""

    contestant: Contestant
    measures: Sequence[Measure]
    turn: int

    @property
    def topology(self) -> Topology:
        first = self.measures[0]
        return Topology(
            broker=self.contestant.broker,
            durability=self.contestant.durability,
            replicas=first.replicas,
            balancer=first.balancer,
        )

    def lasts_s(self, options: Options) -> float:
        return _UP_AND_DOWN_S + sum(measure.lasts_s(options) for measure in self.measures)

    def __str__(self) -> str:
        return f"turn {self.turn}, {self.contestant.name}"


def stops(measures: Sequence[Measure], contestants: Sequence[Contestant], repeat: int) -> list[Stop]:
    """`repeat` rounds of what is repeated, then what is taken once. Measures of one topology share a stop."""
    repeated = [measure for measure in measures if not measure.once]
    once = [measure for measure in measures if measure.once]
    rounds = range(1, repeat + 1)
    found = [stop for turn in rounds for one in order(contestants, turn) for stop in _of(one, repeated, turn)]
    return found + [stop for one in contestants for stop in _of(one, once, 1)]


def order(contestants: Sequence[Contestant], turn: int) -> list[Contestant]:
    """The order of one round: moved on by one each turn, and backwards in every other."""
    first = (turn - 1) % max(1, len(contestants))
    moved = [*contestants[first:], *contestants[:first]]
    return moved if turn % 2 else moved[::-1]


def _of(contestant: Contestant, measures: Sequence[Measure], turn: int) -> Iterator[Stop]:
    """The stops of one contestant in one round."""
    wanted = [measure for measure in measures if contestant in measure.contestants]
    for shape in dict.fromkeys((measure.replicas, measure.balancer) for measure in wanted):
        yield Stop(contestant, [each for each in wanted if (each.replicas, each.balancer) == shape], turn)
