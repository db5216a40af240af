"""Ctrl-C ends every command with 130 and without a traceback, also while it is still importing."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest

from stack.ports import HOST, free_port
from tests.fanrate.conftest import ROOT

INTERRUPTED = 130
TIMEOUT_S = 20.0


def started(python_options: Sequence[str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, *python_options, "-m", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and what it said on standard error after the signal."""
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("api", "pydantic"),
        ("process", "msgspec"),
        ("replay", "uvloop"),
        ("up", "stack.probes"),
        ("run", "aiohttp"),
    ],
)
def test_while_it_imports(command: str, module: str) -> None:
    """The interpreter tells of each import as soon as it is done."""
    options = [] if command in ("api", "process") else ["--port" if command != "replay" else "--url", str(free_port())]
    process = started(["-X", "importtime"], "fanrate", command, *options)
    assert process.stderr is not None
    said = next((line for line in process.stderr if line.split()[-1] == module), None)
    code, rest = interrupted(process)
    assert said, f"{command} does not import {module}"
    assert code == INTERRUPTED, rest
    assert [line for line in rest.splitlines() if not line.startswith("import time:")] == []


@pytest.mark.parametrize("module", ["msgspec", "uvloop", "bench.lesson.run", "bench.commands"])
def test_while_the_bench_imports(module: str) -> None:
    """The last of them is there when the command begins: its event loop may just be made."""
    process = started(["-X", "importtime"], "bench", "generator", "--seconds", "60")
    assert process.stderr is not None
    assert next((line for line in process.stderr if line.split()[-1] == module), None)
    code, rest = interrupted(process)
    assert code == INTERRUPTED, rest
    assert [line for line in rest.splitlines() if not line.startswith("import time:")] in ([], ["", "interrupted"])


def test_the_bench_without_its_extra() -> None:
    hidden = "import runpy, sys; sys.modules['tqdm'] = None; runpy.run_module('bench', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", hidden], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 3
    assert done.stderr == "python -m bench needs tqdm, which is not installed: install fanrate[bench]\n"


def test_while_it_waits_for_an_answer() -> None:
    with socket.create_server((HOST, 0)) as silent:
        silent.settimeout(TIMEOUT_S)
        process = started([], "fanrate", "healthy", "--port", str(silent.getsockname()[1]))
        connection, _ = silent.accept()
        with connection:
            assert interrupted(process) == (INTERRUPTED, "")
