"""One process: a membership of a group, and its health on an address of its own."""

from __future__ import annotations

import asyncio

from core.health import Checks, health_routes, store_check
from core.http import HttpService, Routes
from core.settings import Keeping
from core.store import Store
from core.telemetry import Exposition
from process.membership import Membership


def oldest_allowed_s(keeping: Keeping) -> float:
    """Half of what is still remembered when a message is read this late."""
    return min(keeping.horizon_s, keeping.idempotency_s) / 2


class ProcessService:
    """A lifecycle service over one membership of a group. `store` is what it needs to do its work, if it needs one."""

    def __init__(self, membership: Membership, *, host: str, health_port: int, store: Store | None = None) -> None:
        self._membership = membership
        self._store = store
        routes = health_routes(membership.alive, self._ready, Exposition(membership.metrics))
        self._http = HttpService(host, health_port, Routes(exact=routes, under={}), port_setting="HEALTH_PORT")

    @property
    def url(self) -> str:
        return self._http.url

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        return self._membership.failed

    async def start(self) -> None:
        await self._http.start()
        await self._membership.start()

    async def drain(self, timeout_s: float) -> None:
        await self._membership.drain(timeout_s)

    async def close(self) -> None:
        await self._membership.close()
        await self._http.close()

    async def _ready(self) -> Checks:
        consumer = {"consumer": self._membership.check()}
        return {**consumer, "store": await store_check(self._store, vital=True)} if self._store else consumer
