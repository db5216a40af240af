"""A broker that comes with a package of its own: installed, certified by the suite, and used, without a change here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.client import Address
from bench.ledger import Ledger
from bench.load import closed_loop, rate_request
from bench.reading import Reader, Reading, await_counted
from stack import parts
from stack.supervisor import Stack
from tests.servers import needs

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "example_broker"
INSTALL = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir"]
CERTIFY = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which it is installed beside the project."""
    folder = tmp_path_factory.mktemp("third-party")
    source = shutil.copytree(EXAMPLE, folder / "source")
    subprocess.run([sys.executable, *INSTALL, "--target", folder / "site", source], check=True, timeout=60)
    return {**os.environ, "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{ROOT}"}


def test_it_passes_the_suite(installed: dict[str, str], tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    shutil.copytree(EXAMPLE, suite, ignore=shutil.ignore_patterns("fanrate_sqlite.py", "__pycache__"))
    command = [sys.executable, *CERTIFY, str(suite)]
    done = subprocess.run(command, cwd=suite, env=installed, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


async def test_services_run_on_it(installed: dict[str, str], tmp_path: Path) -> None:
    needs("redis-server")
    broker_url = f"sqlite:///{tmp_path / 'broker.db'}"
    async with Stack(tmp_path) as stack:
        redis = await stack.start(parts.redis(tmp_path))
        urls = {"broker_url": broker_url, "store_url": redis.url, "env": {"PYTHONPATH": installed["PYTHONPATH"]}}
        api = await stack.start(parts.api(tmp_path, **urls))
        await stack.start(parts.process(tmp_path, **urls))
        address, ledger = Address.of(api.url), Ledger()
        requests = (rate_request(address, (f"film-{number % 7}", number % 101)) for number in range(300))
        report = await closed_loop(address, requests, ledger, connections=4)
        reader = Reader(address)
        try:
            verdict = await await_counted(reader, ledger, Reading(0, {}))
        finally:
            reader.close()
    assert report.failed == 0
    assert verdict.clean, verdict.lines()
    assert verdict.counted == 300


def test_a_broker_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fanrate.brokers]\nbroken = no_such_module:Broker\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "BROKER_URL": "broken://somewhere"}
    command = [sys.executable, "-m", "process"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "BROKER_URL: the broker for broken:// cannot be loaded" in done.stderr
