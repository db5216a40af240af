"""Ports for servers on 127.0.0.1, outside the kernel's ephemeral range: inside it any outgoing connection may take a
port while its server is down, and the server could not come back on its address."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Final

from core.errors import FanrateError

HOST: Final = "127.0.0.1"
LOWEST: Final = 10_000
HIGHEST: Final = 65_535

_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()


class NoFreePort(FanrateError):
    """Every port outside the ephemeral range is taken or was given."""


def ephemeral_range() -> range:
    """The ports that the kernel gives to outgoing connections."""
    first, last = map(int, _EPHEMERAL.read_text().split())
    return range(first, last + 1)


def free_port() -> int:
    """A port nothing listens on, never the same twice in one process; raises NoFreePort.

    The search starts at a random one, so that several stacks on one machine hardly ever choose the same.
    """
    ephemeral = ephemeral_range()
    ports = [port for port in range(LOWEST, HIGHEST + 1) if port not in ephemeral]
    start = secrets.randbelow(len(ports)) if ports else 0
    for port in ports[start:] + ports[:start]:
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise NoFreePort(f"no free port from {LOWEST} to {HIGHEST} outside {ephemeral.start}-{ephemeral.stop - 1}")


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        # A server's closed connections keep its port for a minute otherwise.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
