"""What is asked of each broker, as data, and what one turn of a measure gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from bench.bars import Bar, Options
from bench.brokers.contestants import Contestant
from bench.scene import Load, Scene
from stack.configuration import Balancer

Name = Literal["post", "group", "fold", "p99", "tls", "balancer", "memory", "hot", "heads", "read", "idle"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One kind of figure: a block of the table with a row for each contestant in `limits`."""

    key: str
    text: str
    unit: str
    at_most: bool
    limits: Mapping[Contestant, float]


@dataclass(frozen=True, slots=True)
class Taken:
    """What one turn gave for `key`. `value` is None where the turn is void; `cpu_us` is what each role's CPU spent on
    a rate; `sample` goes into the run's file."""

    key: str
    value: float | None
    cpu_us: Mapping[str, float] = field(default_factory=dict)
    sample: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Visit:
    """A contestant on its stage. `posted` is the load at full speed on the API, once there was one."""

    contestant: Contestant
    stage: Scene
    posted: Load | None = None

    @property
    def options(self) -> Options:
        return self.stage.options


@dataclass(frozen=True, slots=True)
class Measure:
    """`lasts_s` is about how long one turn takes, to tell the time that is left. A measure that is taken `once` asks
    for an end state. What misses its bar is profiled in the service named by `profile`."""

    name: Name
    asked: Sequence[Asked]
    take: Callable[[Visit], Awaitable[list[Taken]]]
    lasts_s: Callable[[Options], float]
    replicas: int = 1
    balancer: Balancer | None = None
    once: bool = False
    profile: Literal["api", "process"] = "api"

    @property
    def contestants(self) -> list[Contestant]:
        """All that it is asked of, each once."""
        return list(dict.fromkeys(contestant for asked in self.asked for contestant in asked.limits))


@dataclass(frozen=True, slots=True)
class Row:
    """All turns of one contestant for one kind of figure."""

    asked: Asked
    contestant: Contestant
    taken: Sequence[Taken]

    @property
    def values(self) -> list[float]:
        """Of the turns that are not void."""
        return [taken.value for taken in self.taken if taken.value is not None]

    @property
    def bar(self) -> Bar:
        """The median of all turns against the limit."""
        value = median(self.values) if self.values else None
        asked = self.asked
        return Bar(self.contestant.name, asked.unit, asked.limits[self.contestant], asked.at_most, value)

    @property
    def cpu_us(self) -> dict[str, float]:
        """The median of each role."""
        told = [taken.cpu_us for taken in self.taken if taken.cpu_us]
        roles = dict.fromkeys(role for each in told for role in each)
        return {role: median(each[role] for each in told if role in each) for role in roles}
