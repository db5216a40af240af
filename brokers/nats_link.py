"""One connection to a NATS server, from its making to its loss; `brokers.keeper` makes the next one.

nats-py carries the bytes. Where it waits without a deadline, buffers while disconnected or reconnects on its own, it is
not used: what was sent on one connection is never taken up on the next.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import ParseResult
from uuid import uuid4

import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Source
from nats.aio.transport import TcpTransport
from nats.protocol.command import pub_cmd

from core.doors import Door
from core.endpoints import Address, Endpoint, address_text
from core.errors import BrokerUnavailable

log = structlog.get_logger()

DEFAULT_PORT: Final = 4222
NO_RESPONDERS: Final = "503"
"""The status of an answer that the server gave for want of a receiver."""
CLOSE_TIMEOUT_S = 1.0

_PING: Final = b"PING\r\n"
_REFUSED = ("authorization violation", "authentication expired")
"""What is in the server's words to one whose user or password it does not take, or misses."""
_CHECK_S = 0.25
_CONNECT_TIMEOUT_S = 2
_PING_S = 5
"""A server that answers no ping for three of these counts as lost."""
_MAX_UNSENT_BYTES = 8 * 2**20
"""A server that stops reading must not fill this process: further publishes wait for room."""
_ROOM_CHECK_S = 0.01


class _Transport(TcpTransport):
    """nats-py's, whose reader over TLS is told of its transport: without that it never holds the server back."""

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        assert self._io_writer is not None
        loop, name = asyncio.get_running_loop(), uri if isinstance(uri, str) else uri.hostname
        reader = asyncio.StreamReader(limit=buffer_size)
        protocol = asyncio.StreamReaderProtocol(reader)
        async with asyncio.timeout(connect_timeout):
            transport = await loop.start_tls(self._io_writer.transport, protocol, ssl_context, server_hostname=name)
        if transport is None:
            raise ConnectionResetError("connection lost")
        protocol.connection_made(transport)
        self._io_reader, self._io_writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def __bool__(self) -> bool:
        """Or nats-py would put one of its own in place of it before it is connected."""
        return True

    @property
    def unsent_bytes(self) -> int:
        """In TLS and in the connection below it."""
        upper, bare = self._io_writer, self._bare_io_writer
        unsent: int = 0 if upper is None else upper.transport.get_write_buffer_size()
        if bare is not None and bare is not upper:
            unsent += bare.transport.get_write_buffer_size()
        return unsent

    @property
    def closing(self) -> bool:
        return self._io_writer is None or self._io_writer.is_closing()

    def abort(self) -> None:
        """Which nats-py cannot: a peer that reads nothing is waited for without end."""
        if self._io_writer is not None:
            self._io_writer.transport.abort()


