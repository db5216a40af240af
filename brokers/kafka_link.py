"""One connection to one Kafka node, from its making to its loss. It is never repaired: what was asked on it ends with
it, and whoever needs another makes one."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from brokers.kafka_sasl import exchange
from brokers.kafka_wire import (
    ApiVersionRequest,
    Code,
    KafkaError,
    MetadataRequest,
    SaslAuthenticateRequest,
    SaslHandShakeRequest,
    code_name,
    decode,
    decode_produced,
    encode_produce,
)
from core.doors import Door, is_tls
from core.endpoints import Address, address_text
from core.errors import BrokerUnavailable, EntryRefused

ANSWER_S: Final = 5.0
"""A node that sends nothing for so long, although asked, counts as lost."""

_CONNECT_S = 2.0
_MAX_UNSENT_BYTES = 8 * 2**20
"""A node that stops reading must not fill this process: further publishes wait for room."""
_ROOM_CHECK_S = 0.01
_MAX_ANSWER_BYTES = 256 * 2**20


class Link(asyncio.Protocol):
    """Requests are answered in their order, and one that the node holds back holds up those behind it."""

    def __init__(self, address: Address, client: str) -> None:
        self.address = address
        self._client = client
        self.lost: Callable[[], None] = lambda: None
        """Called once, when the connection ends."""
        self.versions: dict[int, tuple[int, int]] = {}
        self._transport: asyncio.Transport | None = None
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._received = bytearray()
        self._heard_at = 0.0
        self.spoke_tls = False
        """Whether it was answered so instead of in Kafka's protocol."""

    @property
    def up(self) -> bool:
        return self._transport is not None

    @property
    def silent_s(self) -> float:
        """Seconds since anything was received."""
        return asyncio.get_running_loop().time() - self._heard_at

    async def ask(self, request: Any, timeout_s: float = ANSWER_S) -> Any:
        """The answer to one of aiokafka's requests; raises BrokerUnavailable, also for want of it within `timeout_s`
        and where the server is too old to understand."""
        prepared = self._prepare(request)
        try:
            async with asyncio.timeout(timeout_s):
                return decode(prepared, await self.send(prepared))
        except TimeoutError as exc:
            raise BrokerUnavailable(f"no answer within {timeout_s:g} s") from exc

    def tell(self, request: Any) -> None:
        """Send a request whose answer nobody needs."""
        self.send(self._prepare(request))

    def send(self, prepared: Any) -> asyncio.Future[bytes]:
        """Send an encoded request; its answer, or BrokerUnavailable when the connection ends."""
        number = next(self._numbers)
        frame = prepared.build_request_header(number, self._client).encode() + prepared.encode()
        return self._write(number, struct.pack(">i", len(frame)) + frame)

    async def produce(self, topic: str, partition: int, body: bytes, acks: int, timeout_s: float) -> int:
        """The error code that one message was answered with. Has no end of its own."""
        while self._transport is not None and self._transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            await asyncio.sleep(_ROOM_CHECK_S)
        number = next(self._numbers)
        timeout_ms = max(1, int(timeout_s * 1000))
        frame = encode_produce(number, self._client.encode(), topic, partition, body, acks=acks, timeout_ms=timeout_ms)
        return decode_produced(await self._write(number, frame), topic)

    def abort(self) -> None:
        """Give the connection up, at once."""
        if self._transport is not None:
            self._transport.abort()
            self._end("given up")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only
        self._heard_at = asyncio.get_running_loop().time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("connection lost")

    def data_received(self, data: bytes) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if not self.versions and is_tls(data):
            self.spoke_tls = True
            self.abort()
            return
        self._received += data
        start = 0
        while len(self._received) - start >= 8:
            size_bytes, number = struct.unpack_from(">ii", self._received, start)
            if not 4 <= size_bytes <= _MAX_ANSWER_BYTES:
                self.abort()
                return
            end = start + 4 + size_bytes
            if end > len(self._received):
                break
            answer = self._answers.pop(number, None)
            if answer is not None and not answer.done():
                answer.set_result(bytes(memoryview(self._received)[start + 4 : end]))
            start = end
        del self._received[:start]

    def _prepare(self, request: Any) -> Any:
        try:
            return request.prepare(self.versions)
        except (KafkaError, NotImplementedError) as exc:
            raise BrokerUnavailable(f"this Kafka is too old or too new: {exc}") from exc

    def _write(self, number: int, frame: bytes) -> asyncio.Future[bytes]:
        if self._transport is None:
            raise BrokerUnavailable("connection lost")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._transport.write(frame)
        return answer

    def _end(self, reason: str) -> None:
        if self._transport is None:
            return
        self._transport = None
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(BrokerUnavailable(reason))
                answer.exception()  # there may be nobody left who waits for it
        self.lost()


async def connect(door: Door, address: Address, client: str) -> Link:
    """Connect, log in and introduce ourselves as `client`; raises BrokerUnavailable."""
    try:
        with door.knocking(address):
            async with asyncio.timeout(_CONNECT_S):
                _, link = await door.connect(partial(Link, address, client), address)
            try:
                await _introduce(link, door)
            except BaseException:
                link.abort()
                raise
    except TimeoutError as exc:
        raise BrokerUnavailable(str(exc) or f"{address_text(address)} does not answer") from exc
    except OSError as exc:
        raise BrokerUnavailable(str(exc)) from exc
    return link


async def _introduce(link: Link, door: Door) -> None:
    """Learn what the node understands, and log in. One that wants a log-in answers this much without, and ends the
    connection at the first question."""
    try:
        known = await link.ask(ApiVersionRequest(), _CONNECT_S)
    except BrokerUnavailable as exc:
        if link.spoke_tls:
            raise door.tls_wanted(link.address) from exc
        if link.up:
            raise
        raise door.cut_off(link.address) from exc
    link.versions = {key: (least, most) for key, least, most in known.api_versions}
    if door.endpoint.has_password:
        await _log_in(link, door)
        return
    try:
        await link.ask(MetadataRequest([]))
    except BrokerUnavailable as exc:
        if link.up:
            raise
        said = "it ended the connection at the first question"
        raise door.login_refused(link.address, said, sure=False) from exc


async def _log_in(link: Link, door: Door) -> None:
    endpoint = door.endpoint
    mechanism = endpoint.access.sasl
    shaken = await link.ask(SaslHandShakeRequest(mechanism.upper()), _CONNECT_S)
    if shaken.error_code == Code.UNSUPPORTED_SASL_MECHANISM:
        offered = ", ".join(sorted(shaken.enabled_mechanisms)).lower()
        raise EntryRefused(f"BROKER_SASL {mechanism}: {address_text(link.address)} offers {offered or 'none'}")
    if shaken.error_code == Code.ILLEGAL_SASL_STATE:
        raise EntryRefused(f"{' and '.join(endpoint.credentials)}: {address_text(link.address)} takes no log-in there")
    if shaken.error_code != Code.NONE:
        raise BrokerUnavailable(code_name(shaken.error_code))
    steps = exchange(mechanism, endpoint.user, endpoint.password())
    to_send = next(steps, None)
    while to_send is not None:
        answer = await link.ask(SaslAuthenticateRequest(to_send), _CONNECT_S)
        if answer.error_code != Code.NONE:
            raise door.login_refused(link.address, answer.error_message or code_name(answer.error_code))
        try:
            to_send = steps.send(answer.sasl_auth_bytes or b"")
        except StopIteration:
            to_send = None
        except EntryRefused as exc:
            raise door.login_refused(link.address, str(exc)) from exc
