"""Restarts under the dispatches that are not the default."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.counting import GROUP
from core.errors import BrokerError
from stack import parts
from stack.supervisor import Stack
from tests.servers import needs
from tests.trouble.conftest import Choose
from tests.trouble.load import load_on
from tests.trouble.served import ServedWorld

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.smoke("nats")
async def test_topics(served: ServedWorld, choose: Choose[int]) -> None:
    async with served.services("spread", topics=3) as services, services.load() as load:
        async with served.adapter() as broker:
            with pytest.raises(BrokerError):
                await broker.subscribe(services.topic, GROUP)
        for _ in range(choose(1, 5)):
            await services.api.stop()
            await services.api.start()
            load.back("the replica")
            await load.flows()
            await services.process.kill()
            await services.process.start()
            await load.grows("counted by the process", services.counted)
            await served.broker.kill()
            await served.broker.start()
            load.back("the broker")
            await load.flows()
        await load.stop()
        await load.settle()


async def test_inline(tmp_path: Path, choose: Choose[int]) -> None:
    """No broker: the store is what a replica waits for."""
    needs("redis-server")
    async with Stack(tmp_path) as stack:
        redis = await stack.start(parts.redis(tmp_path))
        env = {"DISPATCH": "inline"}
        api = await stack.start(parts.api(tmp_path, broker_url="", store_url=redis.url, env=env))
        async with load_on(api.url) as load:
            for _ in range(choose(1, 5)):
                await api.stop()
                await api.start()
                load.back("the replica")
                await load.flows()
                await redis.kill()
                await load.run_for(0.5)
                await redis.start()
                load.back("the store")
                await load.flows()
            await load.stop()
            await load.settle()
