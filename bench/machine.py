"""The machine and the versions that a figure was measured with."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from stack.kafka import KAFKA_VERSION, kafka_jars
from stack.programs import MissingProgram, find

_LIBRARIES = ("aio-pika", "aiohttp", "aiokafka", "hiredis", "msgspec", "nats-py", "pamqp", "redis", "uvloop")
_PROGRAMS = {"redis-server": "--version", "nats-server": "--version", "nginx": "-v", "wrk": "--version"}
_VERSION = re.compile(r"\d+(?:\.\d+)+")


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
