"""Process groups. A part is ended as a whole group: nginx' workers outlive a killed master and keep the port."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from typing import Final

import psutil

END_S: Final = 5.0
_LOOK_S: Final = 0.01


async def exit_of(leader: subprocess.Popen[bytes]) -> int:
    """Wait for a group's first process to end; its exit code, negative for a signal.

    On any event loop, and without asyncio's own subprocesses: uvloop's inherit a second copy of their standard input,
    and a guardian's pipe would never end.
    """
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(leader.pid)
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return leader.wait()


def send(group: int, number: signal.Signals) -> None:
    """Send a signal to all of `group`, if there is any of it left."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


async def end(group: int) -> None:
    """Kill what is left of `group` and wait until it is gone, for at most END_S."""
    with suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            while lives(group):
                send(group, signal.SIGKILL)
                await asyncio.sleep(_LOOK_S)


def lives(group: int) -> bool:
    """Whether `group` has a process that is not a zombie: those hold nothing, and may wait long for their parent."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(_is_alive_in(process, group) for process in psutil.process_iter())


def _is_alive_in(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
