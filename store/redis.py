"""The store in Redis 7 or newer: one Lua script per call, all keys `fanrate:{0}:...` (`0` is the shard).

| key | what |
|---|---|
| `producers` | sorted set: producer id, by when it was last heard of (ms) |
| `producer:<id>` | hash: opened, confirmed, settled (rates), lease_until (ms) |
| `seen:<id>:<chunk>`, `dead:<id>:<chunk>` | a bit per batch, 65 536 to a chunk: counted; settled as a dead letter |
| `key:<identity>` | an Idempotency-Key's rates were counted |
| `subject:<name>` | hash: count, sum, and a count per rate; `*` is all subjects |
| `minute:<minute>` | hash: a count per subject |
| `names`, `by_count`, `by_mean` | sorted sets of subjects |
| `barrier` | a number that grows with each call that waits for replicas |
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, Final, Literal

import structlog
from redis import exceptions
from redis.commands.core import AsyncScript

from core.batches import Batch
from core.endpoints import Endpoint
from core.errors import StoreUnavailable
from core.fold import ALL, MINUTE_S, Fold
from core.settings import Durability
from core.store import LEASE_S, MINUTES_KEPT, Applied, Lease, Opened, Ranked, Summary
from store.redis_connection import clients
from store.redis_primary import Client, Primary, answered, replicated

log = structlog.get_logger()

CHUNK: Final = 65_536
SKEW_LOGGED_S: Final = 60.0

_FSYNCS: Final[dict[Durability, tuple[str, ...]]] = {
    "relaxed": ("everysec", "always"),
    "confirmed": ("always",),
    "fsync": ("always",),
}
"""What appendfsync may be: with everysec a killed Redis forgets counts of its last second, whose messages are gone."""

_SETTINGS: Final = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy")
_PREFIX: Final = "fanrate:{0}:"


class RedisStore:
    """The port, on one Redis, or on the primary of several. `replicas` must have what was counted or settled before
    that is told."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        horizon_s: float,
        idempotency_s: float,
        durability: Durability = "confirmed",
        replicas: int = 0,
    ) -> None:
        """Raises SettingsError if `endpoint` is not Redis'."""
        self._replicas = replicas
        self._fsyncs = _FSYNCS[durability]
        self._horizon_ms = int(horizon_s * 1000)
        self._idempotency_ms = int(idempotency_s * 1000)
        self._skew_logged = False
        self._clock_ahead_s = 0.0
        """How far the server's clock is ahead of ours."""
        nodes = clients(endpoint)
        self._primary = Primary(nodes)
        self._registry = next(iter(nodes.values()))
        self._apply = self._script("apply")
        self._settle = self._script("settle")
        self._lease = self._script("lease")
        self._opened = self._script("opened")
        self._summary = self._script("summary")

    async def start(self) -> None: ...

    async def check(self) -> None:
        await self._primary.look()
        async with self._primary.calling() as client:
            await answered(client.ping())
            with suppress(exceptions.NoPermissionError):
                version = (await answered(client.info("server")))["redis_version"]
                if int(version.split(".")[0]) < 7:
                    raise StoreUnavailable(f"Redis {version} is too old: 7 or newer is needed")
                if self._replicas:
                    _check_replicas(await answered(client.info("replication")), self._replicas)
            with suppress(exceptions.ResponseError):  # NoPermissionError is one
                await _check_default_user(client)
            try:
                settings = await answered(client.config_get(*_SETTINGS))
            except (exceptions.NoPermissionError, exceptions.ResponseError):
                return
        if settings.get("appendonly") != "yes" or settings.get("appendfsync") not in self._fsyncs:
            wanted = " or ".join(self._fsyncs)
            raise StoreUnavailable(f"Redis may forget what it counted: set appendonly yes and appendfsync {wanted}")
        if settings.get("no-appendfsync-on-rewrite") != "no" and "everysec" not in self._fsyncs:
            raise StoreUnavailable("Redis may forget what it counted: set no-appendfsync-on-rewrite no")
        if settings.get("maxmemory-policy") != "noeviction":
            raise StoreUnavailable("Redis may evict what it counted: set maxmemory-policy noeviction")

    async def apply(self, fold: Fold) -> Applied:
        producers = list(dict.fromkeys(batch.producer for batch in fold.batches))
        chunks = list(dict.fromkeys(map(_chunk, fold.batches)))
        minutes = self._clamped(fold.minutes)
        keys = [_key(name) for name in ("producers", "names", "by_count", "by_mean")]
        keys += [_key(f"producer:{producer}") for producer in producers]
        for producer, chunk in chunks:
            keys += [_key(f"seen:{producer}:{chunk}"), _key(f"dead:{producer}:{chunk}")]
        keys += [_key(f"key:{identity}") for identity in fold.keys]
        keys += [_key(f"minute:{minute}") for minute in minutes]
        keys += [_key(f"subject:{name}") for name in fold.counts]
        sizes = map(len, (producers, fold.batches, chunks, fold.keys, minutes, fold.counts))
        arguments: list[Any] = [self._horizon_ms, self._idempotency_ms, *sizes]
        arguments += _producer_arguments(producers, fold.batches)
        arguments += _batch_arguments(producers, chunks, fold.batches)
        for counts in minutes.values():
            arguments.append(len(counts))
            for pair in counts.items():
                arguments += pair
        for name, distribution in fold.counts.items():
            arguments += _subject_arguments(name, distribution)
        async with self._primary.calling() as client:
            now_ms, known, expired, known_keys = await self._count(client, self._apply, keys, arguments)
        self._set_clock(now_ms)
        identities = [(batch.producer, batch.sequence) for batch in fold.batches]
        return Applied(
            known=frozenset(identities[number - 1] for number in known),
            expired=frozenset(identities[number - 1] for number in expired),
            known_keys=frozenset(fold.keys[number - 1] for number in known_keys),
        )

    async def settle(self, batches: Sequence[Batch]) -> None:
        keys = [_key("producers")]
        arguments: list[Any] = [self._horizon_ms]
        for batch in batches:
            producer, chunk = _chunk(batch)
            keys += [_key(f"producer:{producer}"), _key(f"seen:{producer}:{chunk}"), _key(f"dead:{producer}:{chunk}")]
            arguments += [producer, batch.sequence % CHUNK, int(batch.at * 1000), len(batch.rates), batch.opened]
        async with self._primary.calling() as client:
            await self._count(client, self._settle, keys, arguments)

    async def lease(self, leases: Sequence[Lease]) -> None:
        keys = [_key("producers"), *(_key(f"producer:{lease.producer}") for lease in leases)]
        arguments: list[Any] = [self._horizon_ms, int(LEASE_S * 1000)]
        for lease in leases:
            arguments += [lease.producer, lease.opened, lease.confirmed]
        async with self._primary.calling() as client:
            self._set_clock(await answered(self._lease(keys=keys, args=arguments, client=client)))

    async def opened(self) -> Opened:
        async with self._primary.calling() as client:
            opened, abandoned = await answered(
                self._opened(keys=[_key("producers")], args=[_key("producer:")], client=client)
            )
        return Opened(opened, abandoned)

    async def totals(self) -> Summary:
        return await self.subject(ALL) or Summary()

    async def subject(self, name: str) -> Summary | None:
        async with self._primary.calling() as client:
            this_minute, flat, counts = await answered(
                self._summary(keys=[_key(f"subject:{name}")], args=[name, _key("minute:"), MINUTES_KEPT], client=client)
            )
        if not flat:
            return None
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        minutes = zip(range(this_minute - MINUTES_KEPT + 1, this_minute + 1), map(int, counts), strict=True)
        return Summary(
            count=int(fields.pop("count")),
            sum=int(fields.pop("sum")),
            distribution={rate: int(fields[str(rate)]) for rate in sorted(map(int, fields))},
            minutes={minute: count for minute, count in minutes if count},
        )

    async def subjects(self, after: str, limit: int) -> list[Ranked]:
        async with self._primary.calling() as client:
            least = f"({after}" if after else "-"
            names = await answered(client.zrangebylex(_key("names"), least, "+", start=0, num=limit))
            return await _ranked(client, names)

    async def top(self, n: int, by: Literal["count", "mean"]) -> list[Ranked]:
        async with self._primary.calling() as client:
            return await _ranked(client, await answered(client.zrevrange(_key(f"by_{by}"), 0, n - 1)))

    async def close(self) -> None:
        await self._primary.close()

    async def _count(self, client: Client, script: AsyncScript, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The answer of a script whose outcome a message is acknowledged for."""
        if self._replicas:
            return await replicated(client, script, keys, arguments, self._replicas, _key("barrier"))
        return await answered(script(keys=keys, args=arguments, client=client))

    def _script(self, name: str) -> AsyncScript:
        return self._registry.register_script(files("store").joinpath(f"{name}.lua").read_text())

    def _clamped(self, minutes: dict[int, dict[str, int]]) -> dict[int, dict[str, int]]:
        """`minutes` without the future, by the server's clock as of its last answer, and without those too old to be
        asked for."""
        this_minute = int((time.time() + self._clock_ahead_s) // MINUTE_S)
        clamped: dict[int, dict[str, int]] = {}
        for minute, counts in minutes.items():
            if minute <= this_minute - MINUTES_KEPT:
                continue
            target = clamped.setdefault(min(minute, this_minute), {})
            for name, count in counts.items():
                target[name] = target.get(name, 0) + count
        return clamped

    def _set_clock(self, now_ms: int) -> None:
        self._clock_ahead_s = now_ms / 1000 - time.time()
        if abs(self._clock_ahead_s) > SKEW_LOGGED_S and not self._skew_logged:
            self._skew_logged = True
            log.warning("clocks_differ", redis_ahead_s=round(self._clock_ahead_s, 1))


async def _ranked(client: Client, names: Sequence[str]) -> list[Ranked]:
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.hmget(_key(f"subject:{name}"), "count", "sum")
    rows = await answered(pipeline.execute())
    return [Ranked(name, int(count), int(total) / int(count)) for name, (count, total) in zip(names, rows, strict=True)]


async def _check_default_user(client: Client) -> None:
    """In the name of the user default, even if he is off, Redis reads its append-only file at a start, and leaves out
    the transactions that he has no right to: https://github.com/redis/redis/issues/14541."""
    if await answered(client.acl_dryrun("default", "SET", "fanrate:", "")) != "OK":
        raise StoreUnavailable(
            "Redis may forget what it counted: give the user default, who may be off, the rights ~* &* +@all"
        )


def _check_replicas(info: Mapping[str, Any], wanted: int) -> None:
    """`info` is what Redis tells of its replication: a replica that still loads is no help yet."""
    replicas = [each for name, each in info.items() if re.fullmatch(r"slave\d+", name)]
    online = sum(each["state"] == "online" for each in replicas)
    if online < wanted:
        raise StoreUnavailable(f"Redis has {online} of the {wanted} replicas that STORE_REPLICAS asks for")


def _key(name: str) -> str:
    return _PREFIX + name


def _chunk(batch: Batch) -> tuple[str, int]:
    return batch.producer, batch.sequence // CHUNK


def _producer_arguments(producers: Sequence[str], batches: Sequence[Batch]) -> list[Any]:
    opened: dict[str, int] = dict.fromkeys(producers, 0)
    for batch in batches:
        opened[batch.producer] = max(opened[batch.producer], batch.opened)
    return [argument for pair in opened.items() for argument in pair]


def _batch_arguments(
    producers: Sequence[str], chunks: Sequence[tuple[str, int]], batches: Sequence[Batch]
) -> list[Any]:
    producer_numbers = {producer: number for number, producer in enumerate(producers, 1)}
    chunk_numbers = {chunk: number for number, chunk in enumerate(chunks, 1)}
    arguments: list[Any] = []
    for batch in batches:
        arguments += [
            producer_numbers[batch.producer],
            chunk_numbers[_chunk(batch)],
            batch.sequence % CHUNK,
            int(batch.at * 1000),
            len(batch.rates),
        ]
    return arguments


def _subject_arguments(name: str, distribution: dict[int, int]) -> list[Any]:
    total = sum(rate * count for rate, count in distribution.items())
    arguments: list[Any] = [name, len(distribution) + 2, "count", sum(distribution.values()), "sum", total]
    for pair in distribution.items():
        arguments += pair
    return arguments
