"""Patience: what a dependency denies for now is tried again until it is done, or until the service is told to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from core.errors import BrokerError, FanrateError, StoreUnavailable
from core.lifecycle import Pauses

log = structlog.get_logger()

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Wait:
    what: str
    error: str
    tried_at: float


class Patience:
    """What the steps of one service wait for. `stopping` is set by its owner, and ends the waits."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self._waits: dict[object, _Wait] = {}

    @property
    def waits_for(self) -> str:
        """What is waited for, and why; empty if nothing is."""
        return "; ".join(dict.fromkeys(f"waits for {wait.what}: {wait.error}" for wait in self._waits.values()))

    @property
    def tried_at(self) -> float:
        """When something that is waited for was last tried, on the monotonic clock; 0 if nothing is."""
        return max((wait.tried_at for wait in self._waits.values()), default=0.0)

    async def until_done(self, what: str, step: Callable[[], Awaitable[_T]]) -> _T | None:
        """Try `step`, with growing pauses while a dependency is away, until it is done; None if told to stop first.

        Raises what no trying again helps.
        """
        pauses = Pauses()
        token = object()
        try:
            while True:
                try:
                    return await step()
                except (BrokerError, StoreUnavailable) as exc:
                    self._note(token, what, exc)
                if self.stopping.is_set():
                    return None
                await pauses.pause()
        finally:
            self._waits.pop(token, None)

    async def done(self, what: str, step: Callable[[], Awaitable[None]]) -> bool:
        """`until_done` for a step that has no result: False if told to stop first."""
        return await self.until_done(what, lambda: _true_after(step())) is not None

    def _note(self, token: object, what: str, error: FanrateError) -> None:
        said = str(error)
        if not any((wait.what, wait.error) == (what, said) for wait in self._waits.values()):
            log.warning("waiting", waits_for=what, error=said)
        self._waits[token] = _Wait(what, said, time.monotonic())


async def _true_after(step: Awaitable[None]) -> bool:
    await step
    return True
