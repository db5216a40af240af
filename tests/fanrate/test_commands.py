"""Each command tells what it does not know with its own usage, not with that of all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fanrate.commands import COMMANDS
from tests.fanrate.conftest import ROOT


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_usage(name: str) -> None:
    command = [sys.executable, "-m", "fanrate", name, "FOO=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: python -m fanrate {name} ")
    assert "FOO=1" in done.stderr.splitlines()[-1]
