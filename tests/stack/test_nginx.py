"""What nginx answers by itself is a problem document too, like everything else that is not a success."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stack import parts
from stack.member import Member
from stack.ports import free_port
from stack.supervisor import Stack
from tests.servers import needs


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[Member]:
    """nginx before a replica that is not there."""
    needs("nginx")
    async with Stack(tmp_path) as stack:
        yield await stack.start(parts.nginx(tmp_path, upstream_ports=[free_port()]))


@pytest.mark.parametrize(
    ("request_line", "headers", "status", "kind"),
    [
        (b"POST /rate?rate=" + b"0" * 300 + b"1 HTTP/1.1", b"", 502, "no-replica"),
        (b"GET / HTTP/1.1", b"", 502, "no-replica"),
        (b"GET /metrics HTTP/1.1", b"", 404, "no-such-page"),
        (b"GET /%00 HTTP/1.1", b"", 400, "bad-http"),
        (b"GET /%zz HTTP/1.1", b"", 400, "bad-http"),
        (b"GET /../../etc HTTP/1.1", b"", 400, "bad-http"),
        (b"nonsense", b"", 400, "bad-http"),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1", b"", 414, "bad-http"),
        (b"GET / HTTP/1.1", b"X: " + b"a" * 40_000 + b"\r\n", 400, "bad-http"),
        (b"TRACE / HTTP/1.1", b"", 405, "method"),
        (b"POST /rates HTTP/1.1", b"Content-Length: 1048577\r\n", 413, "body-too-large"),
        (b"POST /rates HTTP/1.1", b"Transfer-Encoding: gzip\r\n", 501, "bad-http"),
    ],
)
async def test_problems_of_nginx(nginx: Member, request_line: bytes, headers: bytes, status: int, kind: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", nginx.port)
    writer.write(request_line + b"\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n")
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"Content-Type: application/problem+json" in head
    document = json.loads(body)
    assert (document["status"], document["type"]) == (status, f"urn:fanrate:problem:{kind}")
