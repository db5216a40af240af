"""Every kind of broker that the project brings goes through the suite."""

from __future__ import annotations

import pytest

from brokers.conformance.fixtures import *  # noqa: F403  # fixtures are found by their names in this module
from brokers.conformance.harness import Kind
from tests.conformance.kinds import KINDS


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found
