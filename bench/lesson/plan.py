"""The rows of the lesson as data: on which topology each is measured, at whom wrk is pointed, what the lesson found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from stack.topology import Broker, Topology

Section = Literal["one", "three", "request", "handler", "topics", "linger"]
Target = Literal["service", "publish per request", "lingering", "three lingering"]

NAMES: Final[dict[Broker, str]] = {"nats": "NATS", "kafka": "Kafka", "rabbit": "RabbitMQ"}
BROKERS: Final = tuple(NAMES)
CONNECTIONS: Final = 5
WORK_S: Final = 0.002
"""What a handler of 475 messages a second spends on each, if it takes one at a time, is 2.1 ms."""
PLAIN: Final = {"MIN_INTERVAL_S": "0"}
"""The lesson's servers were plain: several on one machine would else wait between publishes."""

_UP_AND_DOWN_S: Final = 6.0
_SETTLING_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Told:
    """What the lesson found."""

    per_s: float
    mean_s: float | None = None


KAFKA: Final = Told(4.91, 1.01)
NATS: Final = Told(3713, 0.00196)
HANDLER: Final = Told(475)
TOPICS: Final = Told(1972)


@dataclass(frozen=True, slots=True)
class Row:
    """One run of wrk. `share` shortens it, where what was taken in takes long to be counted."""

    key: str
    section: Section
    title: str
    broker: Broker | None
    target: Target = "service"
    lesson: Told | None = None
    share: float = 1.0

    def seconds(self, seconds: float) -> float:
        """wrk takes whole seconds, at least one."""
        return max(1.0, round(seconds * self.share))


@dataclass(frozen=True, slots=True)
class Stop:
    """One topology brought up for some rows."""

    topology: Topology
    rows: Sequence[Row]

    @property
    def warm_up_s(self) -> float:
        """A JVM compiles what has run often."""
        return 3.0 if self.topology.dispatch != "inline" and self.topology.broker == "kafka" else 1.0

    def lasts_s(self, seconds: float) -> float:
        rows_s = sum(row.seconds(seconds) + _SETTLING_S for row in self.rows)
        counted_later_s = sum(row.seconds(seconds) * 6 for row in self.rows if row.share < 1)
        return _UP_AND_DOWN_S + self.warm_up_s + rows_s + counted_later_s


def stops(brokers: Sequence[Broker]) -> list[Stop]:
    """All of the lesson on `brokers`, one topology after the other."""
    found = [stop for broker in brokers for stop in _on(broker)]
    return [*found, *_handlers(brokers)]


def _on(broker: Broker) -> Iterator[Stop]:
    name = NAMES[broker]
    told = {"nats": NATS, "kafka": KAFKA}.get(broker)
    one = [
        Row(f"{broker}-one", "one", f"{name}, one server", broker, lesson=told),
        Row(
            f"{broker}-request",
            "request",
            f"{name}, one server, each request publishes by itself",
            broker,
            target="publish per request",
            lesson=told,
        ),
    ]
    three = [
        Row(
            f"{broker}-three",
            "three",
            f"{name}, three servers behind plain round robin",
            broker,
            lesson=told if broker == "kafka" else None,
        )
    ]
    if broker == "kafka":
        title = "Kafka, a linger of one second, {}"
        one.append(Row("kafka-linger", "linger", title.format("one server"), broker, "lingering", KAFKA))
        three.append(
            Row("kafka-linger-three", "linger", title.format("three servers"), broker, "three lingering", KAFKA)
        )
    yield Stop(Topology(broker, api_env=PLAIN), one)
    yield Stop(Topology(broker, replicas=3, balancer="nginx-plain", api_env=PLAIN), three)
    topics = Row(f"{broker}-topics", "topics", f"{name}, one server, three topics", broker, lesson=TOPICS)
    yield Stop(Topology(broker, dispatch="topics", api_env=PLAIN), [topics])


def _handlers(brokers: Sequence[Broker]) -> Iterator[Stop]:
    """Each message handled by itself, and the same work behind the first of the brokers."""
    work = {"WORK_S": str(WORK_S)}
    millis = f"{WORK_S * 1e3:g} ms of work on each"
    title = "a handler per message, no broker"
    plain = Row("inline", "handler", title, None, lesson=HANDLER)
    relaxed = Row("inline-relaxed", "handler", f"{title}, answered before it is counted", None)
    working = Row("inline-work", "handler", f"{title}, {millis}", None, lesson=HANDLER)
    yield Stop(Topology(dispatch="inline", api_env=PLAIN), [plain])
    yield Stop(Topology(dispatch="inline", durability="relaxed", api_env=PLAIN), [relaxed])
    yield Stop(Topology(dispatch="inline", api_env={**PLAIN, **work}), [working])
    for broker in brokers[:1]:
        behind = Row(f"{broker}-work", "handler", f"{NAMES[broker]}, {millis} behind the broker", broker, share=0.2)
        yield Stop(Topology(broker, api_env=PLAIN, process_env=work), [behind])
