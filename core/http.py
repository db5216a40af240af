"""HTTP as every service here speaks it: a table of routes on aiohttp's low-level server, problem documents for all that
goes wrong, stalled clients cut off, and a drain that breaks no connection.

No router, no middleware and no Application: one dictionary look-up per request, and this file shows all that a request
passes through.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_log import AccessLogger
from prometheus_client.core import Metric

from core.answers import EMPTY_OK, body_stalled, internal_error, problem_response
from core.errors import FanrateError, Problem
from core.lifecycle import Deadline, until
from core.telemetry import counter

log = structlog.get_logger()

Request = web.BaseRequest
Handler = Callable[[Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES: Final = 1024 * 1024
HEADER_TIMEOUT_S: Final = 10.0
"""How long a new connection may take to send its first request's header."""
BODY_TIMEOUT_S: Final = 10.0
"""How long a request's body may take to arrive."""
IDLE_TIMEOUT_S: Final = 75.0
"""How long a kept-alive connection may be idle, or slow with a header: above nginx' 60 s, so that nginx ends it."""
LINGERING_S: Final = 2.0
"""How long what a client still sends after its answer is read and thrown away, so that it sees the answer."""
LAME_DUCK_S: Final = 1.0
"""How long a draining server answers `Connection: close` before it closes connections that stay silent."""
BACKLOG: Final = 1024
ACCESS_FORMAT: Final = '%a "%{X-Forwarded-For}i" %t "%r" %s %b "%{User-Agent}i"'
"""aiohttp's words for: who is connected, the client's address as the balancer tells it, and the request."""


class ListenError(FanrateError):
    """The address cannot be listened on; the message says which setting to change."""


@dataclass(frozen=True, slots=True)
class Routes:
    """`exact`: path -> method -> handler. `under`: the same for paths of one more segment, such as `/rates/film-42`
    under `/rates/`. Paths are looked up as they were sent, percent-encoded."""

    exact: Mapping[str, Mapping[str, Handler]]
    under: Mapping[str, Mapping[str, Handler]]

    def find(self, path: str) -> Mapping[str, Handler] | None:
        if (methods := self.exact.get(path)) is not None:
            return methods
        parent, _, name = path.rpartition("/")
        return self.under.get(f"{parent}/") if name else None


async def read_body(request: Request) -> bytes:
    """The whole body; a Problem 413 above MAX_BODY_BYTES and 408 when it has not arrived within BODY_TIMEOUT_S."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-encoding", "send the body as it is, not encoded")
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except web.RequestPayloadError as exc:
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-http", f"the body is broken: {exc}", close=True) from None
    except TimeoutError:
        raise body_stalled(BODY_TIMEOUT_S) from None


def _too_large() -> Problem:
    detail = f"the body is larger than {MAX_BODY_BYTES} bytes"
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large", detail, close=True)


class Front(asyncio.Protocol):
    """A connection before aiohttp has it. It is in `HttpService.fronts` as long as it lives, counts the requests that
    it has not answered in `HttpService.active`, and ends by itself, or by `HttpService.hand_over`."""

    __slots__ = ()

    def close(self) -> None:
        """End the connection."""
        raise NotImplementedError


class HttpService:
    """Listens on one address and answers by `routes`. A lifecycle service. `port_setting` is what errors name. The
    address may be `shared` with other processes that listen on it too. `front` makes what each connection begins with,
    if that is not aiohttp."""

    def __init__(
        self,
        host: str,
        port: int,
        routes: Routes,
        *,
        port_setting: str = "PORT",
        access_log: bool = False,
        shared: bool = False,
        front: Callable[[HttpService], Front] | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._port_setting = port_setting
        self._routes = routes
        self._access_log = access_log
        self._shared = shared
        self._front = None if access_log else front
        self.fronts: set[Front] = set()
        self.draining = False
        """What is answered now says that the connection ends."""
        self.active = 0
        """Requests that are not answered yet."""
        self.handed_over = 0
        """Connections that a Front left to aiohttp."""
        self._listener: asyncio.Server | None = None
        self._second_handle: socket.socket | None = None
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen; raises ListenError."""
        if self._listener is not None:
            return
        self._server = _Server(
            self._handle,
            access_log_class=AccessLogger,
            access_log=logging.getLogger("access") if self._access_log else None,
            access_log_format=ACCESS_FORMAT,
            keepalive_timeout=IDLE_TIMEOUT_S,
            lingering_time=LINGERING_S,
            tcp_keepalive=False,
        )
        listening = listen(self._host, self._port, self._port_setting, shared=self._shared)
        self._port = listening.getsockname()[1]
        self._second_handle = listening.dup()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._connection, sock=listening, backlog=BACKLOG)

    async def drain(self, timeout_s: float) -> None:
        """Break no connection on the way out:

        1. close the listener, but first take in what already waits in its queue: that would be reset;
        2. answer `Connection: close` from now on, for at least LAME_DUCK_S, so that proxies let go of idle connections;
        3. wait for the requests that are being answered;
        4. close the connections that stayed silent.
        """
        if self._listener is None or self.draining:
            return
        deadline = Deadline(timeout_s)
        await self._stop_listening()
        self.draining = True
        await asyncio.sleep(min(LAME_DUCK_S, deadline.left_s))
        if await until(lambda: not self.active, deadline.left_s):
            await self._close_connections()
        else:
            log.warning("drain_cut_off", requests=self.active)

    async def close(self) -> None:
        if self._listener is None or self._server is None:
            return
        self.draining = True
        self._listener.close()
        if self._second_handle is not None:
            self._second_handle.close()
        self._listener = None
        await self._close_connections()

    def hand_over(self, transport: asyncio.Transport, received: bytes, header_within_s: float) -> None:
        """Give aiohttp a connection, that of a Front, which has `received` that of its next request."""
        assert self._server is not None
        self.handed_over += 1
        connection = self._server(header_within_s)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.data_received(received)

    def metrics(self) -> Iterator[Metric]:
        text = "Connections that the hot route left to the general reader"
        yield counter("fanrate_connections_handed_over", text, self.handed_over)

    async def _close_connections(self) -> None:
        assert self._server is not None
        for front in list(self.fronts):
            front.close()
        self._server.pre_shutdown()
        await self._server.shutdown(0.1)

    async def _stop_listening(self) -> None:
        assert self._listener is not None
        assert self._server is not None
        assert self._second_handle is not None
        self._listener.close()
        loop = asyncio.get_running_loop()
        with self._second_handle as waiting:
            waiting.setblocking(False)
            accepted = []
            while True:
                try:
                    accepted.append(waiting.accept()[0])
                except (BlockingIOError, ConnectionError):
                    break
        for connection in accepted:
            await loop.connect_accepted_socket(self._connection, connection)

    def _connection(self) -> asyncio.Protocol:
        assert self._server is not None
        return self._server() if self._front is None else self._front(self)

    async def _handle(self, request: Request) -> web.StreamResponse:
        self.active += 1
        try:
            response = await self._find(request)(request)
        except Problem as problem:
            response = problem_response(problem)
        except ConnectionError:
            raise
        except Exception:
            log.exception("request_failed", method=request.method, path=request.path)
            response = problem_response(internal_error())
        finally:
            self.active -= 1
        if response is EMPTY_OK and not self._is_plain(request):
            response = web.Response()
        if self.draining:
            response.force_close()
        return response

    def _is_plain(self, request: Request) -> bool:
        """Whether EMPTY_OK says all that this connection needs to hear."""
        return (
            request.keep_alive
            and request.version == HttpVersion11
            and not request.protocol.writing_paused
            and not self.draining
            and not self._access_log
        )

    def _find(self, request: Request) -> Handler:
        methods = self._routes.find(request.rel_url.raw_path)
        if methods is None:
            raise Problem(HTTPStatus.NOT_FOUND, "no-such-page", f"there is nothing at {ascii(request.path)[1:-1]}")
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))
            detail = f"{request.path} takes {allowed}"
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, "method", detail, headers={"Allow": allowed})
        return handler