class _Client(Client):
    """nats-py's, with three differences.

    It speaks TLS where it was asked to: left to itself it goes by what the server wants, and shows its password to one
    that wants none. And no task is woken to send what was published, nor for a message once it is read: each costs more
    than what it does. So only who listens by `listen` receives anything. And what is published goes by `put`.
    """

    def __init__(self, door: Door, address: Address) -> None:
        super().__init__()
        self._transport: _Transport = _Transport()  # type: ignore[no-untyped-call]
        self._door = door
        self._address = address
        self._receivers: dict[int, Callable[[Msg], None]] = {}
        self._flushing = False

    @property
    def unsent_bytes(self) -> int:
        return self._pending_data_size + self._transport.unsent_bytes

    async def listen(self, subject: str, group: str, receive: Callable[[Msg], None]) -> Source:
        source = await self.subscribe(subject, queue=group)
        self._receivers[source._id] = receive  # noqa: SLF001  # in time: that did not suspend, and nothing is sent yet
        return source

    def put(self, subject: str, body: bytes, reply: str) -> None:
        """nats-py's `publish`, of which it makes three coroutines. Subjects are not looked at: one with white space
        would be another command. Raises errors.Error."""
        if not self.is_connected:
            raise errors.ConnectionClosedError
        if len(body) > self.max_payload:
            raise errors.MaxPayloadError
        command = pub_cmd(subject, reply, body)
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(body)
        self._pending.append(command)
        self._pending_data_size += len(command)
        self._write_soon()

    def abort(self) -> None:
        """Give the connection up at once."""
        self._transport.abort()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """What the server tells of itself, before anything else is sent."""
        if initial_connection:
            if info.get("tls_required") and not self._door.endpoint.tls:
                raise self._door.tls_wanted(self._address)
            if self._door.endpoint.tls and not (info.get("tls_required") or info.get("tls_available")):
                raise self._door.tls_missing(self._address)
            info["tls_required"] = self._door.endpoint.tls
        await super()._process_info(info, initial_connection=initial_connection)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self._receivers.pop(sid, None)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        receive = self._receivers.get(sid)
        if receive is None:
            return
        try:
            told = await self._process_headers(headers) if headers else None
            receive(Msg(self, subject.decode(), reply.decode(), data, told))
        except Exception as exc:
            await self._error_cb(exc)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Behind what was sent before, so that its answer proves that that has come: nats-py's own overtakes it."""
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        await self._send_command(_PING)
        await self._flush_pending()

    async def _flush_pending(self, force_flush: bool = False) -> None:
        self._write_soon()

    def _write_soon(self) -> None:
        """All that is sent in one turn of the event loop leaves in one piece, in the next."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._write_pending)

    def _write_pending(self) -> None:
        """What is pending when the connection was lost goes nowhere; at a close, nats-py writes it itself."""
        self._flushing = False
        if self._pending and not self._transport.closing:
            if not self.is_connected:
                return
            self._transport.write(b"".join(self._pending))  # type: ignore[no-untyped-call]
        self._pending.clear()
        self._pending_data_size = 0


class Link:
    """One connection, from its making to its loss."""

    def __init__(self, door: Door, address: Address) -> None:
        self.client = _Client(door, address)
        self._door = door
        self._address = address
        self.waiting: set[asyncio.Event] = set()
        """Set when the connection is lost."""
        self._inbox = new_inbox()
        self._numbers = itertools.count()
        self._answers: dict[str, asyncio.Future[Msg]] = {}
        self._doubt = asyncio.Event()
        self._broken = False
        self._opened = False
        self._erred = False

    @property
    def up(self) -> bool:
        return self.client.is_connected and not self._broken

    @property
    def server_version(self) -> tuple[int, int]:
        version = self.client.connected_server_version
        return version.major, version.minor

    @property
    def clustered(self) -> bool:
        """Whether the server is one of several."""
        return bool(self.client._server_info.get("cluster"))  # noqa: SLF001  # nats-py does not show it

    async def open(self, name: str) -> None:
        """Connect, once."""
        endpoint = self._door.endpoint
        await self.client.connect(
            f"nats://{address_text(self._address)}",
            name=name,
            user=endpoint.user or None,
            password=endpoint.password() or None,
            tls=endpoint.ssl_context(),
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
            allow_reconnect=False,
            connect_timeout=_CONNECT_TIMEOUT_S,
            ping_interval=_PING_S,
            max_outstanding_pings=2,
            pending_size=0,  # keeps nothing while disconnected, and never makes publish() wait for the socket
        )
        self._opened = True
        await self.listen(f"{self._inbox}.*", self._on_answer)

    async def until_lost(self) -> str:
        """Return when the connection is lost. nats-py does not tell of every loss, so its state is looked at too."""
        while self.up:
            self._doubt.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_S):
                    await self._doubt.wait()
        return ""

    async def listen(self, subject: str, receive: Callable[[Msg], None], group: str = "") -> Source:
        """Each message goes to one of those that listen as `group`."""
        try:
            return await self.client.listen(subject, group, receive)
        except (errors.Error, OSError) as exc:
            raise BrokerUnavailable(str(exc)) from exc

    def send(self, subject: str, body: bytes, reply: str = "") -> None:
        if not self.up:
            raise BrokerUnavailable("not connected")
        try:
            self.client.put(subject, body, reply)
        except errors.Error as exc:
            raise BrokerUnavailable(str(exc)) from exc

    async def ask(self, subject: str, body: bytes, timeout_s: float) -> Msg:
        """Send and await the one answer; raises BrokerUnavailable, and TimeoutError after `timeout_s`."""
        reply = self._new_reply()
        return await self._answer(reply, timeout_s, (subject, body, reply))

    async def hand_over(self, messages: Sequence[tuple[str, bytes]], timeout_s: float) -> None:
        """Send subjects and bodies, and return when the server has taken them: what it is sent behind them for this
        very connection has come back. Raises as `ask` does."""
        reply = self._new_reply()
        await self._answer(reply, timeout_s, *((subject, body, "") for subject, body in messages), (reply, b"", ""))

    def fail(self, reason: str) -> None:
        """End everything that waits for this connection."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(BrokerUnavailable(reason))
        for event in self.waiting:
            event.set()

    def break_off(self, reason: str) -> None:
        """Give the connection up; another will be made."""
        self._broken = True
        self.fail(reason)
        self._doubt.set()

    async def close(self) -> None:
        """Send what is unsent and close; at once if the server takes nothing."""
        self.fail("connection lost")
        try:
            if self._opened:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self.client.close()
        except Exception as exc:
            log.debug("broker_close_failed", error=repr(exc))
        finally:
            self.client.abort()

    def _new_reply(self) -> str:
        return f"{self._inbox}.{next(self._numbers)}"

    async def _answer(self, reply: str, timeout_s: float, *messages: tuple[str, bytes, str]) -> Msg:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Msg] = loop.create_future()
        self._answers[reply] = answer
        timer = loop.call_later(timeout_s, _time_out, answer)  # a third of what asyncio.timeout costs
        try:
            while self.up and self.client.unsent_bytes > _MAX_UNSENT_BYTES and not answer.done():
                await asyncio.sleep(_ROOM_CHECK_S)
            if not answer.done():
                for message in messages:
                    self.send(*message)
            return await answer
        finally:
            timer.cancel()
            del self._answers[reply]

    def _on_answer(self, message: Msg) -> None:
        answer = self._answers.get(message.subject)
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def _on_error(self, error: Exception) -> None:
        """While the connection is being made, nats-py would try again by itself for all that fails: the error goes to
        whoever makes it instead."""
        if not self._opened:
            raise error
        if not self._erred:  # of the several that may tell of one loss, one is enough
            self._erred = True
            log.warning("broker_connection_error", error=repr(error))
        self._doubt.set()

    async def _on_disconnect(self) -> None:
        self._doubt.set()


