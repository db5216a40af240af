"""Redis Streams: one stream per topic, one consumer group of Redis per group.

Confirmed means appended, and written to the append-only file as the durability says. A topic `T` is the stream
`fanrate:stream:T`, each entry with the fields `body` and `start` (the bytes of all messages before it), beside the hash
`fanrate:stream:T:state` (redis_trim.lua tells its fields). What a publish must know to be sure of being kept, that the
topic and all its groups are there and have room, is asked for in the very script that appends: brokers/redis_*.lua.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import hiredis
import structlog

from brokers.base import Features
from brokers.keeper import Keeper
from brokers.redis_link import Command, Link, Script, checked, door_of
from brokers.redis_member import MEMBER_SCRIPTS, RedisSubscription
from core.endpoints import Endpoint
from core.errors import BrokerError, BrokerFull, BrokerUnavailable, MessageTooLarge, PublishTimeout
from core.settings import Durability

log = structlog.get_logger()

MAX_MESSAGE_BYTES: Final = 2**20
OLDEST_VERSION: Final = 7

_ANSWER_TIMEOUT_S = 5.0
_ENSURE = Script("ensure")
_PUBLISH = Script("publish")
_SCRIPTS = (_ENSURE, _PUBLISH, *MEMBER_SCRIPTS)

_WITHOUT_LOSS: Final[dict[Durability, dict[str, tuple[str, ...]]]] = {
    "relaxed": {"maxmemory-policy": ("noeviction",)},
    "confirmed": {"maxmemory-policy": ("noeviction",), "appendonly": ("yes",), "appendfsync": ("no", "always")},
    "fsync": {
        "maxmemory-policy": ("noeviction",),
        "appendonly": ("yes",),
        "appendfsync": ("always",),
        "no-appendfsync-on-rewrite": ("no",),
    },
}
"""Settings of the server that must have one of these values. `everysec` is none: while an fsync is under way it answers
before it has written, and a killed server forgets what it answered."""


class RedisBroker:
    """The port, on Redis Streams.

    `redeliver_after_s` is how long a member may be silent about a message; `max_topic_bytes` bounds what a topic that
    `ensure` makes may hold.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str,
        durability: Durability = "confirmed",
        redeliver_after_s: float = 10.0,
        max_topic_bytes: int = 2**30,
    ) -> None:
        self._door = door_of(endpoint)
        self._name = name
        self._durability = durability
        self._redeliver_after_s = redeliver_after_s
        self._max_topic_bytes = max_topic_bytes
        self.features = Features(max_message_bytes=MAX_MESSAGE_BYTES, replays=True)
        self._keeper = Keeper("redis", str(self._door), partial(Link.open, self._door, name, _SCRIPTS))
        self._subscriptions: set[RedisSubscription] = set()
        self._settings_asked = False

    @property
    def connected(self) -> bool:
        return self._keeper.connected

    async def start(self) -> None:
        self._keeper.start()

    async def ensure(self, topic: str, groups: Sequence[str]) -> None:
        await self._check_server()
        try:
            await self._call(_ENSURE.call(keys(topic), self._max_topic_bytes, *groups))
        except BrokerFull as exc:
            raise BrokerUnavailable(str(exc)) from exc

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        if len(body) > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(f"{len(body)} bytes, at most {MAX_MESSAGE_BYTES}")
        try:
            outcome = await self.link().call(_PUBLISH.call(keys(topic), body), timeout_s)
        except TimeoutError as exc:
            raise PublishTimeout(f"no confirm within {timeout_s} s") from exc
        if outcome == b"FULL":
            raise BrokerFull(f"topic {topic!r} holds as much as it may")
        if outcome == b"GONE":
            raise BrokerUnavailable(f"topic {topic!r} or one of its groups is not there: ensure() makes them")

    async def subscribe(self, topic: str, group: str) -> RedisSubscription:
        subscription = RedisSubscription(
            keys(topic),
            group,
            check_connected=self.link,
            connect=partial(Link.open, self._door, self._name, MEMBER_SCRIPTS),
            on_close=self._subscriptions.discard,
            redeliver_after_s=self._redeliver_after_s,
        )
        self._subscriptions.add(subscription)
        try:
            await subscription.attach()
        except BaseException:
            self._subscriptions.discard(subscription)
            raise
        return subscription

    async def close(self) -> None:
        self._keeper.end()
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        await self._keeper.close()

    def link(self) -> Link:
        """The connection; raises BrokerUnavailable while there is none. Members have their own besides."""
        return self._keeper.link()

    async def _check_server(self) -> None:
        """Refuse a server that is too old or may forget what it confirms, as far as it tells."""
        wanted = _WITHOUT_LOSS[self._durability]
        link = self.link()
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                server, found = [await link.ask("INFO", "server"), await link.ask("CONFIG", "GET", *wanted)]
        except TimeoutError as exc:
            raise BrokerUnavailable(f"no answer within {_ANSWER_TIMEOUT_S} s") from exc
        self._check_version(server)
        if isinstance(found, hiredis.ReplyError):
            self._warn_once(str(found))
            return
        pairs = iter(map(bytes.decode, checked(found)))
        settings = dict(zip(pairs, pairs, strict=True))
        for setting, values in wanted.items():
            if setting in settings and settings[setting] not in values:
                raise BrokerError(
                    f"Redis {self._door}: {setting}={settings[setting]!r} could lose messages, must be "
                    f"{' or '.join(map(repr, values))} for durability {self._durability}"
                )

    def _check_version(self, server: Any) -> None:
        if isinstance(server, hiredis.ReplyError):
            self._warn_once(str(server))
            return
        info = dict(line.split(":", 1) for line in checked(server).decode().splitlines() if ":" in line)
        version = info.get("redis_version", "")
        if version and int(version.split(".")[0]) < OLDEST_VERSION:
            raise BrokerError(f"Redis {self._door}: redis_version={version} is too old, {OLDEST_VERSION} is needed")

    def _warn_once(self, error: str) -> None:
        if not self._settings_asked:
            self._settings_asked = True
            log.warning("broker_settings_unknown", broker=str(self._door), error=error)

    async def _call(self, command: Command) -> Any:
        try:
            return await self.link().call(command, _ANSWER_TIMEOUT_S)
        except TimeoutError as exc:
            raise BrokerUnavailable(f"no answer within {_ANSWER_TIMEOUT_S} s") from exc


def keys(topic: str) -> tuple[str, str]:
    """The stream of a topic and the hash beside it."""
    return f"fanrate:stream:{topic}", f"fanrate:stream:{topic}:state"
