"""CPU time and memory by role, from the operating system's accounts, children included (nginx' workers, Erlang's).

A child that ended is in the account of its parent once that has waited for it, and stands in the list until then. One
whose parent ended first is found by its process group, for each part of a stack is the leader of one. What became
another's child, left the group and ended has no account that anybody could read: nor has a child whose parent ignores
SIGCHLD. Between two readings nothing is counted twice: what a child had used moves to its parent as it ends.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_RESET_PEAK = "5"
"""Documentation/filesystems/proc.rst, clear_refs."""


@dataclass(frozen=True, slots=True)
class Account:
    """One role at one moment: CPU seconds used so far, user and system; resident bytes; and the most that were resident
    since `reset_peaks`, summed over processes that may have had theirs at different times."""

    cpu_s: float
    rss_bytes: int
    peak_bytes: int = 0


def read(roles: Mapping[str, Sequence[int]]) -> dict[str, Account]:
    """The account of each role, summed over its processes' ids; a process that is gone adds nothing."""
    return {role: _sum(_with_children(pids)) for role, pids in roles.items()}


def reset_peaks(roles: Mapping[str, Sequence[int]]) -> bool:
    """Let the peaks of all roles begin now. False where the system does not allow that for one of the processes, or
    knows no peaks: theirs are since they started, or what is resident as they are read."""
    refused = [process for pids in roles.values() for process in _with_children(pids) if not _reset_peak(process.pid)]
    return not refused


def cpu_used_s(before: Mapping[str, Account], after: Mapping[str, Account]) -> dict[str, float]:
    """CPU seconds that each role used between two readings."""
    return {role: account.cpu_s - before[role].cpu_s for role, account in after.items()}


def own_cpu_s() -> float:
    """CPU seconds of this process so far, and of its children that ended, such as wrk."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _with_children(pids: Sequence[int]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for pid in (*pids, *_in_groups(pids)):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                found[each.pid] = each
    return list(found.values())


def _in_groups(leaders: Sequence[int]) -> Iterator[int]:
    """The processes in the process groups that `leaders` lead, or led: a group outlives its leader."""
    if not leaders:
        return
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) in leaders:
                yield pid


def _sum(processes: Iterable[psutil.Process]) -> Account:
    cpu_s, rss_bytes, peak_bytes = 0.0, 0, 0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        cpu_s += times.user + times.system + times.children_user + times.children_system
        with suppress(psutil.NoSuchProcess):  # it has ended and nobody waited for it: of memory there is none
            resident_bytes = process.memory_info().rss
            rss_bytes += resident_bytes
            peak_bytes += _peak_bytes(process.pid) or resident_bytes
    return Account(cpu_s, rss_bytes, peak_bytes)


def _peak_bytes(pid: int) -> int:
    """0 where the system does not tell."""
    with suppress(OSError):
        if found := _PEAK.search(Path(f"/proc/{pid}/status").read_text()):
            return int(found[1]) * 1024
    return 0


def _reset_peak(pid: int) -> bool:
    """One that is gone, or has ended, has no peak to reset."""
    if not Path("/proc/self/clear_refs").exists():
        return False
    try:
        Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False
    return True