class _Server(web.Server):
    """aiohttp's low-level server with connections of ours."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        super().__init__(handler, **options)
        self._options = options

    def __call__(self, header_within_s: float | None = None) -> web.RequestHandler:
        connection = _Connection(self, loop=self._loop, **self._options)
        connection.header_within_s = HEADER_TIMEOUT_S if header_within_s is None else header_within_s
        return connection

    def _make_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Request:
        protocol.heard = True
        return Request(message, payload, protocol, writer, task, self._loop, client_max_size=MAX_BODY_BYTES)


class _Connection(web.RequestHandler):
    """aiohttp's connection, but one that must send a request in time and that is told of bad HTTP in a problem
    document."""

    heard = False
    header_within_s = HEADER_TIMEOUT_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._silence = self._loop.call_later(self.header_within_s, self._close_if_silent)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._silence.cancel()
        super().connection_lost(exc)

    def handle_error(
        self, request: Request, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            detail = f"this is not the HTTP that is spoken here: {type(exc).__name__}"
            if isinstance(exc, LineTooLong):
                detail = "the request line or a header is longer than 8190 bytes"
            return problem_response(Problem(HTTPStatus(status), "bad-http", detail, close=True))
        log.error("connection_failed", exc_info=exc)
        return problem_response(Problem(HTTPStatus(status), "internal", "the server made a mistake", close=True))

    def _close_if_silent(self) -> None:
        if not self.heard:
            self.force_close()


def listen(host: str, port: int, port_setting: str, *, shared: bool = False) -> socket.socket:
    """A socket that listens on that address, which other processes may share if they say so too; raises ListenError."""
    listening = bind(host, port, port_setting, shared=shared)
    with _told(host, port, port_setting):
        listening.listen(BACKLOG)
    return listening


def bind(host: str, port: int, port_setting: str, *, shared: bool = False) -> socket.socket:
    """The same, not listening yet."""
    with _told(host, port, port_setting):
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    return bound


@contextmanager
def _told(host: str, port: int, port_setting: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        remedy = f"choose another {port_setting}, or end what listens there"
        if exc.errno not in (errno.EADDRINUSE, errno.EACCES):
            remedy = "HOST must be an address of this machine"
        raise ListenError(f"cannot listen on {host}:{port}: {exc.strerror or exc}: {remedy}") from exc
