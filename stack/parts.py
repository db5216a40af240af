"""What each part of a topology is: its command, address, files, how it is told to stop. Data; `stack.member` runs it.

All of a part's files lie within the stack's `directory`: `data/NAME` and `logs/NAME.log`.
"""

from __future__ import annotations

import enum
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from core.commands import child
from core.errors import SettingsError
from core.program import WRONG_USAGE
from core.sections import load
from core.settings import Draining, Durability
from stack.configuration import Balancer, local_site, nginx_configuration
from stack.locks import OPEN, Locks
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

_ALL: Final = "~* &* +@all"
"""All rights of a user of Redis. `default` has them too, and is off: in its name Redis reads its append-only file at a
start, and leaves out the transactions that it has no right to."""

NO_ACCESS: Final = {
    f"{setting}_{what}": ""
    for setting in ("BROKER", "STORE")
    for what in ("USER", "PASSWORD", "PASSWORD_FILE", "CA_FILE")
} | {"STORE_REPLICAS": ""}
"""The servers are the stack's own: how others are come in to, which the environment may tell, is nothing to them."""


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
    probe_port: int = 0
    """Where it is asked, if not at `port`."""
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
    directory: Path,
    *,
    name: str = "redis",
    port: int | None = None,
    durability: Durability = "confirmed",
    locks: Locks = OPEN,
) -> Part:
    """Redis as the store needs it: every write on disk before its answer, nothing evicted."""
    return _redis(directory, name, port, ["--appendonly", "yes", "--appendfsync", _STORE_FSYNC[durability]], locks)


def redis_streams(
    directory: Path,
    *,
    name: str = "streams",
    port: int | None = None,
    durability: Durability = "confirmed",
    locks: Locks = OPEN,
) -> Part:
    """Redis as a broker; with `confirmed` it has written what it answers, and leaves the disk to the system."""
    return _redis(directory, name, port, _STREAMS[durability], locks)


def nats(
    directory: Path,
    *,
    name: str = "nats",
    port: int | None = None,
    durability: Durability = "confirmed",
    locks: Locks = OPEN,
    further: str = "",
) -> Part:
    """nats-server with JetStream, and with `further` settings; with `fsync` it syncs every message, and SettingsError
    refuses one that cannot."""
    data = _data(directory, name)
    settings = f'store_dir: "{data}"'
    if durability == "fsync":
        check_syncs(find("nats-server"))
        settings += ", sync_interval: always"
    return _nats(directory, name, port, "nats", f"jetstream {{{settings}}}\n{further}", locks)


def nats_core(
    directory: Path,
    *,
    name: str = "nats",
    port: int | None = None,
    durability: Durability = "relaxed",
    locks: Locks = OPEN,
) -> Part:
    """nats-server without JetStream: it keeps nothing, whatever `durability`."""
    return _nats(directory, name, port, "nats+core", "", locks)


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
    settings = {"HOST": HOST, "HEALTH_PORT": str(port), "BROKER_URL": broker_url, "STORE_URL": store_url}
    return _service("process", Tier.PROCESS, directory, name, port, {**NO_ACCESS, **settings, **(env or {})})


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
    return _service("api", Tier.API, directory, name, port, {**NO_ACCESS, **settings, **(env or {})})


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
        files={path: nginx_configuration(balancer, local_site(port, upstream_ports, data))},
        stop_signal=signal.SIGQUIT,
    )


def _redis(directory: Path, name: str, port: int | None, persistence: Sequence[str], locks: Locks) -> Part:
    """A user and its password stand in a file, where no list of processes shows them."""
    port = port or free_port()
    data = _data(directory, name)
    path = data / "redis.conf"
    ports = ["--tls-port", str(port), "--port", "0"] if locks.tls else ["--port", str(port)]
    argv = [str(find("redis-server")), str(path), "--bind", HOST, *ports, "--dir", str(data), *persistence]
    argv += ["--maxmemory-policy", "noeviction", "--save", ""]
    text, question = "", REDIS.question
    if locks.tls:
        text += f"tls-cert-file {locks.certificate}\ntls-key-file {locks.key}\ntls-ca-cert-file {locks.authority}\n"
        text += "tls-auth-clients no\n"
    if locks.user:
        text += f"user default off {_ALL}\nuser {locks.user} on >{locks.password} {_ALL}\n"
        question = f"AUTH {locks.user} {locks.password}\r\n".encode() + question
    return Part(
        name,
        Tier.SERVER,
        argv,
        port,
        locks.url("redis", port, "/0"),
        _log(directory, name),
        replace(REDIS, question=question, tls=locks.tls),
        folders=[data],
        files={path: text},
    )


def _nats(directory: Path, name: str, port: int | None, scheme: str, settings: str, locks: Locks) -> Part:
    """It greets before TLS and before a log-in, so the probe is the same with locks."""
    port = port or free_port()
    data = _data(directory, name)
    path = data / "nats.conf"
    if locks.tls:
        settings += f'tls {{cert_file: "{locks.certificate}", key_file: "{locks.key}"}}\n'
    if locks.user:
        settings += f'authorization {{users: [{{user: "{locks.user}", password: "{locks.password}"}}]}}\n'
    return Part(
        name,
        Tier.SERVER,
        [str(find("nats-server")), "-a", HOST, "-p", str(port), "-c", str(path)],
        port,
        locks.url(scheme, port),
        _log(directory, name),
        JETSTREAM if scheme == "nats" else GREETS,
        folders=[data],
        files={path: settings},
    )


def check_syncs(program: Path) -> None:
    """Raises SettingsError if this nats-server does not know sync_interval: always."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=ANSWERS_S, check=False).stdout
    version = re.search(r"(\d+)\.(\d+)\.\d+", told)
    if version is None or tuple(map(int, version.groups())) < SYNCS_FROM:
        raise SettingsError(
            f"DURABILITY=fsync needs the setting sync_interval of nats-server 2.10 or newer, not {told.strip()!r}"
        )


def _service(module: str, tier: Tier, directory: Path, name: str, port: int, env: Mapping[str, str]) -> Part:
    url = f"http://{HOST}:{port}"
    stop_s = _drain_s(env) + AFTER_DRAIN_S
    log = _log(directory, name)
    return Part(name, tier, child(module), port, url, log, READYZ, env=env, stop_s=stop_s, final_codes=[WRONG_USAGE])


def _drain_s(env: Mapping[str, str]) -> float:
    return float(env["DRAIN_S"]) if "DRAIN_S" in env else load(Draining).drain_s


def _data(directory: Path, name: str) -> Path:
    return directory.absolute() / "data" / name


def _log(directory: Path, name: str) -> Path:
    return directory.absolute() / "logs" / f"{name}.log"
