"""NATS JetStream: one stream per topic, one durable pull consumer per group.

Confirmed means stored by the stream: in the server's memory (`relaxed`), in its file (`confirmed`), or in its file by a
server that syncs each message (`fsync`; whether its `sync_interval` is `always` a server tells on its monitoring port
only). Nothing is lost between confirm and acknowledgement because the stream keeps a message until every durable has
acknowledged it (interest), refuses new ones when full (discard new) and has its durables before its first message.

Each connection is a `Link` of its own and replaced as a whole, so that nothing sent on one is repeated on the next.
A stream made anew numbers its messages from 1 again, so an acknowledgement belongs to the connection and to the group
as it was made: a late one must not take away another message of the same number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg

from brokers.base import Features
from brokers.keeper import Keeper
from brokers.nats_link import NO_RESPONDERS, Link, connect, door_of, status
from brokers.nats_pull import NatsSubscription
from core.endpoints import Endpoint
from core.errors import (
    BrokerError,
    BrokerFull,
    BrokerUnavailable,
    MessageTooLarge,
    PublishTimeout,
)
from core.settings import Durability

MAX_MESSAGE_BYTES: Final = 2**20
MAX_UNACKNOWLEDGED: Final = 8192
"""Messages of one group that may be with its members at a time; beyond, the server delivers none."""

COPIES: Final = 3
"""Of a stream that `ensure` makes in a cluster; with one, a node that is lost takes it along."""

_REQUEST_TIMEOUT_S = 5.0
_REQUEST_TIMEOUTS_S = (1.0,) * 5
"""In a cluster, where what was asked while nobody led is never answered: asked again, a new leader answers at once."""

_STREAM_EXISTS = 10058
_FULL = {10023, 10028, 10047}
"""Out of the server's or the account's resources; the limits of one stream come as 10077."""
_STORE_FAILED = 10077
_TOO_LARGE = 10054
_NOT_YET = {10005, 10007, 10009, 10047, 10118, 10119}
"""While a cluster forms or has lost nodes: no peers or room for all copies yet, or nobody who leads. Most such answers
have the code 503."""

_NO_PEERS: Final = 10005

_WITHOUT_LOSS: Final[dict[str, object]] = {
    "retention": "interest",
    "discard": "new",
    "max_age": 0,
    "max_msgs_per_subject": -1,
    "no_ack": False,
}
"""Stream settings that must be so; any other value loses, expires or never frees messages."""
_STORAGES: Final[dict[Durability, tuple[str, ...]]] = {
    "relaxed": ("memory", "file"),
    "confirmed": ("file",),
    "fsync": ("file",),
}
"""Where a stream may keep its messages; a new one does in the first."""
_WAY_OUT: Final = "edit the stream, or delete it once all is counted"
_SYNCS_FROM: Final = (2, 10)
"""The first version of the server that knows `sync_interval: always`."""


class _ErrorAnswer(msgspec.Struct):
    code: int
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    """The parts that matter of a confirm and of the JetStream API's answers."""

    error: _ErrorAnswer | None = None
    created: str = ""
    config: dict[str, Any] = {}


_answers = msgspec.json.Decoder(_Answer)


