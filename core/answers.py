"""Answers of the HTTP interface: what they say, and how they are written where aiohttp does not do it."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE

from core.errors import Problem


def json_response(content: object) -> web.Response:
    """A 200 of one JSON line."""
    return web.Response(body=msgspec.json.encode(content) + b"\n", content_type="application/json")


def problem_response(problem: Problem) -> web.Response:
    """The RFC 9457 problem document of `problem`."""
    document = {
        "type": f"urn:fanrate:problem:{problem.kind}",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        **problem.members,
    }
    response = web.Response(
        status=problem.status.value,
        body=msgspec.json.encode(document) + b"\n",
        content_type="application/problem+json",
        headers=problem.headers,
    )
    if problem.close:
        response.force_close()
    return response


def internal_error() -> Problem:
    """For what only a mistake of ours causes; the caller logs it."""
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "the server made a mistake; it is in its log")


def body_stalled(timeout_s: float) -> Problem:
    detail = f"the body had not arrived after {timeout_s:g} s"
    return Problem(HTTPStatus.REQUEST_TIMEOUT, "body-stalled", detail, close=True)


def written(response: web.Response, *, keep_alive: bool = True, minor: int = 1) -> bytes:
    """`response` byte for byte as aiohttp writes it to a request of HTTP/1.`minor`."""
    body = response.body
    assert isinstance(body, bytes | None)
    headers = response.headers.copy()
    headers["Content-Length"] = str(len(body or b""))
    headers["Date"] = formatdate(time.time(), usegmt=True)
    headers["Server"] = SERVER_SOFTWARE
    if keep_alive != bool(minor):
        headers["Connection"] = "keep-alive" if keep_alive else "close"
    lines = [f"HTTP/1.{minor} {response.status} {response.reason}", *(f"{name}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


class _EmptyOk(web.StreamResponse):
    """The 200 of no content that aiohttp would send, written in one piece that is made anew once a second.

    One instance answers all requests: it keeps nothing of any.
    """

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._piece = b""

    @property
    def keep_alive(self) -> bool:
        return True

    def written(self) -> bytes:
        """What a kept HTTP/1.1 connection is sent."""
        if (second := int(time.time())) != self._second:
            self._second = second
            self._piece = written(web.Response())
        return self._piece

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if (transport := request.transport) is not None:
            transport.write(self.written())
        return None

    async def write_eof(self, data: bytes = b"") -> None: ...


EMPTY_OK: Final = _EmptyOk()
"""What a handler returns to answer 200 without content."""
