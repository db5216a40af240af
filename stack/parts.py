"""What each part of a topology is: its command, address, files, how it is told to stop. Data; `stack.member` runs it.

All of a part's files lie within the stack's `directory`: `data/NAME` and `logs/NAME.log`.
"""

from __future__ import annotations

import enum
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from core.settings import Draining, load
from stack.configuration import nginx_configuration
from stack.ports import HOST, free_port
from stack.probes import JETSTREAM, LISTENS, READYZ, REDIS, Probe
from stack.programs import find

Balancer = Literal["nginx-plain", "nginx-tuned"]

SERVER_STOP_S: Final = 10.0
AFTER_DRAIN_S: Final = 4.0
"""What a service may take beyond its DRAIN_S before it is killed."""


class Tier(enum.IntEnum):
    """Where a part stands on the way of a rate, innermost first. Parts are started in this order and stopped in the
    other: each stops taking work in while all that it needs to finish still runs."""

    SERVER = 0
    PROCESS = 1
    API = 2
    BALANCER = 3


@dataclass(frozen=True, slots=True)
class Part:
    """One program, its address and what it takes to run it. `env` is added to the supervisor's own."""

    name: str
    tier: Tier
    argv: Sequence[str]
    port: int
    url: str
    log: Path
    probe: Probe
    env: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[Path] = ()
    files: Mapping[Path, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_s: float = SERVER_STOP_S

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"


def redis(directory: Path, *, name: str = "redis", port: int | None = None) -> Part:
    """Redis as Fanrate needs it: every write on disk before its answer, nothing evicted."""
    port = port or free_port()
    data = _data(directory, name)
    argv = [str(find("redis-server")), "--bind", HOST, "--port", str(port), "--dir", str(data)]
    argv += ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", "--save", ""]
    url = f"redis://{HOST}:{port}/0"
    return Part(name, Tier.SERVER, argv, port, url, _log(directory, name), REDIS, folders=[data])


def nats(directory: Path, *, name: str = "nats", port: int | None = None) -> Part:
    """nats-server with JetStream."""
    port = port or free_port()
    data = _data(directory, name)
    argv = [str(find("nats-server")), "-a", HOST, "-p", str(port), "-js", "-sd", str(data)]
    return Part(
        name, Tier.SERVER, argv, port, f"nats://{HOST}:{port}", _log(directory, name), JETSTREAM, folders=[data]
    )


def process(
    directory: Path,
    *,
    broker_url: str,
    store_url: str,
    name: str = "process-1",
    port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Part:
    """One consumer; `port` is that of its health and metrics, `env` its further settings."""
    port = port or free_port()
    settings = {"HOST": HOST, "HEALTH_PORT": str(port), "BROKER_URL": broker_url, "STORE_URL": store_url, **(env or {})}
    return _service("process", Tier.PROCESS, directory, name, port, settings)


def api(
    directory: Path,
    *,
    broker_url: str,
    store_url: str,
    name: str = "api-1",
    port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Part:
    """One API replica; `env` are its further settings."""
    port = port or free_port()
    settings = {"HOST": HOST, "PORT": str(port), "BROKER_URL": broker_url, "STORE_URL": store_url, **(env or {})}
    return _service("api", Tier.API, directory, name, port, settings)


def nginx(
    directory: Path,
    *,
    upstream_ports: Sequence[int],
    balancer: Balancer = "nginx-tuned",
    name: str = "nginx",
    port: int | None = None,
) -> Part:
    """nginx before the API replicas on `upstream_ports`. Its SIGQUIT lets open requests finish, SIGTERM cuts them."""
    port = port or free_port()
    data = _data(directory, name)
    path = data / "nginx.conf"
    return Part(
        name,
        Tier.BALANCER,
        [str(find("nginx")), "-p", str(data), "-e", "stderr", "-c", str(path)],
        port,
        f"http://{HOST}:{port}",
        _log(directory, name),
        LISTENS,
        folders=[data],
        files={path: nginx_configuration(balancer, port, upstream_ports, data)},
        stop_signal=signal.SIGQUIT,
    )


def _service(module: str, tier: Tier, directory: Path, name: str, port: int, env: Mapping[str, str]) -> Part:
    argv = [sys.executable, "-m", module]
    url = f"http://{HOST}:{port}"
    stop_s = _drain_s(env) + AFTER_DRAIN_S
    return Part(name, tier, argv, port, url, _log(directory, name), READYZ, env=env, stop_s=stop_s)


def _drain_s(env: Mapping[str, str]) -> float:
    return float(env["DRAIN_S"]) if "DRAIN_S" in env else load(Draining).drain_s


def _data(directory: Path, name: str) -> Path:
    return directory.absolute() / "data" / name


def _log(directory: Path, name: str) -> Path:
    return directory.absolute() / "logs" / f"{name}.log"
