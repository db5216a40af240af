"""What others may import: all of the broker port, none of the rest, with types; and the example needs no more."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import brokers.base
import core.errors
import fanrate
from tests.fanrate.conftest import ROOT, Installed
from tests.fanrate.test_contents import ROOMS

EXAMPLE = ROOT / "tests" / "example_broker"
OPEN = {"fanrate", "brokers.conformance"}
NOT_LOADED = {"aiohttp", "aiokafka", "asyncio", "nats", "pamqp", "pydantic", "redis", "structlog", "uvloop"}
USES = """
from fanrate import Broker, Endpoint, Subscription
from fanrate_sqlite import SqliteBroker

broker: Broker = SqliteBroker(Endpoint.of("sqlite:///a"), name="typed")

async def subscribed() -> Subscription:
    return await broker.subscribe("topic", "group")
"""


def test_it_has_all_that_the_port_speaks_of() -> None:
    words = set(re.findall(r"\b[A-Z]\w+\b", (ROOT / "brokers" / "base.py").read_text()))
    spoken_of = {word for word in words if hasattr(core.errors, word)}
    assert len(spoken_of) >= 5
    types = {name for name, value in vars(brokers.base).items() if getattr(value, "__module__", "") == "brokers.base"}
    assert spoken_of | types | {"Durability", "Endpoint", "SettingsError", "__version__"} == set(fanrate.__all__)


def test_the_page_names_all_of_it() -> None:
    page = (ROOT / "docs" / "write-a-broker.md").read_text()
    assert [name for name in fanrate.__all__ if name not in page and name != "__version__"] == []


def test_to_import_it_is_light() -> None:
    code = "import sys; from fanrate import *; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert not NOT_LOADED & set(done.stdout.split())


@pytest.mark.parametrize("file", sorted(EXAMPLE.glob("*.py")), ids=lambda file: file.name)
def test_the_example_stands_on_nothing_else(file: Path) -> None:
    imported = {
        name
        for node in ast.walk(ast.parse(file.read_text()))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else _names(node))
        if name.partition(".")[0] in ROOMS
    }
    assert {
        name for name in imported if not any(name == open_ or name.startswith(f"{open_}.") for open_ in OPEN)
    } == set()


def _names(node: ast.AST) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def test_a_package_type_checks_against_the_wheel(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "fanrate_sqlite.py").write_text((EXAMPLE / "fanrate_sqlite.py").read_text())
    (tmp_path / "uses.py").write_text(USES)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(installed.python), "uses.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
