"""What each part of a topology is: its command, address, files, how it is told to stop. Data; `stack.member` runs it.

All of a part's files lie within the stack's `directory`: `data/NAME` and `logs/NAME.log`.
"""

from __future__ import annotations

import enum
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from core.errors import SettingsError
from core.program import WRONG_USAGE
from core.settings import Draining, Durability, load
from stack.configuration import Balancer, nginx_configuration
from stack.ports import HOST, free_port
from stack.probes import GREETS, JETSTREAM, LISTENS, READYZ, REDIS, Probe
from stack.programs import find

SERVER_STOP_S: Final = 10.0
AFTER_DRAIN_S: Final = 4.0
"""What a service may take beyond its DRAIN_S before it is killed."""
ANSWERS_S: Final = 10.0
"""How long a program may take to tell its version."""
SYNCS_FROM: Final = (2, 10)

_STORE_FSYNC: Final[dict[Durability, str]] = {"relaxed": "everysec", "confirmed": "always", "fsync": "always"}
_STREAMS: Final[dict[Durability, list[str]]] = {
    "relaxed": ["--appendonly", "no"],
    "confirmed": ["--appendonly", "yes", "--appendfsync", "no"],
    "fsync": ["--appendonly", "yes", "--appendfsync", "always"],
}


class Tier(enum.IntEnum):
    """Where a part stands on the way of a rate, innermost first. Parts are started in this order and stopped in the
    other: each stops taking work in while all that it needs to finish still runs."""

    SERVER = 0
    PROCESS = 1
    API = 2
    BALANCER = 3


@dataclass(frozen=True, slots=True)
class Part:
    """One program, its address and what it takes to run it. `env` is added to the supervisor's own; a program that ends
    with one of `final_codes` would only do so again."""

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
    final_codes: Sequence[int] = ()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"


def redis(
    directory: Path, *, name: str = "redis", port: int | None = None, durability: Durability = "confirmed"
) -> Part:
    """Redis as the store needs it: every write on disk before its answer, nothing evicted."""
    return _redis(directory, name, port, ["--appendonly", "yes", "--appendfsync", _STORE_FSYNC[durability]])


def redis_streams(
    directory: Path, *, name: str = "streams", port: int | None = None, durability: Durability = "confirmed"
) -> Part:
    """Redis as a broker; with `confirmed` it has written what it answers, and leaves the disk to the system."""
    return _redis(directory, name, port, _STREAMS[durability])


def nats(directory: Path, *, name: str = "nats", port: int | None = None, durability: Durability = "confirmed") -> Part:
    """nats-server with JetStream; with `fsync` it syncs every message, and SettingsError refuses one that cannot."""
    port = port or free_port()
    data = _data(directory, name)
    program = find("nats-server")
    argv = [str(program), "-a", HOST, "-p", str(port), "-js", "-sd", str(data)]
    files = {}
    if durability == "fsync":
        check_syncs(program)
        path = data / "nats.conf"
        argv = [str(program), "-a", HOST, "-p", str(port), "-c", str(path)]
        files[path] = f'jetstream {{store_dir: "{data}", sync_interval: always}}\n'
    return Part(
        name,
        Tier.SERVER,
        argv,
        port,
        f"nats://{HOST}:{port}",
        _log(directory, name),
        JETSTREAM,
        folders=[data],
        files=files,
    )


def nats_core(
    directory: Path, *, name: str = "nats", port: int | None = None, durability: Durability = "relaxed"
) -> Part:
    """nats-server without JetStream: it keeps nothing, whatever `durability`."""
    port = port or free_port()
    argv = [str(find("nats-server")), "-a", HOST, "-p", str(port)]
    return Part(name, Tier.SERVER, argv, port, f"nats+core://{HOST}:{port}", _log(directory, name), GREETS)


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
    broker_url: str | None,
    store_url: str,
    name: str = "api-1",
    port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Part:
    """One API replica; `env` are its further settings. It has no broker where it counts by itself."""
    port = port or free_port()
    settings = {"HOST": HOST, "PORT": str(port), "STORE_URL": store_url}
    settings |= {"BROKER_URL": broker_url} if broker_url else {}
    settings |= env or {}
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


def _redis(directory: Path, name: str, port: int | None, persistence: Sequence[str]) -> Part:
    port = port or free_port()
    data = _data(directory, name)
    argv = [str(find("redis-server")), "--bind", HOST, "--port", str(port), "--dir", str(data), *persistence]
    argv += ["--maxmemory-policy", "noeviction", "--save", ""]
    return Part(name, Tier.SERVER, argv, port, f"redis://{HOST}:{port}/0", _log(directory, name), REDIS, folders=[data])


def check_syncs(program: Path) -> None:
    """Raises SettingsError if this nats-server does not know sync_interval: always."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=ANSWERS_S, check=False).stdout
    version = re.search(r"(\d+)\.(\d+)\.\d+", told)
    if version is None or tuple(map(int, version.groups())) < SYNCS_FROM:
        raise SettingsError(
            f"DURABILITY=fsync needs the setting sync_interval of nats-server 2.10 or newer, not {told.strip()!r}"
        )


def _service(module: str, tier: Tier, directory: Path, name: str, port: int, env: Mapping[str, str]) -> Part:
    argv = [sys.executable, "-m", module]
    url = f"http://{HOST}:{port}"
    stop_s = _drain_s(env) + AFTER_DRAIN_S
    log = _log(directory, name)
    return Part(name, tier, argv, port, url, log, READYZ, env=env, stop_s=stop_s, final_codes=[WRONG_USAGE])


def _drain_s(env: Mapping[str, str]) -> float:
    return float(env["DRAIN_S"]) if "DRAIN_S" in env else load(Draining).drain_s


def _data(directory: Path, name: str) -> Path:
    return directory.absolute() / "data" / name


def _log(directory: Path, name: str) -> Path:
    return directory.absolute() / "logs" / f"{name}.log"
