"""Debian packages of server programs: installed by apt where that can be, with no system service started or enabled."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

APT_S: Final = 900.0

PACKAGES: Final[dict[str, Sequence[str]]] = {
    "java": ("openjdk-17-jre-headless", "default-jre-headless"),
    "mvn": ("maven",),
}
"""Program -> packages that have it; the first that apt knows is taken. Other programs' packages have their names."""
UNITS: Final[dict[str, Sequence[str]]] = {
    "nats-server": ("nats-server",),
    "nginx": ("nginx",),
    "rabbitmq-server": ("rabbitmq-server", "epmd.service", "epmd.socket"),
    "redis-server": ("redis-server",),
}
"""Program -> the system services that come with its package."""

_POLICY: Final = Path("/usr/sbin/policy-rc.d")
"""What Debian's package scripts ask before they start a service: 101 forbids it."""
_INSTALL: Final = ("apt-get", "install", "-y", "--no-install-recommends")


def install(programs: Sequence[str]) -> bool:
    """Install the packages of `programs` by apt, or say what to do and return False. Whether that worked is to be seen
    from whether the programs are there."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        _explain(programs)
        return False
    if not _downloads(_packages(programs)):
        print("apt-get update", flush=True)
        _apt(["apt-get", "update"])
    packages = _packages(programs)
    print(f"apt-get install {' '.join(packages)}: {_size(packages)}", flush=True)
    units = _units(programs)
    with _no_service_started():
        _apt([*_INSTALL, *packages])
    _disable(units)
    return True


def _packages(programs: Sequence[str]) -> list[str]:
    return [_package(PACKAGES.get(program, (program,))) for program in programs]


def _package(choice: Sequence[str]) -> str:
    """The first of `choice` that apt knows, or the last."""
    return next((package for package in choice[:-1] if _downloads([package])), choice[-1])


def _units(programs: Sequence[str]) -> list[str]:
    """The services that would come with `programs`. Erlang's may have been there before, chosen by someone."""
    units = [unit for program in programs for unit in UNITS.get(program, ())]
    return [unit for unit in units if shutil.which("epmd") is None or not unit.startswith("epmd")]


def _explain(programs: Sequence[str]) -> None:
    packages = [PACKAGES.get(program, (program,))[-1] for program in programs]
    print(f"missing: {', '.join(programs)}. Installing them takes root and apt. On Debian or Ubuntu:")
    print(f"  sudo apt-get update && sudo apt-get install --no-install-recommends {' '.join(packages)}")
    if units := _units(programs):
        print(f"  sudo systemctl disable --now {' '.join(units)}   # unless you want them as system services")
    print(f"elsewhere: put {', '.join(programs)} on PATH by your system's own means")


def _apt(command: Sequence[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, timeout=APT_S, check=False)


def _downloads(packages: Sequence[str]) -> list[int]:
    """The sizes in bytes of what apt would download; empty when it does not know all the packages. `--print-uris` only
    prints, whatever else is given."""
    command = [*_INSTALL, "-qq", "--print-uris", *packages]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if answer.returncode:
        return []
    return [int(size) for size in re.findall(r"^'[^']+' \S+ (\d+) ", answer.stdout, re.MULTILINE)]


def _size(packages: Sequence[str]) -> str:
    sizes = _downloads(packages)
    return f"{len(sizes)} package{'s' * (len(sizes) != 1)}, downloads {sum(sizes) / 1e6:.1f} MB"


@contextmanager
def _no_service_started() -> Iterator[None]:
    """Forbid package scripts to start services; a policy that stands already is left to decide."""
    if _POLICY.exists():
        yield
        return
    # A policy left behind would keep every later package from starting its service: SIGTERM must end in `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _disable(units: Sequence[str]) -> None:
    """Packages enable their services for the next boot: take that back. They were not installed before, so nobody
    chose it. One at a time: systemctl refuses all where it does not know one."""
    if systemctl := shutil.which("systemctl"):
        for unit in units:
            subprocess.run([systemctl, "--quiet", "disable", unit], stderr=subprocess.DEVNULL, timeout=60, check=False)