def _time_out(answer: asyncio.Future[Msg]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


async def connect(door: Door, name: str) -> Link:
    """A link that is up, to the next host; raises BrokerUnavailable. Whatever the library raises, nothing is left of
    one that is not."""
    address = door.next_host()
    try:
        with door.knocking(address):
            link = Link(door, address)
            try:
                await link.open(name)
            except BaseException as exc:
                await link.close()
                if isinstance(exc, errors.Error) and any(words in str(exc).lower() for words in _REFUSED):
                    raise door.login_refused(address, str(exc).removeprefix("nats: ").strip("'")) from exc
                raise
    except TimeoutError as exc:
        raise BrokerUnavailable(str(exc) or f"{address_text(address)} does not answer") from exc
    except (errors.Error, OSError) as exc:
        raise BrokerUnavailable(_told(address, exc)) from exc
    return link


def door_of(endpoint: Endpoint) -> Door:
    """Raises SettingsError."""
    return Door(endpoint.with_port(DEFAULT_PORT).plain(user=False))


def _told(address: Address, error: Exception) -> str:
    """With the address, unless it says so itself."""
    where = address_text(address)
    said = getattr(error, "strerror", None) or str(error) or repr(error)
    return said if where in said else f"{where}: {said}"


def new_inbox() -> str:
    return f"_INBOX.{uuid4().hex}"


def status(message: Msg) -> str:
    """The status of a message that the server wrote itself, or nothing."""
    return (message.headers or {}).get("Status", "")
