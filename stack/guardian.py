"""The guardian: a small process that outlives its supervisor and ends whatever that one left running.

Both hold an end of one pipe. Each child of the supervisor writes its process group into the pipe itself before it
becomes the program it is to be, and holds the pipe until then: there is no moment at which a running child is unknown.
The supervisor strikes off groups that ended. The pipe ends when the last writer is gone, however it went; then the
groups still listed are killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from core.commands import child

END_S: Final = 5.0

_REPORT: Final = 'echo "+$$" >&0 && exec "$@" </dev/null'
"""What a child does first; its standard input is the pipe."""


class Guardian:
    """The supervisor's side. `inherit` are descriptors to hold until all groups have ended, such as a lock's."""

    def __init__(self, inherit: Sequence[int] = ()) -> None:
        reading, self._writing = os.pipe()
        try:
            self._process = subprocess.Popen(
                child("stack.guardian"),
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=inherit,
            )
        finally:
            os.close(reading)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pipe(self) -> int:
        """The standard input to start a child with."""
        return self._writing

    @staticmethod
    def reporting(argv: Sequence[str]) -> list[str]:
        """The command that reports itself and then becomes `argv`, under the same process id. It must be started with
        `pipe` as its standard input and lead a session of its own."""
        return ["/bin/sh", "-c", _REPORT, "sh", *argv]

    def forget(self, group: int) -> None:
        """Strike off a group that has ended: its number may come back as another's."""
        with suppress(BrokenPipeError):
            os.write(self._writing, b"-%d\n" % group)

    def close(self) -> None:
        """End the guardian, and with it any group not forgotten. Idempotent."""
        if self._writing < 0:
            return
        os.close(self._writing)
        self._writing = -1
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def watch(descriptor: int) -> None:
    """Read groups from `descriptor` until it ends, then kill those that are left."""
    groups: set[int] = set()
    with os.fdopen(descriptor, "rb") as lines:
        for line in lines:
            group = int(line[1:])
            if line.startswith(b"+"):
                groups.add(group)
            else:
                groups.discard(group)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watch(sys.stdin.fileno())
