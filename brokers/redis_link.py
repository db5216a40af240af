"""One connection to a Redis server, from its making to its loss; `brokers.redis_streams` makes the next one.

Commands are written as they come and answered in their order, any number of them under way. Nothing is repeated, and
nothing kept while disconnected: redis-py does both, and takes a connection for each command that waits.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from importlib.resources import files
from typing import Any, Final, Self, cast

import hiredis
import structlog

from core.doors import Door, is_tls
from core.endpoints import Address, Endpoint, address_text
from core.errors import BrokerError, BrokerFull, BrokerUnavailable

log = structlog.get_logger()

DEFAULT_PORT: Final = 6379
CLOSE_TIMEOUT_S: Final = 1.0
CONNECT_TIMEOUT_S: Final = 2.0

_CHECK_S = 1.0
_PING_S = 2.0
"""An idle connection is tried this often."""
_SILENT_S = 10.0
"""A server that owes an answer and has sent nothing for so long counts as lost."""
_MAX_UNSENT_BYTES = 8 * 2**20
"""A server that stops reading must not fill this process: further calls wait for room."""

Command = tuple[str | bytes | int, ...]

_REFUSED: Final = ("WRONGPASS", "NOAUTH", "NOPERM", "ERR AUTH")
"""How Redis begins when it does not let a user in."""
_LASTING = ("WRONGTYPE", "NOPERM", "FOREIGN")
"""How an error begins that no waiting helps against."""


class Script:
    """A Lua script of this package, kept by the server under its hash."""

    def __init__(self, name: str) -> None:
        sources = [files("brokers").joinpath(f"redis_{part}.lua").read_text() for part in ("trim", name)]
        self.source = "\n".join(sources)
        self._hash = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: tuple[str, ...], *arguments: str | bytes | int) -> Command:
        return ("EVALSHA", self._hash, len(keys), *keys, *arguments)


class Link(asyncio.Protocol):
    """One connection. A reply is what Redis answers, or an exception: an awaited future must not be needed for one to
    be noticed."""

    def __init__(self, scripts: tuple[Script, ...]) -> None:
        self.lost = asyncio.Event()
        self._scripts = scripts
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._replies = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any] | None] = deque()
        self._room = asyncio.Event()
        self._heard_at = self._loop.time()
        self._check: asyncio.TimerHandle | None = None
        self._logged_in = False
        self._heard = False
        self._spoke_tls = False

    @classmethod
    async def open(cls, door: Door, name: str, scripts: tuple[Script, ...]) -> Self:
        """Connect and log in; raises BrokerUnavailable."""
        address = door.next_host()
        link = cls(scripts)
        try:
            with door.knocking(address):
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await door.connect(lambda: link, address)
                    await link._log_in(door, address, name)
        except TimeoutError as exc:
            link.abort()
            raise BrokerUnavailable(str(exc) or f"{address_text(address)} does not answer") from exc
        except (OSError, hiredis.HiredisError) as exc:
            link.abort()
            raise BrokerUnavailable(str(exc)) from exc
        except BaseException:
            link.abort()
            raise
        return link

    @property
    def up(self) -> bool:
        return not self.lost.is_set()

    def ask(self, *command: str | bytes | int) -> asyncio.Future[Any]:
        """Send; the future's result is the reply."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._send(command, reply)
        return reply

    def tell(self, *command: str | bytes | int) -> None:
        """Send; nobody waits for the reply."""
        self._send(command, None)

    async def call(self, command: Command, timeout_s: float) -> Any:
        """Send and await the reply; raises what `checked` does, and TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not self._room.is_set():
                await self._room.wait()
            return checked(await self.ask(*command))

    def fail(self, reason: str) -> None:
        """End everything that waits for a reply."""
        for waiter in self._waiting:
            if waiter is not None and not waiter.done():
                waiter.set_result(BrokerUnavailable(reason))

    async def until_lost(self) -> str:
        await self.lost.wait()
        return ""

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Give the connection up at once."""
        self.connection_lost(None)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only
        if self.lost.is_set():  # given up while it was made
            transport.abort()
            return
        transport.set_write_buffer_limits(_MAX_UNSENT_BYTES)
        self._transport = transport
        self._room.set()
        self._check = self._loop.call_later(_CHECK_S, self._check_alive)

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if not self._logged_in and is_tls(data):
            self._spoke_tls = True
            self.abort()
            return
        self._heard = True
        try:
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not False:
                self._answer(reply)
        except (hiredis.ProtocolError, IndexError) as exc:
            log.warning("broker_connection_error", error=repr(exc))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._room.set()
        self.fail("connection lost")
        self._waiting.clear()
        if self._check is not None:
            self._check.cancel()

    def _send(self, command: Command, waiter: asyncio.Future[Any] | None) -> None:
        if self._transport is None or self.lost.is_set():
            raise BrokerUnavailable("connection lost")
        if not self._waiting:
            self._heard_at = self._loop.time()
        self._waiting.append(waiter)
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # annotated as a single

    def _answer(self, reply: Any) -> None:
        waiter = self._waiting.popleft()
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            self._load_scripts()  # somebody flushed them; the call is refused, and may come again
        if waiter is not None and not waiter.done():
            waiter.set_result(reply)

    async def _log_in(self, door: Door, address: Address, name: str) -> None:
        endpoint = door.endpoint
        credentials = tuple(filter(None, (endpoint.user, endpoint.password())))
        needed = [self.ask("AUTH", *credentials)] if credentials else []
        needed.append(self.ask("SELECT", endpoint.database()))
        self.tell("CLIENT", "SETNAME", name.replace(" ", "-"))
        needed += self._load_scripts()
        first = await needed[0]
        if self._spoke_tls:
            raise door.tls_wanted(address)
        if isinstance(first, BrokerUnavailable) and not self._heard:
            raise door.cut_off(address)
        if isinstance(first, hiredis.ReplyError) and str(first).startswith(_REFUSED):
            raise door.login_refused(address, str(first))
        for reply in needed:
            checked(await reply)
        self._logged_in = True

    def _load_scripts(self) -> list[asyncio.Future[Any]]:
        return [self.ask("SCRIPT", "LOAD", script.source) for script in self._scripts]

    def _check_alive(self) -> None:
        silent_s = self._loop.time() - self._heard_at
        if self._waiting and silent_s > _SILENT_S:
            self.abort()
            return
        if not self._waiting and silent_s > _PING_S:
            self.tell("PING")
        self._check = self._loop.call_later(_CHECK_S, self._check_alive)


def door_of(endpoint: Endpoint) -> Door:
    """To `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`; raises SettingsError."""
    endpoint.database()
    return Door(endpoint.with_port(DEFAULT_PORT).plain(path=True, several=False))


def checked(reply: Any) -> Any:
    """`reply`, or raise what it stands for: BrokerFull when the server's memory is, BrokerUnavailable, or BrokerError
    when nothing would change by itself."""
    if isinstance(reply, BrokerError):
        raise reply
    if not isinstance(reply, hiredis.ReplyError):
        return reply
    text = str(reply)
    if text.startswith("OOM"):
        raise BrokerFull(text) from reply
    if text.startswith(_LASTING):
        raise BrokerError(text) from reply
    raise BrokerUnavailable(text) from reply
