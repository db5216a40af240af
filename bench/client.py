"""A small HTTP/1.1 client: one request at a time on one kept connection, reopened when the server closed it.

It exists because load must be cheap and every outcome exact: it tells a request that certainly did not arrive
(`Refused`) from one of which nobody knows (`Broken`, `Silent`). No redirects, TLS, compression or chunked bodies.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from core.errors import FanrateError


class ClientError(FanrateError):
    """No answer to a request."""


class Refused(ClientError):
    """No connection could be opened: the request did not leave."""


class Broken(ClientError):
    """The connection ended, or said something that is not HTTP, after the request had left: it may have arrived."""


class Silent(ClientError):
    """No answer in time: the request may have arrived."""


class WrongAddress(FanrateError):
    """A URL that this client cannot be pointed at."""


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Address:
        """The address in `http://HOST[:PORT]`; raises WrongAddress."""
        try:
            parts = urlsplit(url)
            port = 80 if parts.port is None else parts.port
        except ValueError as exc:
            raise WrongAddress(f"{url!r}: {exc}") from exc
        beyond = parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc
        if parts.scheme != "http" or not parts.hostname or not port or beyond:
            raise WrongAddress(f"{url!r} is not of the form http://HOST:PORT")
        if not _is_host(parts.hostname):
            raise WrongAddress(f"{url!r}: {parts.hostname!r} is no name of a host")
        return cls(parts.hostname, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)


def _is_host(host: str) -> bool:
    """Whether it can be looked up at all: an IPv6 address, or labels of ASCII (RFC 1035), underscores too."""
    if ":" not in host:
        return bool(_NAME.fullmatch(host))
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


def request_bytes(
    address: Address, method: str, path: str, *, body: bytes = b"", content_type: str = "", key: str = ""
) -> bytes:
    """One request as it goes over the wire; `key` is its Idempotency-Key."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address}"]
    if key:
        lines.append(f"Idempotency-Key: {key}")
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    if body or method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


class Connection:
    """A kept connection to one address. Used by one task at a time."""

    def __init__(self, address: Address, *, timeout_s: float = 30.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._wire: _Wire | None = None

    async def exchange(self, request: bytes) -> Answer:
        """Send `request` and return its answer; raises Refused, Broken or Silent, after which it may be used again."""
        wire = self._wire
        if wire is None or wire.closed:
            wire = self._wire = await self._open()
        return await wire.exchange(request, self._timeout_s)

    async def get(self, path: str) -> Answer:
        """Like `exchange`, for a plain GET."""
        return await self.exchange(request_bytes(self._address, "GET", path))

    def close(self) -> None:
        if self._wire:
            self._wire.close()

    async def _open(self) -> _Wire:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                _, wire = await loop.create_connection(_Wire, self._address.host, self._address.port)
        except TimeoutError as exc:
            raise Refused(f"no connection to {self._address} within {self._timeout_s:g} s") from exc
        except OSError as exc:
            raise Refused(f"no connection to {self._address}: {exc.strerror or exc}") from exc
        return wire


CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?:\r|\Z)")


class _Wire(asyncio.Protocol):
    """One TCP connection, until it ends."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._received = b""

    async def exchange(self, request: bytes, timeout_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Answer] = loop.create_future()
        self._waiting = waiting
        timer = loop.call_later(timeout_s, self._fail, Silent(f"no answer within {timeout_s:g} s"))
        cast(asyncio.Transport, self._transport).write(request)
        try:
            return await waiting
        except asyncio.CancelledError:
            self.close()
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # both at once: nobody else will ask for it
            raise
        finally:
            timer.cancel()
            self._waiting = None

    def close(self) -> None:
        self.closed = True
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        waiting = self._waiting
        if waiting is None or waiting.done():
            self.close()
            return
        self._received = data = self._received + data if self._received else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = data[:end].lower()
        length = CONTENT_LENGTH.search(head)
        if not head.startswith(b"http/1.") or b"\r\ntransfer-encoding:" in head:
            self._fail(Broken("the answer is not plain HTTP/1.1"))
        elif length:
            self._finish(head, data[end + 4 :], int(length[1]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        end = self._received.find(b"\r\n\r\n")
        head = self._received[:end].lower()
        if end >= 0 and not CONTENT_LENGTH.search(head):
            body = self._received[end + 4 :]
            self._finish(head, body, len(body))
        else:
            self._fail(Broken(f"the connection ended before the answer: {exc or 'closed by the server'}"))

    def _finish(self, head: bytes, body: bytes, length: int) -> None:
        if len(body) < length:
            return
        if len(body) > length or b"\r\nconnection: close" in head or head.startswith(b"http/1.0"):
            self.close()
        self._received = b""
        try:
            status = int(head[9:12])
        except ValueError:
            self._fail(Broken("the answer has no status"))
            return
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(Answer(status, body[:length]))

    def _fail(self, error: ClientError) -> None:
        self.close()
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(error)
