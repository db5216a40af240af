"""`make compose-check` where there is nothing to check with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stack.programs import MISSING_PROGRAM
from tests.deploy.files import ROOT


def test_it_says_plainly_that_no_engine_answers(tmp_path: Path) -> None:
    """Whatever this machine has: there is no engine at that address, and perhaps no program to ask it with."""
    env = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/engine"}
    tried = subprocess.run(
        [sys.executable, "-m", "tests.deploy.check", "--broker", "nats"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert tried.returncode == MISSING_PROGRAM
    assert tried.stderr.startswith("no engine answers: ")
    assert "compose 2.33" in tried.stderr
    assert "Traceback" not in tried.stderr
