"""NATS JetStream: one stream per topic, one durable pull consumer per group.

Confirmed means stored by the stream. Nothing is lost between confirm and acknowledgement because the stream keeps a
message until every durable has acknowledged it (interest), refuses new ones when full (discard new) and has its
durables before its first message.

nats-py carries the bytes; the parts of it that wait without a deadline, buffer while disconnected or reconnect on
their own are not used. Each connection is a `_Link` of its own: what was sent on one is never taken up on the next, so
that a late acknowledgement cannot reach a stream that was lost and made anew.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Source

from brokers.base import Features, Message
from core.errors import (
    BrokerError,
    BrokerFull,
    BrokerUnavailable,
    MessageTooLarge,
    PublishTimeout,
    SettingsError,
)

log = structlog.get_logger()

MAX_MESSAGE_BYTES: Final = 2**20
MAX_UNACKNOWLEDGED: Final = 8192
"""Messages of one group that may be with its members at a time; beyond, the server delivers none."""

_RETRY_S = 0.25
_CHECK_S = 0.25
_CONNECT_TIMEOUT_S = 2
_PING_S = 5
"""A server that answers no ping for three of these counts as lost."""
_REQUEST_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 1.0
_LONGEST_PULL_S = 5.0
"""A waiting pull is renewed this often: whatever loses one costs no more than this."""
_MAX_UNSENT_BYTES = 8 * 2**20
"""A server that stops reading must not fill this process: further publishes wait for room."""
_ROOM_CHECK_S = 0.01

_NO_RESPONDERS = "503"
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


class _Link:
    """One connection, from its making to its loss."""

    def __init__(self) -> None:
        self.client = Client()
        self.waiting: set[asyncio.Event] = set()
        """Set when the connection is lost."""
        self._inbox = new_inbox()
        self._numbers = itertools.count()
        self._answers: dict[str, asyncio.Future[Msg]] = {}
        self._doubt = asyncio.Event()

    @property
    def up(self) -> bool:
        return self.client.is_connected

    async def open(self, url: str, name: str) -> None:
        """Connect, trying for ever while the server refuses."""
        await self.client.connect(
            url,
            name=name,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            allow_reconnect=False,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RETRY_S,  # type: ignore[arg-type]  # annotated int, used as seconds
            connect_timeout=_CONNECT_TIMEOUT_S,
            ping_interval=_PING_S,
            max_outstanding_pings=2,
            pending_size=0,  # keeps nothing while disconnected, and never makes publish() wait for the socket
        )
        await self.client.subscribe(f"{self._inbox}.*", cb=self._on_answer)

    async def until_lost(self) -> None:
        """Return when the connection is lost. nats-py does not tell of every loss, so its state is looked at too."""
        while self.up:
            self._doubt.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_S):
                    await self._doubt.wait()

    async def send(self, subject: str, body: bytes, reply: str = "") -> None:
        if not self.up:
            raise BrokerUnavailable("not connected")
        try:
            await self.client.publish(subject, body, reply=reply)
        except (errors.Error, OSError) as exc:
            raise BrokerUnavailable(str(exc)) from exc

    async def ask(self, subject: str, body: bytes, timeout_s: float) -> Msg:
        """Send and await the one answer; raises BrokerUnavailable, and TimeoutError after `timeout_s`."""
        reply = f"{self._inbox}.{next(self._numbers)}"
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._answers[reply] = answer
        try:
            async with asyncio.timeout(timeout_s):
                while self.up and self.client.pending_data_size > _MAX_UNSENT_BYTES:
                    await asyncio.sleep(_ROOM_CHECK_S)  # noqa: ASYNC110  # nats-py has no event for it
                await self.send(subject, body, reply)
                return await answer
        finally:
            del self._answers[reply]

    def fail(self, reason: str) -> None:
        """End everything that waits for this connection."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(BrokerUnavailable(reason))
        for event in self.waiting:
            event.set()

    async def close(self) -> None:
        """Send what is unsent and close; at once if the server takes nothing."""
        self.fail("connection lost")
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self.client.close()
        except Exception as exc:
            log.debug("broker_close_failed", error=repr(exc))
        finally:
            # Closing an asyncio transport waits for ever while the peer reads nothing, and nats-py has no abort.
            writer = getattr(getattr(self.client, "_transport", None), "_io_writer", None)
            if writer is not None:
                writer.transport.abort()

    async def _on_answer(self, message: Msg) -> None:
        answer = self._answers.get(message.subject)
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def _on_error(self, error: Exception) -> None:
        log.debug("broker_connection_error", error=repr(error))
        self._doubt.set()

    async def _on_disconnect(self) -> None:
        self._doubt.set()


