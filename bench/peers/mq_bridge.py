"""mq-bridge-app, a bridge in Rust: what comes in by HTTP goes to a broker, and 202 says that the broker has it.

It publishes the body that it gets, so a rate is sent to it as the JSON that the others make of a query. How many
messages it hands to a broker's client at a time, and how many such batches, is its user's to choose: both ends of that
are run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bench import wrk
from bench.client import Address, request_bytes
from bench.load import Request
from bench.peers import peer
from bench.peers.building import Recipe, ask
from core.rates import Rate
from core.settings import Durability
from stack.parts import Part
from stack.ports import HOST
from stack.topology import Broker

VERSION: Final = "1.3.0"
FEATURES: Final = "http,nats,kafka,amqp,redis-streams"
RECIPE: Final = Recipe(
    "mq-bridge",
    "bin/mq-bridge-app",
    lambda folder: [
        *("cargo", "install", "--locked", "--root", str(folder), "--version", VERSION),
        *("--no-default-features", "--features", FEATURES, "mq-bridge-app"),
    ],
    {
        "cargo": "Rust 1.94 or newer, from rustup.rs",
        "cmake": "apt-get install cmake",
        "protoc": "apt-get install protobuf-compiler",
        "c++": "apt-get install g++",
    },
    "about ten minutes on idle cores, twenty on busy ones",
)
MOST_AT_A_TIME: Final = 1024
"""Requests that are read at a time, where its own default is 100."""


class MqBridge:
    language = "Rust"
    brokers: tuple[Broker, ...] = ("nats", "kafka", "rabbit", "redis")
    programs: tuple[str, ...] = ("mq-bridge-app",)
    confirmed = HTTPStatus.ACCEPTED
    script: wrk.Script = "message"
    recipe: Recipe | None = RECIPE

    def __init__(self, batch_size: int, concurrency: int) -> None:
        self.name = f"mq-bridge-{batch_size}x{concurrency}"
        self.title = f"mq-bridge, batches of {batch_size}, {concurrency} at a time"
        self._route = {"batch_size": batch_size, "concurrency": concurrency}

    def check(self) -> None:
        RECIPE.find()

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
        broker = peer.broker_of(broker_url)
        peer.check_asked(self.title, self.brokers, broker, durability)
        program, port = RECIPE.find(), peer.chosen(port)
        data = directory.absolute() / "data" / name
        configuration = data / "mq-bridge.json"
        return peer.part(
            directory,
            name,
            port,
            [str(program), "--config", str(configuration), "--no-ui", "--no-metrics", "--color", "never"],
            env={"HOME": str(data), "XDG_RUNTIME_DIR": str(data)},
            files={configuration: json.dumps(self._configuration(port, broker, broker_url, topic), indent=2)},
        )

    def versions(self) -> dict[str, str]:
        return _versions(RECIPE.path) if RECIPE.is_built else {}

    def request(self, address: Address, rate: Rate) -> Request:
        body = json.dumps({"rate": rate[1], "subject": rate[0]}, separators=(",", ":")).encode()
        return Request((rate,), request_bytes(address, "POST", "/", body=body, content_type="application/json"))

    def _configuration(self, port: int, broker: Broker, url: str, topic: str) -> Mapping[str, Any]:
        source = {"http": {"url": f"{HOST}:{port}", "concurrency_limit": MOST_AT_A_TIME}}
        sink = _SINKS[broker](url, peer.destination(broker, topic))
        return {"log_level": "warn", "routes": {"rates": {**self._route, "input": source, "output": sink}}}


def _to_nats(url: str, subject: str) -> dict[str, Any]:
    return {"nats": {"url": url, "subject": subject, "stream": subject}}


def _to_kafka(url: str, topic: str) -> dict[str, Any]:
    """acks=all and idempotence are its defaults. The topic keeps messages unpacked, so packed ones would only cost the
    server; its linger of 1 ms helps only who does not wait."""
    options = [["compression.type", "none"], ["linger.ms", "0"]]
    return {"kafka": {"url": urlsplit(url).netloc, "topic": topic, "create_topic": False, "producer_options": options}}


def _to_rabbit(url: str, exchange: str) -> dict[str, Any]:
    """What it calls the queue is the routing key, which a fanout exchange does not look at; messages are persistent,
    confirmed and mandatory by default. A last slash would name a virtual host without a name."""
    return {"amqp": {"url": url.rstrip("/"), "exchange": exchange, "queue": exchange, "no_declare_queue": True}}


def _to_redis(url: str, stream: str) -> dict[str, Any]:
    return {"redis_streams": {"url": url, "stream": stream}}


_SINKS: Final[dict[Broker, Callable[[str, str], dict[str, Any]]]] = {
    "nats": _to_nats,
    "kafka": _to_kafka,
    "rabbit": _to_rabbit,
    "redis": _to_redis,
}


@cache
def _versions(program: Path) -> dict[str, str]:
    return {"mq-bridge-app": ask([program, "--version"]).split()[-1]}
