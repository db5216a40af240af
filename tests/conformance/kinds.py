"""The kinds of brokers that the project brings, as the suite wants them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from brokers.base import Broker
from brokers.conformance.harness import Kind, Server
from brokers.kafka import KafkaBroker
from brokers.memory import MemoryBroker
from brokers.nats import NatsBroker
from brokers.nats_core import NatsCoreBroker
from brokers.rabbit import RabbitBroker
from brokers.redis_streams import RedisBroker
from core.endpoints import Endpoint
from stack import parts
from stack.kafka import kafka
from stack.parts import Part
from stack.rabbit import rabbit
from tests.conformance.server import StackServer
from tests.servers import needs


def _memory(endpoint: Endpoint, *, name: str, redeliver_after_s: float, max_topic_bytes: int) -> Broker:
    return MemoryBroker(redeliver_after_s=redeliver_after_s, max_bytes=max_topic_bytes)


def _nats_core(endpoint: Endpoint, *, name: str, redeliver_after_s: float, max_topic_bytes: int) -> Broker:
    return NatsCoreBroker(endpoint, name=name, durability="relaxed")


def _nats_core_part(directory: Path) -> Part:
    part = parts.nats(directory)
    return replace(part, url=part.url.replace("nats://", "nats+core://"))


def _server(make_part: Callable[[Path], Part], *programs: str) -> Callable[[bool], Server]:
    def make(killable: bool) -> Server:
        needs(*programs)
        return StackServer(make_part)

    return make


MEMORY = Kind("memory", _memory)
NATS = Kind("nats", NatsBroker, _server(parts.nats, "nats-server"))
NATS_CORE = Kind("nats+core", _nats_core, _server(_nats_core_part, "nats-server"))
REDIS = Kind("redis", RedisBroker, _server(parts.redis_streams, "redis-server"))
RABBIT = Kind("rabbit", RabbitBroker, _server(rabbit, "rabbitmq-server"))
KAFKA = Kind("kafka", KafkaBroker, _server(kafka, "java", "kafka"))

KINDS = [MEMORY, NATS, NATS_CORE, REDIS, RABBIT, KAFKA]
