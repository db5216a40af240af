"""What a log shows, and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

RAISES = """
import structlog
from core.logs import configure
from core.sections import load
from core.settings import Logging

def connect(password):
    raise RuntimeError("no")

configure(load(Logging), service="test")
secret = "".join(["ca", "nary"])
try:
    connect(secret)
except RuntimeError:
    structlog.get_logger().exception("it_failed")
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_local_variables(log_format: str) -> None:
    """Also where a library is installed that could draw them."""
    done = subprocess.run(
        [sys.executable, "-c", RAISES],
        env={**os.environ, "LOG_FORMAT": log_format},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "it_failed" in done.stderr
    assert "RuntimeError: no" in done.stderr
    assert "canary" not in done.stderr
