"""CPU time and memory by role, from the operating system's accounts, children included (nginx' workers, Erlang's)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Account:
    """One role at one moment: CPU seconds used so far, user and system, and resident bytes."""

    cpu_s: float
    rss_bytes: int


def read(roles: Mapping[str, Sequence[int]]) -> dict[str, Account]:
    """The account of each role, summed over its processes' ids; a process that is gone adds nothing."""
    return {role: _sum(_with_children(pids)) for role, pids in roles.items()}


def cpu_used_s(before: Mapping[str, Account], after: Mapping[str, Account]) -> dict[str, float]:
    """CPU seconds that each role used between two readings."""
    return {role: account.cpu_s - before[role].cpu_s for role, account in after.items()}


def own_cpu_s() -> float:
    """CPU seconds of this process so far, and of its children that ended, such as wrk."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _with_children(pids: Sequence[int]) -> dict[int, psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        try:
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                found[each.pid] = each
        except psutil.NoSuchProcess:
            continue
    return found


def _sum(processes: Mapping[int, psutil.Process]) -> Account:
    cpu_s, rss_bytes = 0.0, 0
    for process in processes.values():
        try:
            with process.oneshot():
                times = process.cpu_times()
                rss_bytes += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        cpu_s += times.user + times.system + times.children_user + times.children_system
    return Account(cpu_s, rss_bytes)
