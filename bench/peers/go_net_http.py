"""A Go service, net/http with the client of each broker that its makers recommend: bench/peers/go/."""

from __future__ import annotations

import re
import shutil
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Final

from bench import wrk
from bench.client import Address
from bench.load import Request, rate_request
from bench.peers import peer
from bench.peers.building import Recipe, ask
from core.rates import Rate
from core.settings import Durability
from stack.parts import Part
from stack.topology import Broker

SOURCE: Final = Path(__file__).with_name("go")
RECIPE: Final = Recipe(
    "go",
    "go-peer",
    lambda folder: ["go", "build", "-trimpath", "-buildvcs=false", "-o", str(folder / "go-peer"), "."],
    {"go": "Go 1.26 or newer, from go.dev/dl or your system's packages"},
    "about two minutes, downloads some 10 MB of source",
    sorted(path for path in SOURCE.iterdir() if path.name != "README.md"),
    SOURCE,
    {"GOFLAGS": "-mod=readonly"},
)
_MODULES: Final = {
    "nats.go": "github.com/nats-io/nats.go",
    "franz-go": "github.com/twmb/franz-go",
    "amqp091-go": "github.com/rabbitmq/amqp091-go",
}


class GoNetHttp:
    name = "go"
    title = "Go net/http"
    language = "Go"
    brokers: tuple[Broker, ...] = ("nats", "kafka", "rabbit")
    programs: tuple[str, ...] = ("go", *_MODULES)
    confirmed = HTTPStatus.OK
    script: wrk.Script = "rate"
    recipe: Recipe | None = RECIPE

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
        port = peer.chosen(port)
        arguments = [str(port), broker_url, peer.destination(broker, topic)]
        return peer.part(directory, name, port, [str(RECIPE.find()), *arguments])

    def versions(self) -> dict[str, str]:
        return _versions(RECIPE.path) if RECIPE.is_built and shutil.which("go") else {}

    def request(self, address: Address, rate: Rate) -> Request:
        return rate_request(address, rate)


@cache
def _versions(program: Path) -> dict[str, str]:
    """A program of Go has them in it."""
    told = ask(["go", "version", "-m", program])
    compiler = re.search(r"\bgo(\d\S*)", told)
    found = {name: re.search(rf"\t{re.escape(module)}\tv(\S+)", told) for name, module in _MODULES.items()}
    return {"go": compiler[1] if compiler else "?", **{name: each[1] if each else "?" for name, each in found.items()}}