class NatsBroker:
    """The port, on JetStream.

    `redeliver_after_s` is how long a member may be silent about a message; `max_topic_bytes` bounds what a topic that
    `ensure` makes may hold, and is reserved on the server's disk.
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
        door = door_of(endpoint)
        self._keeper = Keeper("nats", str(door), partial(connect, door, name), self._use)
        self._durability = durability
        self._redeliver_after_s = redeliver_after_s
        self._max_topic_bytes = max_topic_bytes
        self._features = Features(max_message_bytes=MAX_MESSAGE_BYTES, replays=True)
        self._subscriptions: set[NatsSubscription] = set()

    @property
    def features(self) -> Features:
        return self._features

    @property
    def connected(self) -> bool:
        return self._keeper.connected

    async def start(self) -> None:
        self._keeper.start()

    async def ensure(self, topic: str, groups: Sequence[str]) -> None:
        """A new stream takes nothing in until its groups stand: interest retention throws away what nobody reads. So it
        is made on a subject that nobody publishes to, and given the topic's at the end."""
        if self._durability == "fsync":
            _check_syncs(self.link().server_version)
        stream = {
            **_WITHOUT_LOSS,
            "storage": _STORAGES[self._durability][0],
            "name": topic,
            "subjects": [_unfinished(topic)],
            "max_bytes": self._max_topic_bytes,
            "max_msgs": -1,
            "num_replicas": self._copies(),
        }
        answer = await self._request(f"STREAM.CREATE.{topic}", stream)
        if answer.error is not None and answer.error.err_code == _STREAM_EXISTS:
            answer = await self._request(f"STREAM.INFO.{topic}")
        _raise_error(answer, f"topic {topic!r}")
        _check_stream(topic, answer.config, self._durability)
        if self._durability != "relaxed":
            _check_copies(topic, answer.config, self._copies())
        for group in groups:
            await self._ensure_group(topic, group)
        if topic not in answer.config["subjects"]:
            finished = await self._request(f"STREAM.UPDATE.{topic}", {**answer.config, "subjects": [topic]})
            _raise_error(finished, f"topic {topic!r}")
        self._limit_message_bytes(answer.config.get("max_msg_size", -1))

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        if len(body) > self._features.max_message_bytes:
            raise MessageTooLarge(f"{len(body)} bytes, at most {self._features.max_message_bytes}")
        try:
            confirm = await self.link().ask(topic, body, timeout_s)
        except TimeoutError as exc:
            raise PublishTimeout(f"no confirm within {timeout_s} s") from exc
        error = _decode(confirm).error
        if error is None:
            return
        if error.err_code in _FULL or (error.err_code == _STORE_FAILED and "maximum" in error.description):
            raise BrokerFull(error.description)
        if error.err_code == _TOO_LARGE:
            raise MessageTooLarge(error.description)
        raise BrokerUnavailable(f"{error.description} ({error.err_code})")

    async def subscribe(self, topic: str, group: str) -> NatsSubscription:
        subscription = NatsSubscription(
            topic,
            group,
            link=self.link,
            look_up_group=partial(self._look_up_group, topic, group),
            on_close=self._subscriptions.discard,
            redeliver_after_s=self._redeliver_after_s,
        )
        await subscription.attach()
        self._subscriptions.add(subscription)
        return subscription

    async def close(self) -> None:
        self._keeper.end()
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        await self._keeper.close()

    def link(self) -> Link:
        """The connection; raises BrokerUnavailable while there is none."""
        return self._keeper.link()

    def _copies(self) -> int:
        """Groups have as many as their stream."""
        return COPIES if self.link().clustered else 1

    async def _ensure_group(self, topic: str, group: str) -> None:
        durable = {
            "durable_name": group,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": round(self._redeliver_after_s * 1e9),
            "max_deliver": -1,
            "max_ack_pending": MAX_UNACKNOWLEDGED,
        }
        answer = await self._request(
            f"CONSUMER.DURABLE.CREATE.{topic}.{group}", {"stream_name": topic, "config": durable}
        )
        _raise_error(answer, f"group {group!r} of topic {topic!r}")

    async def _look_up_group(self, topic: str, group: str) -> str:
        """When it was made, in the server's words."""
        answer = await self._request(f"CONSUMER.INFO.{topic}.{group}")
        _raise_error(answer, f"group {group!r} of topic {topic!r}")
        return answer.created

    async def _request(self, name: str, body: object = None) -> _Answer:
        """One call of the JetStream API."""
        encoded = b"" if body is None else msgspec.json.encode(body)
        link = self.link()
        for timeout_s in _REQUEST_TIMEOUTS_S if link.clustered else (_REQUEST_TIMEOUT_S,):
            with suppress(TimeoutError):
                return _decode(await link.ask(f"$JS.API.{name}", encoded, timeout_s))
        raise BrokerUnavailable(f"no answer within {_REQUEST_TIMEOUT_S:g} s")

    def _limit_message_bytes(self, limit: int) -> None:
        if limit >= 0:
            most = min(self._features.max_message_bytes, limit)
            self._features = replace(self._features, max_message_bytes=most)

    def _use(self, link: Link) -> None:
        self._limit_message_bytes(link.client.max_payload)


def _unfinished(topic: str) -> str:
    """The subject of a stream whose groups are not made yet."""
    return f"_UNFINISHED.{topic}"


def _decode(message: Msg) -> _Answer:
    if status(message) == NO_RESPONDERS:
        raise BrokerUnavailable("no stream takes this subject, or JetStream is off or still starting")
    try:
        return _answers.decode(message.data)
    except msgspec.MsgspecError as exc:
        raise BrokerUnavailable(f"an answer that is not JetStream's: {exc}") from exc


def _raise_error(answer: _Answer, what: str) -> None:
    error = answer.error
    if error is None:
        return
    if error.code == 503 or error.err_code in _NOT_YET:
        few = f"; {COPIES} copies need as many nodes" if error.err_code == _NO_PEERS else ""
        raise BrokerUnavailable(f"{what}: {error.description}{few}")
    raise BrokerError(f"{what}: {error.description} ({error.err_code})")


def _check_syncs(version: tuple[int, int]) -> None:
    if version < _SYNCS_FROM:
        found, wanted = (".".join(map(str, numbers)) for numbers in (version, _SYNCS_FROM))
        raise BrokerError(
            f"nats-server {found} has no sync_interval=always, which durability fsync needs: {wanted} has"
        )


def _check_copies(topic: str, config: dict[str, Any], wanted: int) -> None:
    """Whatever a cluster could keep and does not is gone with one node."""
    found = config.get("num_replicas", 1)
    if found < wanted:
        raise BrokerError(
            f"topic {topic!r}: num_replicas={found} could lose messages with a node of this cluster, must be {wanted}: "
            f"nats stream edit {topic} --replicas {wanted}"
        )


def _check_stream(topic: str, config: dict[str, Any], durability: Durability) -> None:
    if not {topic, _unfinished(topic)} & set(config.get("subjects", [])):
        raise BrokerError(f"topic {topic!r}: the stream of that name has subjects={config.get('subjects')}")
    allowed: dict[str, tuple[object, ...]] = {setting: (wanted,) for setting, wanted in _WITHOUT_LOSS.items()}
    allowed["storage"] = _STORAGES[durability]
    if durability != "relaxed":
        allowed["persist_mode"] = ("default",)  # of servers from 2.12: `async` confirms before it writes
    for setting, values in allowed.items():
        found = config.get(setting, values[0])
        if found not in values:
            raise BrokerError(
                f"topic {topic!r}: {setting}={found!r} could lose messages, must be {values[0]!r} "
                f"for durability {durability}; {_WAY_OUT}"
            )
