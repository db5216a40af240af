"""What takes the load of a run, up and ready: Fanrate's own topology here, other systems in `bench.lab.peer_stage`.

Both are asked the same things, so that the road that measures knows neither.
"""

from __future__ import annotations

import os
import shlex
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from bench import holdings
from bench.bars import Options
from bench.client import Address, Connection
from bench.folding import TOPIC, WARM_MESSAGES, warm_jvm
from bench.lab.document import Holding, Setup
from bench.lab.experiment import SETTINGS
from bench.ledger import Verdict
from bench.load import Request, rate_request, rates_request
from bench.scene import Scene, scene
from core.rates import Rate
from core.settings import topic_names
from stack.member import Member
from stack.topology import Topology

TOPICS: Final = 3
"""With dispatch `topics`."""
QUICK_WARM_MESSAGES: Final = 20_000


class Stage(ABC):
    """A setup that is up. `book` what was sent; `settle` says whether just that was counted."""

    confirmed_status: HTTPStatus = HTTPStatus.OK
    """Of a request whose rates are confirmed."""
    store_url: str | None = None
    """The Redis in which rates become visible, if they do."""

    @property
    @abstractmethod
    def members(self) -> Mapping[str, Sequence[Member]]:
        """The programs of each role."""

    @property
    @abstractmethod
    def addresses(self) -> list[Address]:
        """Where clients go: the balancer, or each replica."""

    @abstractmethod
    def request(self, address: Address, rates: Sequence[Rate]) -> Request:
        """One request with `rates`."""

    @abstractmethod
    async def warm(self, options: Options) -> None:
        """What a server needs beyond load to be at its speed."""

    @abstractmethod
    def book(self, sent: int, confirmed: int) -> None:
        """Rates that left, at most, and those that were confirmed."""

    @abstractmethod
    async def settle(self) -> Verdict:
        """Wait until all that was confirmed is counted; the ledger over everything so far."""

    @abstractmethod
    async def batched(self) -> tuple[float, float] | None:
        """How many rates were confirmed so far, and in how many messages, as the replicas tell."""

    @abstractmethod
    async def holding(self) -> Holding | None:
        """What the broker has of it, if there is one; raises FanrateError."""

    @property
    def roles(self) -> dict[str, list[int]]:
        """The process ids of each role."""
        return {role: [member.pid for member in each if member.running] for role, each in self.members.items()}

    @property
    def commands(self) -> list[str]:
        """What was started."""
        return [shlex.join(member.part.argv) for each in self.members.values() for member in each]

    @property
    def service_settings(self) -> dict[str, str]:
        """What the replicas were given beyond addresses and defaults."""
        return {}

    @property
    def dead(self) -> list[str]:
        """Those that died, whether they are back or not."""
        every = [member for each in self.members.values() for member in each]
        return [member.name for member in every if member.starts > 1 or not member.running]

    def freeze_consumers(self) -> None:
        for process in self.members.get("process", ()):
            process.freeze()

    def thaw_consumers(self) -> None:
        for process in self.members.get("process", ()):
            process.thaw()


@dataclass
class FanrateStage(Stage):
    """Fanrate's replicas and processes."""

    scene: Scene

    def __post_init__(self) -> None:
        self.store_url = self.scene.running.redis.url

    @property
    def members(self) -> Mapping[str, Sequence[Member]]:
        return self.scene.members

    @property
    def addresses(self) -> list[Address]:
        return [Address.of(url) for url in self.scene.running.urls]

    @property
    def service_settings(self) -> dict[str, str]:
        """Those of the shell count too: the services see them."""
        shell = {name: os.environ[name] for name in SETTINGS if os.environ.get(name)}
        return {**shell, **self.scene.topology.api_settings}

    def request(self, address: Address, rates: Sequence[Rate]) -> Request:
        return rate_request(address, rates[0]) if len(rates) == 1 else rates_request(address, rates)

    async def warm(self, options: Options) -> None:
        topology = self.scene.topology
        if topology.server is not None and topology.broker == "kafka":
            messages = QUICK_WARM_MESSAGES if options.quick else WARM_MESSAGES
            await warm_jvm(self.scene, messages, topic=self._topics[0])

    def book(self, sent: int, confirmed: int) -> None:
        self.scene.book(sent=sent, confirmed=confirmed)

    async def settle(self) -> Verdict:
        return await self.scene.settle()

    async def batched(self) -> tuple[float, float] | None:
        if self.scene.running.broker is None:
            return None
        told = [await _batched(Address.of(api.url)) for api in self.scene.running.apis]
        return sum(rates for rates, _ in told), sum(messages for _, messages in told)

    async def holding(self) -> Holding | None:
        broker, kind = self.scene.running.broker, self.scene.topology.broker
        if broker is None or not holdings.stores(kind):
            return None
        data = self.scene.running.stack.directory / "data" / broker.name
        return summed([await holdings.read(kind, broker.url, topic, data) for topic in self._topics])

    @property
    def _topics(self) -> list[str]:
        topology = self.scene.topology
        return topic_names(TOPIC, topology.dispatch, topology.topics)


@asynccontextmanager
async def fanrate_stage(setup: Setup, options: Options, directory: Path) -> AsyncIterator[FanrateStage]:
    """`setup` of Fanrate, up, with its files in `directory`; raises SettingsError, MissingProgram, PortTaken or
    PartFailed."""
    settings = dict(pair.split("=", 1) for pair in setup.settings.split())
    topology = Topology(
        broker=setup.broker,
        durability=setup.durability,
        replicas=setup.replicas,
        processes=setup.processes,
        dispatch=setup.dispatch,
        topics=TOPICS,
        balancer=None if setup.balancer == "none" else setup.balancer,
        api_env=settings,
        process_env=settings,
    )
    async with scene(options, topology, directory) as stage:
        yield FanrateStage(stage)


def summed(told: Sequence[holdings.Holding]) -> Holding:
    """Over all topics."""
    depths = [each.depth for each in told if each.depth is not None]
    return Holding(
        messages=sum(each.messages for each in told),
        stored_bytes=sum(each.bytes for each in told),
        depth=sum(depths) if depths else None,
    )


async def _batched(address: Address) -> tuple[float, float]:
    connection = Connection(address, timeout_s=10.0)
    try:
        answer = await connection.get("/metrics")
    finally:
        connection.close()
    values: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            values[sample.name] += sample.value
    return values["fanrate_batch_rates_sum"], values["fanrate_batch_rates_count"]
