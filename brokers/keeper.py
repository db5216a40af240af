"""Keeps an adapter connected: makes one connection after the other, for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

import structlog

from core.errors import BrokerUnavailable

log = structlog.get_logger()

RETRY_S: Final = 0.25
"""Between two tries to connect."""


class Link(Protocol):
    """One connection, from its making to its loss."""

    @property
    def up(self) -> bool: ...

    def fail(self, reason: str) -> None:
        """End everything that waits for it."""

    async def until_lost(self) -> str:
        """Return when it is lost, with the reason, if it is known."""

    async def close(self) -> None: ...


_L = TypeVar("_L", bound=Link)


class Keeper(Generic[_L]):
    """`connect` makes a connection, or raises and leaves nothing behind; `use` is called with each before anybody else
    sees it. `kind` and `address` are for people."""

    def __init__(
        self, kind: str, address: str, connect: Callable[[], Awaitable[_L]], use: Callable[[_L], None] | None = None
    ) -> None:
        self._kind = kind
        self._address = address
        self._connect = connect
        self._use = use
        self._link: _L | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._complaint = ""
        """What connecting fails of now."""
        self._closed = False

    @property
    def connected(self) -> bool:
        return not self._closed and self._link is not None and self._link.up

    def start(self) -> None:
        self._check_open()
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep(), name=f"{self._kind} {self._address}")

    def link(self) -> _L:
        """The present one; raises BrokerUnavailable while there is none."""
        self._check_open()
        if self._link is None or not self._link.up:
            reason = f": {self._complaint}" if self._complaint else f" to {self._address}"
            raise BrokerUnavailable(f"no connection{reason}")
        return self._link

    def end(self) -> None:
        """Refuse all that comes from now on and end what waits; members still leave by the link they have."""
        self._closed = True
        if self._link is not None:
            self._link.fail("closed")

    async def close(self) -> None:
        self.end()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailable("closed")

    async def _keep(self) -> None:
        told: set[str] = set()
        while not self._closed:
            link: _L | None = None
            try:
                link = await self._connect()
                self._check_open()
                if self._use is not None:
                    self._use(link)
                self._link = link
                self._complaint = ""
                told.clear()
                log.info("broker_connected", broker=self._address)
                reason = await link.until_lost()
                log.warning("broker_lost", broker=self._address, **({"reason": reason} if reason else {}))
            except Exception as exc:  # whatever it is, the next try may succeed
                self._complaint = str(exc) or repr(exc)
                if self._complaint not in told:  # of the many tries that may follow, each with an error, one is enough
                    told.add(self._complaint)
                    log.warning("broker_connect_failed", broker=self._address, error=self._complaint)
            finally:
                self._link = None
                if link is not None:
                    await link.close()
            await asyncio.sleep(RETRY_S)
