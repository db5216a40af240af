"""What a peer is: another way to take one rate over HTTP and to answer once the broker has confirmed it.

A peer is one process that listens on one port and publishes one message of its own per request, with that rate as JSON,
to a topic that exists already: `Broker.ensure` of our own adapter made it, with its groups. So the same broker stores
the same number of messages equally firmly, whoever sends them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol

from bench import wrk
from bench.client import Address
from bench.load import Request
from bench.peers.building import NotBuilt as NotBuilt
from bench.peers.building import Recipe
from brokers.redis_streams import keys
from core.errors import SettingsError
from core.rates import Rate
from core.settings import Durability
from stack.parts import Part, Tier
from stack.ports import HOST, free_port
from stack.probes import LISTENS
from stack.topology import Broker

STOP_S: Final = 10.0
DURABILITIES: Final[tuple[Durability, ...]] = ("confirmed", "fsync")
"""What a sender does for `fsync` is what it does for `confirmed`; the rest is the server's. None is told how to be less
sure: what is compared is the price of being sure."""


class Peer(Protocol):
    """Data, but for the methods. `name` is one word for commands and files, `title` is for people; `brokers` are those
    that it publishes to; `programs` are the names of `versions`."""

    name: str
    title: str
    language: str
    brokers: tuple[Broker, ...]
    programs: tuple[str, ...]
    confirmed: HTTPStatus
    """The status that says that the broker has it."""
    script: wrk.Script
    """What wrk sends."""
    recipe: Recipe | None
    """How it is built, where it is built of source."""

    def check(self) -> None:
        """Raises MissingProgram or NotBuilt, which say what is missing and how to get it."""

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
        """Ready when it listens, which it does once it is connected. Raises what `check` does, and SettingsError for a
        broker or a durability that it has none for."""

    def versions(self) -> dict[str, str]:
        """Of each of `programs`; empty where it is not there."""

    def request(self, address: Address, rate: Rate) -> Request:
        """One rate, as this peer takes it."""


def check_asked(title: str, brokers: Sequence[Broker], broker: Broker, durability: Durability) -> None:
    """Raises SettingsError."""
    if broker not in brokers:
        raise SettingsError(f"{title} does not publish to {broker}, only to {', '.join(brokers)}")
    if durability not in DURABILITIES:
        raise SettingsError(f"{title} is only run with DURABILITY={' or '.join(DURABILITIES)}, not {durability}")


def broker_of(url: str) -> Broker:
    """Raises SettingsError."""
    scheme = url.partition("://")[0]
    if scheme not in _BROKERS:
        raise SettingsError(f"no peer publishes to {scheme}://")
    return _BROKERS[scheme]


def destination(broker: Broker, topic: str) -> str:
    """What the server calls `topic`: the stream's only subject, the topic, the fanout exchange or the stream's key."""
    return keys(topic)[0] if broker == "redis" else topic


def part(
    directory: Path,
    name: str,
    port: int,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    files: Mapping[Path, str] | None = None,
) -> Part:
    """A peer's program as a part of a stack, in the place of API replicas."""
    log = directory.absolute() / "logs" / f"{name}.log"
    folders = list(dict.fromkeys(path.parent for path in files or {}))
    return Part(
        name,
        Tier.API,
        argv,
        port,
        f"http://{HOST}:{port}",
        log,
        LISTENS,
        env=env or {},
        folders=folders,
        files=files or {},
        stop_s=STOP_S,
    )


def chosen(port: int | None) -> int:
    return free_port() if port is None else port


_BROKERS: Final[dict[str, Broker]] = {"nats": "nats", "kafka": "kafka", "amqp": "rabbit", "redis": "redis"}
