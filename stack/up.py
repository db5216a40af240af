"""`python -m stack up`: a topology in the foreground, until a signal or until a part is beyond help."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from brokers import open_broker
from core import logs, program
from core.endpoints import Endpoint
from core.errors import FanrateError
from core.lifecycle import Deadline, on_signals
from core.sections import load
from core.settings import ApiSettings, Logging, ProcessSettings
from stack.member import Member, PartFailed, PortTaken
from stack.parts import NO_ACCESS
from stack.ports import is_free
from stack.programs import MISSING_PROGRAM, MissingProgram
from stack.supervisor import Stack
from stack.topology import Running, Topology, bring_up

LOCK_S: Final = 2.0

_LOCK: Final = "lock"
_OWN: Final = ("BROKER_URL", "STORE_URL", "READ_TOPICS", *NO_ACCESS)
"""Settings of the services that `up` decides itself."""


class AlreadyUp(FanrateError):
    """Another `up` has the directory."""


def main(topology: Topology, directory: Path, *, keep: bool) -> int:
    """Run `topology` with its files in `directory`, until a signal; the exit code. Without `keep` the data of an
    earlier run is thrown away first."""
    try:
        topology.check_programs()
        _check_settings(topology, directory)
    except FanrateError as exc:
        print(f"fanrate: {exc}", file=sys.stderr)
        return MISSING_PROGRAM if isinstance(exc, MissingProgram) else program.WRONG_USAGE
    if passed_over := [name for name in _OWN if os.environ.get(name)]:
        _say(f"{' and '.join(passed_over)} of the environment: passed over, `up` starts servers of its own")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / _LOCK).touch()
    except OSError as exc:
        print(f"fanrate: --directory {directory}: {exc.strerror}", file=sys.stderr)
        return program.WRONG_USAGE
    return program.run(lambda: _run(topology, directory, keep=keep))


def _check_settings(topology: Topology, directory: Path) -> None:
    """Raises what the services would end of, before anything is started."""
    load(ApiSettings)
    part = topology.broker_part(directory)
    if part is None:
        _say("DISPATCH=inline: each replica counts by itself; there are no processes and no broker")
        return
    load(ProcessSettings)
    open_broker(Endpoint.of(part.url), name="fanrate-up", durability=topology.durability)


async def _run(topology: Topology, directory: Path, *, keep: bool) -> int:
    logs.configure(load(Logging), service="stack")
    asked = asyncio.Event()
    async with _alone(directory) as lock:
        _check_ports(topology)
        if not keep:
            for old in ("data", "logs"):
                shutil.rmtree(directory / old, ignore_errors=True)
        on_signals(asked)
        async with Stack(directory, say=_say, inherit=[lock]) as stack:
            failure = await _until_the_end(topology, stack, asked)
            _say("stopping, from the outside in; a second Ctrl-C kills all" if failure is None else str(failure))
    _say("stopped")
    return 0 if failure is None else program.FOUND_SOMETHING


async def _until_the_end(topology: Topology, stack: Stack, asked: asyncio.Event) -> PartFailed | PortTaken | None:
    """What it ended of, or None if it was asked to."""
    stop = asyncio.create_task(asked.wait(), name="wait for a signal")
    up = asyncio.create_task(_bring_up(topology, stack), name="bring up")
    try:
        await _first(stop, up)
        if stop.done():
            return None
        up.result()
        await _first(stop, stack.failed)
        return None if stop.done() else stack.failed.result()
    except (PartFailed, PortTaken) as exc:
        return exc
    finally:
        stop.cancel()
        up.cancel()
        await asyncio.gather(stop, up, return_exceptions=True)


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _bring_up(topology: Topology, stack: Stack) -> None:
    running = await bring_up(topology, stack)
    _say(table(running.stack.members))
    _say(addresses(running))
    if topology.durability == "relaxed" and (topology.broker == "nats+core" or running.broker is None):
        _say("at most once: what is answered 200 may be lost, see docs/delivery.md")
    _say(f"ready {' '.join(running.urls)}")


def table(members: Sequence[Member]) -> str:
    """The parts as aligned lines: name, pid, address, log. A process' address is that of its health and metrics."""
    rows = [("PART", "PID", "ADDRESS", "LOG")]
    rows += [(member.name, str(member.pid), member.address, _shown(member.log)) for member in members]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def addresses(running: Running) -> str:
    """Where broker and store are, as the settings that further programs need."""
    settings = (
        {"STORE_URL": running.redis.url}
        if running.broker is None
        else {
            "BROKER_URL": running.broker.url,
            "STORE_URL": running.redis.url,
        }
    )
    return " ".join(f"{name}={url}" for name, url in settings.items())


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _check_ports(topology: Topology) -> None:
    """Raises PortTaken before anything is started."""
    assert topology.port is not None
    replicas = topology.replicas if topology.balancer is None else 1
    for port in range(topology.port, topology.port + replicas):
        if not is_free(port):
            raise PortTaken(port)


@asynccontextmanager
async def _alone(directory: Path) -> AsyncIterator[int]:
    """Hold the directory's lock; raises AlreadyUp. Waits a little for the guardian of one that was killed."""
    with (directory / _LOCK).open("a+") as lock:
        deadline = Deadline(LOCK_S)
        while not _locks(lock.fileno()):
            if not deadline.left_s:
                lock.seek(0)
                raise AlreadyUp(f"`up` is running here already (pid {lock.read().strip()}): stop that one first")
            await asyncio.sleep(0.05)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock.fileno()


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _say(text: str) -> None:
    print(text, flush=True)
