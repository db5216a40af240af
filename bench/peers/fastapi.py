"""FastAPI + FastStream on uvicorn: what most people who write Python would take.

Its libraries have pins of their own, which must never meet ours, so it runs in an environment of its own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec

from bench import wrk
from bench.client import Address
from bench.load import Request, rate_request
from bench.peers import peer
from bench.peers.building import Recipe, ask
from core.commands import ROOT, remedy
from core.rates import Rate
from core.settings import Durability
from stack.parts import Part
from stack.topology import Broker

ENVIRONMENT: Final = ROOT / ".venv" / "peers"
REMEDY: Final = remedy("make peers", "in a clone of Fanrate, make peers")
_ELSEWHERE: Final = "its Python environment belongs to a clone of Fanrate, and this is none"
_APP: Final = Path(__file__).with_name("fastapi_app.py")
_TELL: Final = (
    "import json, platform, sys; from importlib.metadata import version; "
    "print(json.dumps({'python': platform.python_version(), **{name: version(name) for name in sys.argv[1:]}}))"
)
_LIBRARIES: Final = ("fastapi", "faststream", "uvicorn", "uvloop", "nats-py", "aiokafka", "aio-pika", "redis")


class FastApi:
    name = "fastapi-faststream"
    title = "FastAPI + FastStream"
    language = "Python"
    brokers: tuple[Broker, ...] = ("nats", "kafka", "rabbit", "redis")
    programs: tuple[str, ...] = ("python", *_LIBRARIES)
    confirmed = HTTPStatus.OK
    script: wrk.Script = "rate"
    recipe: Recipe | None = None

    def check(self) -> None:
        """It answers, with all its libraries: an environment may be half made."""
        _versions(_python(), _LIBRARIES)

    def part(
        self,
        directory: Path,
        *,
        broker_url: str,
        topic: str,
        durability: Durability,
        name: str,
        port: int | None = None,
    ) -> Part:
        broker = peer.broker_of(broker_url)
        peer.check_asked(self.title, self.brokers, broker, durability)
        port = peer.chosen(port)
        arguments = [str(port), broker_url, peer.destination(broker, topic)]
        # -P: the folder of the script, whose modules have the libraries' names, is not searched.
        return peer.part(directory, name, port, [str(_python()), "-P", str(_APP), *arguments])

    def versions(self) -> dict[str, str]:
        try:
            return _versions(_python(), _LIBRARIES)
        except peer.NotBuilt:
            return {}

    def request(self, address: Address, rate: Rate) -> Request:
        return rate_request(address, rate)


def _python() -> Path:
    """Of the environment; raises NotBuilt."""
    python = ENVIRONMENT / "bin" / "python"
    if not os.path.exists(python):
        raise peer.NotBuilt(remedy(f"there is no Python environment {ENVIRONMENT}", _ELSEWHERE), REMEDY)
    return python


@cache
def _versions(python: Path, names: Sequence[str]) -> dict[str, str]:
    """Raises NotBuilt."""
    try:
        return msgspec.json.decode(ask([python, "-c", _TELL, *names]), type=dict[str, str])
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as exc:
        raise peer.NotBuilt(f"the Python environment {ENVIRONMENT} is not whole ({_reason(exc)})", REMEDY) from exc


def _reason(exc: Exception) -> str:
    """The last line of a traceback, where there is one."""
    said = exc.stderr.strip() if isinstance(exc, subprocess.CalledProcessError) else ""
    return said.splitlines()[-1] if said else str(exc)
