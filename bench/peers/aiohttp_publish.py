"""aiohttp with one publish per request: Fanrate's own web framework and libraries, without what Fanrate adds."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from bench import machine, wrk
from bench.client import Address
from bench.load import Request, rate_request
from bench.peers import peer
from bench.peers.building import Recipe
from core.commands import child
from core.rates import Rate
from core.settings import Durability
from stack.parts import Part
from stack.topology import Broker


class AiohttpPublish:
    name = "aiohttp-publish"
    title = "aiohttp, a publish per request"
    language = "Python"
    brokers: tuple[Broker, ...] = ("nats", "kafka", "rabbit")
    programs: tuple[str, ...] = ("python", "aiohttp", "uvloop", "nats-py", "aiokafka", "aio-pika")
    confirmed = HTTPStatus.OK
    script: wrk.Script = "rate"
    recipe: Recipe | None = None

    def check(self) -> None:
        """All of it is what the lab itself needs."""

    def part(
        self,
        directory: Path,
        *,
        broker_url: str,
        topic: str,
        durability: Durability,
        name: str,
        port: int | None = None,
    ) -> Part:
        peer.check_asked(self.title, self.brokers, peer.broker_of(broker_url), durability)
        port = peer.chosen(port)
        argv = [*child("bench.publish_per_request"), str(port), broker_url, durability, topic]
        return peer.part(directory, name, port, argv)

    def versions(self) -> dict[str, str]:
        known = machine.versions()
        return {name: known[name] for name in self.programs if name in known}

    def request(self, address: Address, rate: Rate) -> Request:
        return rate_request(address, rate)
