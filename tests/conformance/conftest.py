"""Every kind of broker that the project brings goes through the suite, on the event loop that the services use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

import brokers.rabbit
from brokers.conformance.fixtures import *  # noqa: F403  # fixtures are found by their names in this module
from brokers.conformance.harness import Kind
from tests.conformance.kinds import KINDS


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(autouse=True)
def _settled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What RabbitMQ writes late matters where its server is killed."""
    if "harness" in request.fixturenames:
        monkeypatch.setattr(brokers.rabbit, "_SETTLING_S", 0.0)
