"""NATS JetStream: one stream per topic, one durable pull consumer per group.

Confirmed means stored by the stream. Nothing is lost between confirm and acknowledgement because the stream keeps a
message until every durable has acknowledged it (interest), refuses new ones when full (discard new) and has its
durables before its first message.

Each connection is a `Link` of its own and replaced as a whole, so that nothing sent on one is repeated on the next, and
no late acknowledgement reaches a stream that was lost and made anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog
from nats.aio.msg import Msg

from brokers.base import Features
from brokers.nats_link import NO_RESPONDERS, RETRY_S, Link, status
from brokers.nats_pull import NatsSubscription
from core.errors import (
    BrokerError,
    BrokerFull,
    BrokerUnavailable,
    MessageTooLarge,
    PublishTimeout,
    SettingsError,
)
from core.settings import Durability

log = structlog.get_logger()

MAX_MESSAGE_BYTES: Final = 2**20
MAX_UNACKNOWLEDGED: Final = 8192
"""Messages of one group that may be with its members at a time; beyond, the server delivers none."""

_REQUEST_TIMEOUT_S = 5.0

_STREAM_EXISTS = 10058
_FULL = {10023, 10028, 10047}
"""Out of the server's or the account's resources; the limits of one stream come as 10077."""
_STORE_FAILED = 10077
_TOO_LARGE = 10054

_WITHOUT_LOSS: Final[dict[str, object]] = {
    "retention": "interest",
    "discard": "new",
    "storage": "file",
    "max_age": 0,
    "max_msgs_per_subject": -1,
    "no_ack": False,
}
"""Stream settings that must be so; any other value loses, expires or never frees messages."""


class _ErrorAnswer(msgspec.Struct):
    code: int
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    """The parts that matter of a confirm and of the JetStream API's answers."""

    error: _ErrorAnswer | None = None
    config: dict[str, Any] = {}


_answers = msgspec.json.Decoder(_Answer)


class NatsBroker:
    """The port, on JetStream.

    `redeliver_after_s` is how long a member may be silent about a message; `max_topic_bytes` bounds what a topic that
    `ensure` makes may hold, and is reserved on the server's disk.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        durability: Durability = "confirmed",
        redeliver_after_s: float = 10.0,
        max_topic_bytes: int = 2**30,
    ) -> None:
        self._address = _address(url)
        self._url = url
        self._name = name
        self._durability = durability
        self._redeliver_after_s = redeliver_after_s
        self._max_topic_bytes = max_topic_bytes
        self._features = Features(max_message_bytes=MAX_MESSAGE_BYTES, replays=True)
        self._link: Link | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._subscriptions: set[NatsSubscription] = set()
        self._closed = False

    @property
    def features(self) -> Features:
        return self._features

    @property
    def connected(self) -> bool:
        return not self._closed and self._link is not None and self._link.up

    async def start(self) -> None:
        self._check_open()
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._stay_connected(), name=f"nats {self._address}")

    async def ensure(self, topic: str, groups: Sequence[str]) -> None:
        """A new stream takes nothing in until its groups stand: interest retention throws away what nobody reads. So it
        is made on a subject that nobody publishes to, and given the topic's at the end."""
        stream = {
            **_WITHOUT_LOSS,
            "name": topic,
            "subjects": [_unfinished(topic)],
            "max_bytes": self._max_topic_bytes,
            "max_msgs": -1,
            "num_replicas": 1,
        }
        answer = await self._request(f"STREAM.CREATE.{topic}", stream)
        if answer.error is not None and answer.error.err_code == _STREAM_EXISTS:
            answer = await self._request(f"STREAM.INFO.{topic}")
        _raise_error(answer, f"topic {topic!r}")
        _check_stream(topic, answer.config)
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
            check_group=partial(self._check_group, topic, group),
            on_close=self._subscriptions.discard,
            redeliver_after_s=self._redeliver_after_s,
        )
        await subscription.attach()
        self._subscriptions.add(subscription)
        return subscription

    async def close(self) -> None:
        self._closed = True
        if self._link is not None:
            self._link.fail("closed")
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})

    def link(self) -> Link:
        """The connection; raises BrokerUnavailable while there is none."""
        self._check_open()
        if self._link is None or not self._link.up:
            raise BrokerUnavailable(f"no connection to {self._address}")
        return self._link

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailable("closed")

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

    async def _check_group(self, topic: str, group: str) -> None:
        answer = await self._request(f"CONSUMER.INFO.{topic}.{group}")
        _raise_error(answer, f"group {group!r} of topic {topic!r}")

    async def _request(self, name: str, body: object = None) -> _Answer:
        """One call of the JetStream API."""
        encoded = b"" if body is None else msgspec.json.encode(body)
        try:
            return _decode(await self.link().ask(f"$JS.API.{name}", encoded, _REQUEST_TIMEOUT_S))
        except TimeoutError as exc:
            raise BrokerUnavailable(f"no answer within {_REQUEST_TIMEOUT_S} s") from exc

    async def _stay_connected(self) -> None:
        while not self._closed:
            link = Link()
            try:
                await link.open(self._url, self._name)
                self._use(link)
                await link.until_lost()
                log.warning("broker_lost", broker=self._address)
            except Exception as exc:  # whatever the library raises, the next try may succeed
                log.warning("broker_connect_failed", broker=self._address, error=repr(exc))
            finally:
                self._link = None
                await link.close()
            await asyncio.sleep(RETRY_S)

    def _limit_message_bytes(self, limit: int) -> None:
        if limit >= 0:
            most = min(self._features.max_message_bytes, limit)
            self._features = replace(self._features, max_message_bytes=most)

    def _use(self, link: Link) -> None:
        self._check_open()
        self._limit_message_bytes(link.client.max_payload)
        self._link = link
        log.info("broker_connected", broker=self._address)


def _unfinished(topic: str) -> str:
    """The subject of a stream whose groups are not made yet."""
    return f"_UNFINISHED.{topic}"


def _address(url: str) -> str:
    """Host and port, for people: a URL may hold a password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 4222
    except ValueError as exc:
        raise SettingsError(f"BROKER_URL: {exc}") from exc
    if not host:
        raise SettingsError("BROKER_URL: names no host")
    return f"{host}:{port}"


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
    if error.code == 503:
        raise BrokerUnavailable(f"{what}: {error.description}")
    raise BrokerError(f"{what}: {error.description} ({error.err_code})")


def _check_stream(topic: str, config: dict[str, Any]) -> None:
    if not {topic, _unfinished(topic)} & set(config.get("subjects", [])):
        raise BrokerError(f"topic {topic!r}: the stream of that name has subjects={config.get('subjects')}")
    for setting, wanted in _WITHOUT_LOSS.items():
        found = config.get(setting, wanted)
        if found != wanted:
            raise BrokerError(f"topic {topic!r}: {setting}={found!r} could lose messages, must be {wanted!r}")
