"""How a program of ours ends, as the one who started it sees it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PRINTS = """
from core import program
async def main():
    print("x" * {length})
program.run(main)
"""


@pytest.mark.parametrize("length", [1, 1_000_000])
def test_a_reader_that_has_gone_ends_it_without_a_traceback(length: int):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", PRINTS.format(length=length)],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")