class NatsBroker:
    """The port, on JetStream.

    `redeliver_after_s` is how long a member may be silent about a message; `max_topic_bytes` bounds what a topic that
    `ensure` makes may hold, and is reserved on the server's disk.
    """

    def __init__(self, url: str, *, name: str, redeliver_after_s: float = 10.0, max_topic_bytes: int = 2**30) -> None:
        self._address = _address(url)
        self._url = url
        self._name = name
        self._redeliver_after_s = redeliver_after_s
        self._max_topic_bytes = max_topic_bytes
        self._features = Features(max_message_bytes=MAX_MESSAGE_BYTES)
        self._link: _Link | None = None
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
        stream = {
            **_WITHOUT_LOSS,
            "name": topic,
            "subjects": [topic],
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
        answer = await self._request(f"CONSUMER.INFO.{topic}.{group}")
        _raise_error(answer, f"group {group!r} of topic {topic!r}")
        subscription = NatsSubscription(self, topic, group, self._redeliver_after_s)
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

    def link(self) -> _Link:
        """The connection; raises BrokerUnavailable while there is none."""
        self._check_open()
        if self._link is None or not self._link.up:
            raise BrokerUnavailable(f"no connection to {self._address}")
        return self._link

    def forget(self, subscription: NatsSubscription) -> None:
        """A subscription is closed."""
        self._subscriptions.discard(subscription)

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

    async def _request(self, name: str, body: object = None) -> _Answer:
        """One call of the JetStream API."""
        encoded = b"" if body is None else msgspec.json.encode(body)
        try:
            return _decode(await self.link().ask(f"$JS.API.{name}", encoded, _REQUEST_TIMEOUT_S))
        except TimeoutError as exc:
            raise BrokerUnavailable(f"no answer within {_REQUEST_TIMEOUT_S} s") from exc

    async def _stay_connected(self) -> None:
        while not self._closed:
            link = _Link()
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
            await asyncio.sleep(_RETRY_S)

    def _use(self, link: _Link) -> None:
        self._check_open()
        self._features = replace(
            self._features, max_message_bytes=min(self._features.max_message_bytes, link.client.max_payload)
        )
        self._link = link
        log.info("broker_connected", broker=self._address)


class NatsSubscription:
    """One member of a group: pulls through an inbox of its own, which is made anew on every connection."""

    def __init__(self, broker: NatsBroker, topic: str, group: str, redeliver_after_s: float) -> None:
        self._broker = broker
        self._pull_subject = f"$JS.API.CONSUMER.MSG.NEXT.{topic}.{group}"
        self._redeliver_after_s = redeliver_after_s
        self._link: _Link | None = None
        self._source: Source | None = None
        self._inbox = ""
        self._buffer: deque[Msg] = deque()
        """Arrived and not fetched: late answers to earlier pulls too."""
        self._held: OrderedDict[str, float] = OrderedDict()
        """Fetched and not acknowledged: receipt -> when the server delivers it again, earliest first."""
        self._behind = 0
        """Messages that the server still had for the group after the latest delivery, redeliveries not counted."""
        self._pulls = itertools.count()
        self._pull_reply = ""
        self._pull_status = ""
        self._enough = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._leaving = asyncio.Lock()

    async def attach(self) -> _Link:
        """Listen on the present connection; what an earlier one delivered is returned for redelivery."""
        if self._closed:
            raise BrokerUnavailable("closed")
        link = self._broker.link()
        if link is self._link:
            return link
        inbox = new_inbox()

        async def receive(message: Msg) -> None:
            if inbox == self._inbox:
                self._receive(message)

        try:
            source = await link.client.subscribe(f"{inbox}.*", cb=receive)
        except (errors.Error, OSError) as exc:
            raise BrokerUnavailable(str(exc)) from exc
        if self._link is not None:
            self._link.waiting.discard(self._changed)
        self._link, self._inbox, self._source = link, inbox, source
        link.waiting.add(self._changed)
        await self._return_all(link)
        return link

    async def fetch(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        link = await self.attach()
        self._forget_redelivered(clock())
        if not self._buffer:
            await self._pull(link, max_messages, max_bytes, deadline)
        while not self._buffer and (left_s := deadline - clock()) > 0:
            await self._pull_next(link, min(left_s, _LONGEST_PULL_S))
            more_bytes = max_bytes - sum(len(message.data) for message in self._buffer)
            if self._buffer and self._behind and max_messages > len(self._buffer) and more_bytes > 0:
                await self._pull(link, max_messages - len(self._buffer), more_bytes, deadline)
        return self._take(link, max_messages, max_bytes, clock() + self._redeliver_after_s)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        if self._closed:
            raise BrokerUnavailable("closed")
        link = self._broker.link()
        for message in messages:
            origin, reply = message.receipt
            self._held.pop(reply, None)
            if origin is link:
                await link.send(reply, b"+ACK")

    async def close(self) -> None:
        self._closed = True
        self._changed.set()
        async with self._leaving:
            link, source, self._source = self._link, self._source, None
            self._broker.forget(self)
            if link is None or source is None or not link.up:
                return
            link.waiting.discard(self._changed)
            # Draining first: a message returned while the server still has a pull of ours would come straight back.
            with suppress(errors.Error, OSError, TimeoutError, BrokerUnavailable):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await source.drain()  # type: ignore[no-untyped-call]
                    await self._return_all(link)
                    await link.client.flush()

    def _receive(self, message: Msg) -> None:
        if message.reply.startswith("$JS.ACK."):
            self._buffer.append(message)
            self._behind = _messages_behind(message.reply)
            if self._behind == 0 or len(self._buffer) >= self._enough:
                self._changed.set()
        elif message.subject == self._pull_reply:
            self._pull_status = _status(message)
            self._changed.set()

    async def _pull(self, link: _Link, max_messages: int, max_bytes: int, deadline: float) -> None:
        """Ask for what is there.

        The server sends nothing of a message above `max_bytes`; `_pull_next` asks for such a one.
        """
        await self._request(link, {"batch": max_messages, "max_bytes": max_bytes, "no_wait": True}, max_messages)
        await self._settle(link, deadline)

    async def _pull_next(self, link: _Link, timeout_s: float) -> None:
        """Wait for one message, of any size."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        await self._request(link, {"batch": 1, "expires": round(timeout_s * 1e9)}, 1)
        await self._settle(link, deadline)
        if self._pull_status == "409":  # refused: too many pulls wait, or the server shuts down
            await asyncio.sleep(min(timeout_s, _RETRY_S))

    async def _request(self, link: _Link, pull: dict[str, object], messages: int) -> None:
        self._pull_reply = f"{self._inbox}.{next(self._pulls)}"
        self._pull_status = ""
        self._enough = len(self._buffer) + messages
        self._changed.clear()
        await link.send(self._pull_subject, msgspec.json.encode(pull), self._pull_reply)

    async def _settle(self, link: _Link, deadline: float) -> None:
        """Wait until the pull is answered, or for `deadline`; a later answer is kept for the next fetch."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._changed.wait()
        if self._closed:
            raise BrokerUnavailable("closed")
        if not link.up:
            raise BrokerUnavailable("connection lost")
        if self._pull_status == _NO_RESPONDERS:
            raise BrokerUnavailable("the server does not have the topic or the group, or is still starting")

    def _take(self, link: _Link, max_messages: int, max_bytes: int, due: float) -> list[Message]:
        messages: list[Message] = []
        size_bytes = 0
        while self._buffer and len(messages) < max_messages and size_bytes < max_bytes:
            message = self._buffer.popleft()
            self._held[message.reply] = due
            messages.append(Message(message.data, (link, message.reply)))
            size_bytes += len(message.data)
        return messages

    def _forget_redelivered(self, now: float) -> None:
        while self._held and next(iter(self._held.values())) < now:
            self._held.popitem(last=False)

    async def _return_all(self, link: _Link) -> None:
        """Tell the server that nothing delivered so far will be acknowledged.

        To return what an earlier connection delivered is safe even if the stream was made anew since: at worst a
        message comes twice.
        """
        replies = [*self._held, *(message.reply for message in self._buffer)]
        self._held.clear()
        self._buffer.clear()
        for reply in replies:
            await link.send(reply, b"-NAK")


def new_inbox() -> str:
    return f"_INBOX.{uuid4().hex}"


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


def _status(message: Msg) -> str:
    return (message.headers or {}).get("Status", "")


def _messages_behind(reply: str) -> int:
    """The last field of `$JS.ACK.<stream>.<durable>.<deliveries>.<stream sequence>.<sequence>.<time>.<pending>`, which
    in its newer form has domain and account before the stream and may have a further field behind."""
    tokens = reply.split(".")
    return int(tokens[8 if len(tokens) == 9 else 10])


def _decode(message: Msg) -> _Answer:
    if _status(message) == _NO_RESPONDERS:
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
    if topic not in config.get("subjects", []):
        raise BrokerError(f"topic {topic!r}: the stream of that name has subjects={config.get('subjects')}")
    for setting, wanted in _WITHOUT_LOSS.items():
        found = config.get(setting, wanted)
        if found != wanted:
            raise BrokerError(f"topic {topic!r}: {setting}={found!r} could lose messages, must be {wanted!r}")
