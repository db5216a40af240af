"""How busy the thread of a generator is: what decides whether a wait was the server's or its own."""

from __future__ import annotations

import os
import threading
import time


class Pulse:
    """The share of time in which this thread ran, or wanted to and had no processor.

    Linux tells both in `schedstat` of the thread, in nanoseconds (Documentation/scheduler/sched-stats.rst); without it
    only the running counts. Belongs to the thread that makes it.
    """

    def __init__(self) -> None:
        self._file = -1
        if os.path.exists(path := f"/proc/self/task/{threading.get_native_id()}/schedstat"):
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._at_s, self._busy_s = time.monotonic(), self._read_s()

    def share(self) -> float:
        """0 to 1, since the last call."""
        at_s, busy_s = time.monotonic(), self._read_s()
        share = (busy_s - self._busy_s) / max(1e-9, at_s - self._at_s)
        self._at_s, self._busy_s = at_s, busy_s
        return min(1.0, share)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read_s(self) -> float:
        if self._file < 0:
            return time.thread_time()
        ran_ns, waited_ns, _ = os.pread(self._file, 100, 0).split()
        return (int(ran_ns) + int(waited_ns)) / 1e9
