"""The machine and the versions that a figure was measured with, and how busy others kept it meanwhile."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from bench import accounts
from stack.kafka import KAFKA_VERSION, kafka_jars
from stack.programs import MissingProgram, find

_LIBRARIES = ("aio-pika", "aiohttp", "aiokafka", "hiredis", "msgspec", "nats-py", "pamqp", "redis", "uvloop")
_PROGRAMS = {"redis-server": "--version", "nats-server": "--version", "nginx": "-v", "wrk": "--version"}
_VERSION = re.compile(r"\d+(?:\.\d+)+")

FILES = 16_384
"""As many open files as any load here takes; usual limits are 1 024 and, of what a program may ask for, far more."""
_OWN_FILES = 64
"""Of them, what is no connection."""

BUSY_SHARE = 0.05
"""How much of the processors' time others may take before figures are in doubt."""


def allow_files() -> int:
    """Let this program and its children open FILES files, or as many as they may; how many connections that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= allowed:
        return FILES - _OWN_FILES if soft == resource.RLIM_INFINITY else soft - _OWN_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed - _OWN_FILES


@dataclass(frozen=True, slots=True)
class Moment:
    """Seconds so far: of the clock, of all processors' work, of what the machine's host took from them, and of ours."""

    at_s: float
    worked_s: float
    stolen_s: float
    ours_s: float


@dataclass(frozen=True, slots=True)
class Busy:
    """What was not ours between two moments, as shares, 0 to 1, of the time of all processors. `load_average` is that
    of the last minute, ours included."""

    others: float
    steal: float
    load_average: float

    @property
    def busy(self) -> bool:
        return self.others + self.steal > BUSY_SHARE

    def __str__(self) -> str:
        return f"others took {self.others:.0%} of the processors, the host {self.steal:.0%}"


def moment(roles: Mapping[str, Sequence[int]]) -> Moment:
    """Now. Ours are the processes of `roles`, this one, and those of its children that ended. Interrupts are nobody's:
    most are the network between us."""
    times = psutil.cpu_times()
    ours_s = accounts.own_cpu_s() + sum(account.cpu_s for account in accounts.read(roles).values())
    worked_s = times.user + times.system + getattr(times, "nice", 0.0)
    return Moment(time.monotonic(), worked_s, getattr(times, "steal", 0.0), ours_s)


def busy_between(before: Moment, after: Moment) -> Busy:
    """Both moments with the same roles. Short times tell little: the system counts in hundredths of a second."""
    processors_s = max(1e-9, after.at_s - before.at_s) * (os.cpu_count() or 1)
    others_s = (after.worked_s - before.worked_s) - (after.ours_s - before.ours_s)
    stolen_s = after.stolen_s - before.stolen_s
    return Busy(max(0.0, others_s) / processors_s, max(0.0, stolen_s) / processors_s, os.getloadavg()[0])


def describe() -> dict[str, object]:
    """Facts for the head of a run's file and of its table."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "load_average": os.getloadavg()[0],
        "versions": versions(),
    }


@cache
def versions() -> dict[str, str]:
    """Of Python, the libraries and the server programs, as far as they are installed."""
    found = {"python": platform.python_version(), **_library_versions(), **_program_versions()}
    with suppress(MissingProgram):
        kafka_jars()
        found["kafka"] = KAFKA_VERSION
    with suppress(MissingProgram):
        found["rabbitmq-server"] = _rabbit_version(find("rabbitmq-server").resolve())
    return found


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return name[1] if name else platform.machine()


def _library_versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _program_versions() -> dict[str, str]:
    """Of what is installed; wrk prints its version with an error status, nginx to standard error."""
    found = {}
    for name, option in _PROGRAMS.items():
        if not (path := _which(name)):
            continue
        told = subprocess.run([path, option], capture_output=True, text=True, timeout=10, check=False)
        if number := _VERSION.search(told.stdout + told.stderr):
            found[name] = number[0]
    return found


def _rabbit_version(program: Path) -> str:
    """Its folder is named after it, that of Debian's wrapper holds such a folder; asking it takes a node that runs."""
    folders = [program.parent.parent, *program.parent.parent.glob("lib/rabbitmq_server-*")]
    numbers = [_VERSION.search(folder.name) for folder in folders]
    return next((number[0] for number in reversed(numbers) if number), "?")


def _which(name: str) -> str | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fanrate" / "bin"
    return shutil.which(name, path=f"{cache}:{os.environ.get('PATH', os.defpath)}:/usr/sbin")
