"""CPU time by role, held against a child that burns a known amount of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from bench import accounts

BURN = """
import os, subprocess, sys, time
if len(sys.argv) > 1:
    subprocess.Popen([sys.executable, "-c", sys.argv[1]])
while time.process_time() < 0.3:
    pass
print("burnt", flush=True)
time.sleep(60)
"""


def test_children_count_with_their_role() -> None:
    before = accounts.read({"burner": [], "idle": [os.getpid()]})
    burner = subprocess.Popen([sys.executable, "-c", BURN, BURN], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert burner.stdout
        assert [burner.stdout.readline() for _ in range(2)] == [b"burnt\n"] * 2
        after = accounts.read({"burner": [burner.pid], "idle": [os.getpid()]})
    finally:
        os.killpg(burner.pid, 9)
        burner.communicate()
    used_s = accounts.cpu_used_s(before, after)
    assert 0.55 < used_s["burner"] < 2
    assert after["burner"].rss_bytes > 2 * 2**20


def test_a_process_that_is_gone_adds_nothing() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert accounts.read({"gone": [gone.pid]}) == {"gone": accounts.Account(0, 0)}


def test_this_process_and_its_ended_children_count_as_its_own() -> None:
    before_s = accounts.own_cpu_s()
    subprocess.run(
        [sys.executable, "-c", BURN.replace("time.sleep(60)", "")], capture_output=True, timeout=30, check=True
    )
    assert 0.25 < accounts.own_cpu_s() - before_s < 2


def test_a_child_that_ended_counts_whether_it_was_waited_for_or_not() -> None:
    """Until it is waited for it stands in the list of processes, after that in its parent's account."""
    lazy = BURN.replace(
        "time.sleep(60)", "sys.stdin.readline(); os.wait(); print('waited', flush=True); time.sleep(60)"
    )
    brief = "import time\nwhile time.process_time() < 0.3: pass"
    with _running(lazy, brief) as parent:
        assert parent.stdin
        assert parent.stdout
        assert parent.stdout.readline() == b"burnt\n"
        _until_ended(psutil.Process(parent.pid).children()[0])
        unwaited = accounts.read({"lazy": [parent.pid]})["lazy"].cpu_s
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == b"waited\n"
        waited = accounts.read({"lazy": [parent.pid]})["lazy"].cpu_s
    assert unwaited > 0.55
    assert waited == pytest.approx(unwaited, abs=0.05)


def test_a_child_whose_parent_went_is_found_by_its_group() -> None:
    leaves = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', sys.argv[1]])"
    with _running(leaves, BURN) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"burnt\n"
        parent.wait(10)
        left = accounts.read({"left": [parent.pid], "other": [os.getppid()]})["left"]
    assert 0.25 < left.cpu_s < 2
    assert left.rss_bytes > 2**20


def test_the_peak_of_memory_begins_anew() -> None:
    greedy = """
import sys
for size in (100, 20):
    data = bytearray(size << 20)
    del data
    print("held", flush=True)
    sys.stdin.readline()
"""
    with _running(greedy) as process:
        assert process.stdin
        assert process.stdout
        roles = {"greedy": [process.pid]}
        assert process.stdout.readline() == b"held\n"
        first = accounts.read(roles)["greedy"]
        assert accounts.reset_peaks(roles) is True
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"held\n"
        second = accounts.read(roles)["greedy"]
    assert first.rss_bytes < 60 << 20
    assert first.peak_bytes > 100 << 20
    assert 20 << 20 < second.peak_bytes < 60 << 20


@contextmanager
def _running(*code: str) -> Iterator[subprocess.Popen[bytes]]:
    """In a process group of its own, which is ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", *code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.communicate()


def _until_ended(process: psutil.Process) -> None:
    for _ in range(1000):
        if process.status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.01)
    raise AssertionError(process)
