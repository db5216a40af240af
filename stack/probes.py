"""Readiness: one short question to an address, as data."""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass, field
from typing import Final

from stack.ports import HOST

ANSWER_S: Final = 2.0
MAX_ANSWER_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Probe:
    """A part is ready when it accepts a connection and, asked `question`, answers something that `expected` is in."""

    question: bytes = field(default=b"", repr=False)
    expected: bytes = b""
    tls: bool = False
    """Asked over TLS, of whatever certificate: a server is ready also with one that no client takes."""


LISTENS: Final = Probe()
REDIS: Final = Probe(b"PING\r\n", rb"\+PONG")
"""An error such as LOADING is no answer yet."""
JETSTREAM: Final = Probe(b"", rb'"jetstream":\s*true')
"""The server greets with what it can do; it does so after it has read its streams."""
GREETS: Final = Probe(b"", rb"\AINFO ")
"""A nats-server, with or without JetStream."""
KAFKA: Final = Probe(b"\0\0\0\x16\0\x03\0\x05\0\0\0\0\0\x07fanrate\0\0\0\0\0", rb"(?s)\A.{12}\0\0\0[\x01-\xff]")
"""A Metadata request, version 5, for no topic: answered with the brokers that serve; at first there is none."""
AMQP: Final = Probe(b"AMQP\x00\x00\x09\x01", rb"(?s)\A\x01\x00\x00.{4}\x00\x0a\x00\x0a")
"""The protocol's header is answered with Connection.Start."""
READYZ: Final = Probe(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", rb"\AHTTP/1\.1 200 ")


async def passes(probe: Probe, port: int) -> bool:
    """Ask once, for at most ANSWER_S."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await _ask(probe, port)
    except (OSError, TimeoutError):
        return False


async def _ask(probe: Probe, port: int) -> bool:
    reader, writer = await asyncio.open_connection(HOST, port, ssl=_any_certificate() if probe.tls else None)
    try:
        writer.write(probe.question)
        answer = b""
        while not re.search(probe.expected, answer):
            part = await reader.read(MAX_ANSWER_BYTES)
            answer += part
            if not part or len(answer) > MAX_ANSWER_BYTES:
                return False
        return True
    finally:
        writer.close()


def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
