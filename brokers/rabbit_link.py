"""One connection to a RabbitMQ server, from its making to its loss; whoever needs it makes the next one.

On pamqp's frames, not on aiormq, which keeps to itself that the server has blocked the connection, buffers without
bound what a frozen server does not take, and cannot be told to stop reading. Here every wait ends with the connection,
nothing is kept for the next one, and no task is behind it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from pamqp import commands

from brokers import rabbit_wire as wire
from brokers.rabbit_channel import Channel
from core.doors import Door, is_tls
from core.endpoints import Address, Endpoint, address_text
from core.errors import BrokerUnavailable, EntryRefused

DEFAULT_PORT: Final = 5672
DEFAULT_TLS_PORT: Final = 5671
DEFAULT_USER: Final = "guest"
"""With this as password too, as RabbitMQ has it where nothing else was made."""

_ACCESS_REFUSED: Final = 403
_NOT_ALLOWED: Final = 530
_CONNECT_TIMEOUT_S = 2.0
_CLOSE_TIMEOUT_S = 1.0
_HEARTBEAT_S = 5
_MAX_SILENT_BEATS = 4
"""Half heartbeats without a byte from the server, each counted on a turn of this event loop: one that was itself held
up does not blame the server."""
_MAX_FRAME_BYTES = 2**17
_MAX_CHANNELS = 2047
_MAX_UNSENT_BYTES = 8 * 2**20
"""A server that stops reading must not fill this process: further publishes wait for room."""

_CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


class _Control(Channel):
    """Channel 0: the connection itself."""

    def __init__(self, link: Link) -> None:
        super().__init__(link, 0)
        self._whole = link

    def on_method(self, name: bytes, payload: bytes) -> None:
        link = self._whole
        if name == wire.CONNECTION_CLOSE:
            close = cast(commands.Connection.Close, wire.decode(0, payload))
            self.send(commands.Connection.CloseOk())
            link.close_code = close.reply_code or 0
            link.break_off(close.reply_text)
        elif name == wire.CONNECTION_CLOSE_OK:
            link.break_off("closed")
        elif name == wire.CONNECTION_BLOCKED:
            link.block(cast(commands.Connection.Blocked, wire.decode(0, payload)).reason)
        elif name == wire.CONNECTION_UNBLOCKED:
            link.blocked = None
        else:
            super().on_method(name, payload)


class Link(asyncio.Protocol):
    """One connection, from its making to its loss."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.blocked: str | None = None
        """Why the server takes no messages, while it does not."""
        self.max_frame_bytes = _MAX_FRAME_BYTES
        self.close_code = 0
        """What the server closed it for, in AMQP's numbers."""
        self._loop = loop
        self._lost: asyncio.Future[str] = loop.create_future()
        self._gone = asyncio.Event()
        self._open = False
        self._spoke_tls = False
        self._heard = False
        self._transport: asyncio.Transport | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._cutter = wire.Cutter(_MAX_FRAME_BYTES)
        self._channels: dict[int, Channel] = {}
        self._last_number = 0
        self._control = _Control(self)
        self._channels[0] = self._control
        self._silent_beats = 0
        self._paused = False
        self._beating: asyncio.TimerHandle | None = None

    @property
    def up(self) -> bool:
        return self._open and not self._lost.done()

    async def open(self, door: Door, name: str) -> None:
        """Connect as `name` to the next host, once; raises BrokerUnavailable."""
        address = door.next_host()
        try:
            with door.knocking(address):
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    await door.connect(lambda: self, address)
                    try:
                        await self._shake_hands(door.endpoint, name)
                    except BrokerUnavailable as exc:
                        raise self._refusal(door, address, exc) from exc
        except TimeoutError as exc:
            raise BrokerUnavailable(str(exc) or f"{address_text(address)} does not answer") from exc
        except OSError as exc:
            raise BrokerUnavailable(str(exc)) from exc
        self._open = True
        self._beat()

    async def until_lost(self) -> str:
        """Return when the connection is lost, with the reason."""
        return await asyncio.shield(self._lost)

    async def wait_lost(self, timeout_s: float) -> None:
        """Return when the connection is lost, or after `timeout_s`."""
        await asyncio.wait({self._lost}, timeout=timeout_s)

    async def room(self) -> None:
        """Wait until the server has taken most of what was written. Raises BrokerUnavailable."""
        while not self._room.is_set() and self.up:
            await self._room.wait()
        if not self.up:
            raise BrokerUnavailable("connection lost")

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._gone.is_set():
            self._transport.write(data)

    def join(self, channel: Channel) -> int:
        """A number for a new channel. One that became free is taken last: answers to its former owner may come. Raises
        BrokerUnavailable."""
        if self._lost.done():
            raise BrokerUnavailable(self._lost.result())
        for _ in range(_MAX_CHANNELS):
            self._last_number = self._last_number % _MAX_CHANNELS + 1
            if self._last_number not in self._channels:
                self._channels[self._last_number] = channel
                return self._last_number
        raise BrokerUnavailable(f"all {_MAX_CHANNELS} channels are in use")

    def leave(self, channel: Channel) -> None:
        self._channels.pop(channel.number, None)

    def pause(self) -> None:
        """Read nothing until `resume`: whatever the server still has, it keeps."""
        if self._transport is not None and not self._paused and not self._gone.is_set():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self._paused and not self._gone.is_set():
            self._paused = False
            self._silent_beats = 0
            self._transport.resume_reading()

    def block(self, reason: str) -> None:
        """The server has said that it reads nothing more for now."""
        self.blocked = reason
        for channel in list(self._channels.values()):
            channel.on_block(reason)

    def fail(self, reason: str) -> None:
        """End everything that waits for this connection."""
        for channel in list(self._channels.values()):
            channel.fail(BrokerUnavailable(reason))
        self._room.set()

    def break_off(self, reason: str) -> None:
        """Give the connection up at once."""
        if not self._lost.done():
            self._lost.set_result(reason)
        self.fail(reason)
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Send what is unsent, take leave and close; at once if the server does not answer. Idempotent."""
        self.resume()
        self.fail("closed")
        try:
            if self.up:
                leave = commands.Connection.Close(reply_code=200, reply_text="closed", class_id=0, method_id=0)
                self._control.send(leave)
                await self.wait_lost(_CLOSE_TIMEOUT_S)
        finally:
            self.break_off("closed")
        if self._transport is not None:
            await self._gone.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_MAX_UNSENT_BYTES)
        if self._lost.done():  # closed while it was being made
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._silent_beats = 0
        if not self._open and is_tls(data):
            self._spoke_tls = True
            self.break_off("it speaks TLS")
            return
        self._heard = True
        try:
            for kind, number, payload in self._cutter.frames(data):
                if (channel := self._channels.get(number)) is not None:
                    channel.receive(kind, payload)
        except Exception as exc:  # whatever pamqp raises of bytes it does not understand
            self.break_off(f"not understood: {exc!r}")

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        if self._beating is not None:
            self._beating.cancel()
        self.break_off(str(exc or "the server closed the connection"))

    def _refusal(self, door: Door, address: Address, error: BrokerUnavailable) -> Exception:
        """What a handshake that failed with `error` has to say."""
        if self._spoke_tls:
            return door.tls_wanted(address)
        if self.close_code == _ACCESS_REFUSED:
            return door.login_refused(address, str(error))
        if self.close_code == _NOT_ALLOWED:
            setting = door.endpoint.url_setting
            return EntryRefused(f"{setting}: its virtual host, at {address_text(address)}: {error}")
        if not self.up and not self._heard:
            return door.cut_off(address)
        return BrokerUnavailable(f"{address_text(address)}: {error}")

    async def _shake_hands(self, endpoint: Endpoint, name: str) -> None:
        await self._control.hear(1, wire.PROTOCOL)
        properties: dict[str, Any] = {"connection_name": name, "product": "fanrate", "capabilities": _CAPABILITIES}
        credentials = f"\0{endpoint.user or DEFAULT_USER}\0{endpoint.password() or DEFAULT_USER}"
        start = commands.Connection.StartOk(client_properties=properties, mechanism="PLAIN", response=credentials)
        tune = cast(commands.Connection.Tune, (await self._control.call(start))[0])
        self.max_frame_bytes = min(tune.frame_max or _MAX_FRAME_BYTES, _MAX_FRAME_BYTES)
        channels = min(tune.channel_max or _MAX_CHANNELS, _MAX_CHANNELS)
        self._control.send(commands.Connection.TuneOk(channels, self.max_frame_bytes, _HEARTBEAT_S))
        await self._control.call(commands.Connection.Open(virtual_host=endpoint.path or "/"))

    def _beat(self) -> None:
        """Twice per heartbeat, say that this side is there and look whether the other is."""
        if not self.up:
            return
        if self._silent_beats >= _MAX_SILENT_BEATS and not self._paused:
            self.break_off("the server is silent")
            return
        self._silent_beats += 1
        self.write(wire.HEARTBEAT)
        self._beating = self._loop.call_later(_HEARTBEAT_S / 2, self._beat)


def door_of(endpoint: Endpoint) -> Door:
    """To `amqp://USER:PASSWORD@HOST:PORT/VIRTUAL_HOST`, all but the host optional; raises SettingsError."""
    return Door(endpoint.with_port(DEFAULT_TLS_PORT if endpoint.tls else DEFAULT_PORT).plain(path=True))
