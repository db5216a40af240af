"""The kinds of brokers that the project brings, as the suite wants them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from brokers.base import Broker
from brokers.conformance.harness import Kind, Server
from brokers.memory import MemoryBroker
from brokers.nats import NatsBroker
from stack import parts
from stack.parts import Part
from tests.conformance.server import StackServer
from tests.servers import needs


def _memory(url: str, *, name: str, redeliver_after_s: float, max_topic_bytes: int) -> Broker:
    return MemoryBroker(redeliver_after_s=redeliver_after_s, max_bytes=max_topic_bytes)


def _server(make_part: Callable[[Path], Part], *programs: str) -> Callable[[bool], Server]:
    def make(killable: bool) -> Server:
        needs(*programs)
        return StackServer(make_part)

    return make


MEMORY = Kind("memory", _memory)
NATS = Kind("nats", NatsBroker, _server(parts.nats, "nats-server"))

KINDS = [MEMORY, NATS]
