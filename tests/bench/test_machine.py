"""What others take of the machine, held against a program that takes a whole processor."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench import machine
from bench.machine import Busy, Moment, busy_between

BURNT_S = 1.0


def test_a_burner_is_another_unless_it_is_measured() -> None:
    """Both readings are of one time, so what else goes on is in both."""
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        roles = {"burner": [burner.pid]}
        before, before_with = machine.moment({}), machine.moment(roles)
        used_before_s = before_with.ours_s - before.ours_s
        time.sleep(BURNT_S)
        after, after_with = machine.moment({}), machine.moment(roles)
    finally:
        burner.kill()
        burner.wait()
    burnt_s = after_with.ours_s - after.ours_s - used_before_s
    assert burnt_s > 0.1
    alone, measured = busy_between(before, after), busy_between(before_with, after_with)
    share = burnt_s / ((after.at_s - before.at_s) * (os.cpu_count() or 1))
    assert alone.others > 0.5 * share
    assert alone.others - measured.others > 0.5 * min(share, alone.others)


@pytest.mark.parametrize(
    ("worked_s", "stolen_s", "ours_s", "busy"),
    [(10, 0, 10, False), (10, 0, 7, False), (10, 0, 4, True), (10, 3, 7, True), (5, 6, 5, True)],
)
def test_what_counts_as_busy(worked_s: float, stolen_s: float, ours_s: float, busy: bool) -> None:
    """Of a hundred seconds of all processors together."""
    after_s = 100 / (os.cpu_count() or 1)
    found = busy_between(Moment(0, 0, 0, 0), Moment(after_s, worked_s, stolen_s, ours_s))
    assert found.busy is busy
    assert found.others == pytest.approx((worked_s - ours_s) / 100)
    assert found.steal == pytest.approx(stolen_s / 100)


def test_a_busy_machine_is_told() -> None:
    assert str(Busy(0.25, 0.1, 3.0)) == "others took 25% of the processors, the host 10%"


LIMITS = """\
import resource
from bench.machine import allow_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({}, {}))
print(allow_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "told"),
    [(256, 2000, "1936 2000 2000"), (256, 20_000, "16320 16384 20000"), (20_000, 20_000, "19936 20000 20000")],
)
def test_as_many_files_as_may_be(soft: int, hard: int, told: str) -> None:
    code = LIMITS.format(soft, hard)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == told
