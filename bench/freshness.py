"""How long after its POST a rate is visible in Redis.

Probes are rates under subjects of their own, sent on a schedule of their own, so that a stall is not left out. One look
asks Redis for all that are under way, so that looking costs little whatever is late.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench.client import Address, ClientError, Connection
from bench.ledger import Ledger
from bench.load import rate_request
from core.errors import StoreUnavailable

EVERY_S: Final = 0.02
VISIBLE_S: Final = 10.0
"""A rate that is not visible by then is told as that late."""
_LOOK_EVERY_S: Final = 0.002


@dataclass(slots=True)
class Probe:
    """One rate, by `time.monotonic`."""

    subject: str
    due_at: float
    confirmed_at: float = 0.0
    visible_at: float = 0.0

    @property
    def from_post_s(self) -> float:
        """From when it was to be sent."""
        return min(self.visible_at - self.due_at, VISIBLE_S) if self.visible_at else VISIBLE_S

    @property
    def from_confirm_s(self) -> float:
        """From the 200; one that was seen before its 200 arrived counts as 0."""
        if not (self.visible_at and self.confirmed_at):
            return VISIBLE_S
        return max(0.0, self.visible_at - self.confirmed_at)


async def probe(address: Address, store_url: str, ledger: Ledger, seconds: float) -> list[Probe]:
    """A probe every EVERY_S for `seconds`, each in `ledger`; returns when all are visible, or VISIBLE_S late.
    Raises StoreUnavailable, in a group."""
    run = secrets.token_hex(6)
    start = time.monotonic()
    probes = [Probe(f"probe-{run}-{number}", start + number * EVERY_S) for number in range(int(seconds / EVERY_S))]
    idle: list[Connection] = []
    async with Redis.from_url(store_url) as redis, asyncio.TaskGroup() as tasks:
        tasks.create_task(_look(redis, probes), name="look")
        for each in probes:
            await asyncio.sleep(each.due_at - time.monotonic())
            tasks.create_task(_send(address, idle, each, ledger), name=each.subject)
    for connection in idle:
        connection.close()
    return probes


async def _send(address: Address, idle: list[Connection], each: Probe, ledger: Ledger) -> None:
    connection = idle.pop() if idle else Connection(address, timeout_s=VISIBLE_S)
    request = rate_request(address, (each.subject, 50))
    ledger.send(request.rates)
    try:
        answer = await connection.exchange(request.wire)
    except ClientError:
        return
    finally:
        idle.append(connection)
    if answer.status == HTTPStatus.OK:
        ledger.confirm(request.rates)
        each.confirmed_at = time.monotonic()


async def _look(redis: Redis, probes: list[Probe]) -> None:
    """Until all were seen, or are so late that nobody waits for them."""
    first = after = 0
    while first < len(probes):
        now = time.monotonic()
        while after < len(probes) and probes[after].due_at <= now:
            after += 1
        waiting = [each for each in probes[first:after] if not each.visible_at]
        if waiting:
            pipeline = redis.pipeline(transaction=False)
            for each in waiting:
                pipeline.exists(f"fanrate:{{0}}:subject:{each.subject}")
            try:
                found = await pipeline.execute()
            except RedisError as exc:
                raise StoreUnavailable(f"Redis did not say what is visible: {exc}") from exc
            seen_at = time.monotonic()
            for each, exists in zip(waiting, found, strict=True):
                if exists:
                    each.visible_at = seen_at
        while first < len(probes) and (probes[first].visible_at or now > probes[first].due_at + VISIBLE_S):
            first += 1
        await asyncio.sleep(_LOOK_EVERY_S)
