"""The brokers that are compared, each with its durability and with the versions of its server and client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from core.settings import Durability
from stack.topology import Broker


@dataclass(frozen=True, slots=True)
class Contestant:
    """`programs` are the server, the client and, where it is another one, the client that publishes for each request:
    the names under which `bench.machine` knows their versions."""

    name: str
    broker: Broker
    durability: Durability
    programs: tuple[str, ...]

    def versions(self, known: Mapping[str, str]) -> str:
        return ", ".join(f"{name} {known.get(name, '?')}" for name in self.programs)


_RABBIT: Final = ("rabbitmq-server", "pamqp", "aio-pika")

NATS: Final = Contestant("nats", "nats", "confirmed", ("nats-server", "nats-py"))
KAFKA: Final = Contestant("kafka", "kafka", "confirmed", ("kafka", "aiokafka"))
RABBIT_QUORUM: Final = Contestant("rabbit quorum", "rabbit", "confirmed", _RABBIT)
RABBIT_CLASSIC: Final = Contestant("rabbit classic", "rabbit", "relaxed", _RABBIT)
REDIS: Final = Contestant("redis", "redis", "confirmed", ("redis-server", "hiredis"))

CONTESTANTS: Final = (NATS, KAFKA, RABBIT_QUORUM, RABBIT_CLASSIC, REDIS)
BROKERS: Final = tuple(dict.fromkeys(contestant.broker for contestant in CONTESTANTS))
