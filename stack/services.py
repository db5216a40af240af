"""`python -m stack services`: installs the server programs that a topology needs and that are missing, and nothing
else: no system service is started or enabled."""

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

from stack.programs import MISSING_PROGRAM, MissingProgram, find, own_folder
from stack.topology import Broker

FAILED: Final = 1
NATS_MODULE: Final = "github.com/nats-io/nats-server/v2@v2.15.2"
NATS_SIZE: Final = "downloads about 8 MB of source, builds a program of 24 MB"
APT_S: Final = 900.0
GO_S: Final = 900.0

NEEDED: Final[dict[Broker, Sequence[str]]] = {"nats": ("redis-server", "nats-server", "nginx")}
"""Broker -> programs. Debian's packages have the programs' names."""
VERSION_OPTION: Final = {"redis-server": "--version", "nats-server": "--version", "nginx": "-v"}

_POLICY: Final = Path("/usr/sbin/policy-rc.d")
"""What Debian's package scripts ask before they start a service: 101 forbids it."""
_INSTALL: Final = ("apt-get", "install", "-y", "--no-install-recommends")


def main(broker: Broker) -> int:
    """Install what is missing; the exit code."""
    missing = [name for name in NEEDED[broker] if not _is_there(name)]
    if "nats-server" in missing and shutil.which("go") and _go_install():
        missing.remove("nats-server")
    if missing and not _apt_install(missing):
        return MISSING_PROGRAM
    absent = [name for name in NEEDED[broker] if not _is_there(name)]
    if absent:
        print(f"still missing: {', '.join(absent)}")
        return FAILED
    print("all there:")
    for name in NEEDED[broker]:
        print(f"  {_version(name)}  ({find(name)})")
    return 0


def _is_there(name: str) -> bool:
    try:
        find(name)
    except MissingProgram:
        return False
    return True


def _version(name: str) -> str:
    answer = subprocess.run([find(name), VERSION_OPTION[name]], capture_output=True, text=True, timeout=10, check=False)
    found = re.search(r"\d+\.\d+\.\d+", answer.stdout + answer.stderr)
    return f"{name} {found[0] if found else '?'}"


def _go_install() -> bool:
    print(f"go install {NATS_MODULE} into {own_folder()}: {NATS_SIZE}", flush=True)
    own_folder().mkdir(parents=True, exist_ok=True)
    command = ["go", "install", NATS_MODULE]
    done = subprocess.run(command, env={**os.environ, "GOBIN": str(own_folder())}, timeout=GO_S, check=False)
    if done.returncode:
        print("that failed; Debian's nats-server is older and does as well", flush=True)
    return done.returncode == 0


def _apt_install(packages: Sequence[str]) -> bool:
    """Install by apt, or say what to do and return False."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        _explain(packages)
        return False
    if not _downloads(packages):
        print("apt-get update", flush=True)
        _apt(["apt-get", "update"])
    print(f"apt-get install {' '.join(packages)}: {_size(packages)}", flush=True)
    with _no_service_started():
        _apt([*_INSTALL, *packages])
    _disable(packages)
    return True


def _explain(packages: Sequence[str]) -> None:
    print(f"missing: {', '.join(packages)}. Installing them takes root and apt. On Debian or Ubuntu:")
    print(f"  sudo apt-get update && sudo apt-get install --no-install-recommends {' '.join(packages)}")
    print(f"  sudo systemctl disable --now {' '.join(packages)}   # unless you want them as system services")
    if "nats-server" in packages:
        print(f"nats-server can also be built, without root, where Go is (`make services` then does it): {NATS_MODULE}")
    print(f"elsewhere: put {', '.join(packages)} on PATH by your system's own means")


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


def _disable(packages: Sequence[str]) -> None:
    """Packages enable their services for the next boot: take that back. They were not installed before, so nobody
    chose it."""
    systemctl = shutil.which("systemctl")
    if systemctl:
        subprocess.run([systemctl, "--quiet", "disable", *packages], stderr=subprocess.DEVNULL, timeout=60, check=False)
