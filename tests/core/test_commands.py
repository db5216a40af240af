"""Every command line of the clone tells the version, and its own name as it was typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.commands import ROOT, child, remedy
from core.version import __version__


def call(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("module", ["api", "bench", "fanrate", "process", "stack"])
def test_version_and_name(module: str) -> None:
    assert call(module, "--version").stdout == f"fanrate {__version__}\n"
    assert call(module, "--help").stdout.startswith(f"usage: python -m {module} ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["redrive", "--help"], "python -m fanrate redrive"),
        (["process", "redrive", "--help"], "python -m fanrate process redrive"),
        (["up", "--help"], "python -m fanrate up"),
    ],
)
def test_the_name_of_a_command_within_another(arguments: list[str], named: str) -> None:
    assert call("fanrate", *arguments).stdout.startswith(f"usage: {named} ")


@pytest.mark.parametrize("arguments", [[], ["pigeon"], ["--port", "1"]])
def test_what_is_no_command(arguments: list[str]) -> None:
    done = call("fanrate", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_in_a_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert remedy("make run", "fanrate run") == "make run"
    monkeypatch.chdir(ROOT)
    assert child("api") == [sys.executable, "-m", "api"]
    monkeypatch.chdir(tmp_path)
    assert child("api") == [sys.executable, "-P", "-m", "api"]
