"""CPU time by role, held against a child that burns a known amount of it."""

from __future__ import annotations

import os
import subprocess
import sys

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
