"""Connections between services and broker that end in the middle of what they carry, again and again."""

from __future__ import annotations

import pytest

from tests.trouble.conftest import Choose
from tests.trouble.served import ServedWorld

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_connections_cut(served: ServedWorld, choose: Choose[float]) -> None:
    async with (
        served.proxy() as proxy,
        served.services("cut", broker_port=proxy.port) as services,
        services.load() as load,
    ):
        await load.grows("counted through the proxy", services.counted)
        standing = services.connections(proxy.port)
        proxy.cut()
        await load.run_for(choose(3, 60))
        proxy.mend()
        assert proxy.cuts >= choose(3, 60), "too few to mean anything"
        load.back("the way to the broker")
        await load.flows()
        await load.grows("counted through the proxy again", services.counted)
        report = await load.stop()
        assert set(report.statuses) <= {200, 503}
        assert report.broken == report.silent == 0
        await load.settle()
        assert services.connections(proxy.port) <= standing + 2
