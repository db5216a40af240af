import pytest

pytest.register_assert_rewrite("brokers.conformance")

from fanrate_sqlite import SqliteBroker  # noqa: E402

from brokers.conformance.fixtures import *  # noqa: E402, F403
from brokers.conformance.harness import Kind  # noqa: E402
from fanrate import Endpoint  # noqa: E402


@pytest.fixture(scope="session")
def kind(tmp_path_factory):
    path = tmp_path_factory.mktemp("sqlite") / "broker.db"

    def make(_, **options):
        return SqliteBroker(Endpoint.of(f"sqlite:///{path}"), **options)

    return Kind("sqlite", make)
