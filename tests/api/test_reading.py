"""The calls that read, and Idempotency-Key."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import aiohttp

from tests.api.conftest import counted


async def test_summaries(client: aiohttp.ClientSession) -> None:
    started = datetime.now(UTC)
    rates = [{"rate": 10, "subject": "film-1"}, {"rate": 20, "subject": "film-1"}, {"rate": 90, "subject": "film-2"}]
    await client.post("/rates", json=rates)
    totals = await counted(client, 3)
    minutes = totals.pop("minutes")
    assert totals == {
        "count": 3,
        "sum": 120,
        "mean": 40.0,
        "min": 10,
        "max": 90,
        "distribution": {"10": 1, "20": 1, "90": 1},
    }
    assert sum(minutes.values()) == 3
    assert started.strftime("%Y-%m-%dT%H") in next(iter(minutes))
    film = await (await client.get("/rates/film-1")).json()
    assert (film["subject"], film["count"], film["mean"]) == ("film-1", 2, 15.0)


async def test_nothing_counted_yet(client: aiohttp.ClientSession) -> None:
    totals = await (await client.get("/rates")).json()
    empty = {"count": 0, "sum": 0, "mean": None, "min": None, "max": None, "distribution": {}, "minutes": {}}
    assert totals == empty
    async with client.get("/rates/film") as response:
        assert (response.status, (await response.json())["type"]) == (404, "urn:fanrate:problem:unknown-subject")


async def test_pages_of_subjects(client: aiohttp.ClientSession) -> None:
    await client.post("/rates", json=[{"rate": 1, "subject": f"film-{number:02}"} for number in range(25)])
    await counted(client, 25)
    names: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await (await client.get("/subjects", params={"after": after, "limit": 10})).json()
        names += [row["subject"] for row in page["subjects"]]
        after = page["after"]
    assert names == [f"film-{number:02}" for number in range(25)]


async def test_top(client: aiohttp.ClientSession) -> None:
    await client.post("/rates", json=[{"rate": 1, "subject": "often"}] * 3 + [{"rate": 100, "subject": "well"}])
    await counted(client, 4)
    assert (await (await client.get("/top?n=1")).json())["subjects"] == [{"subject": "often", "count": 3, "mean": 1.0}]
    assert (await (await client.get("/top?n=1&by=mean")).json())["subjects"][0]["subject"] == "well"


async def test_a_key_counts_once_and_is_always_answered_200(client: aiohttp.ClientSession) -> None:
    key = {"Idempotency-Key": "order-66"}
    for _ in range(3):
        assert (await client.post("/rate?rate=5", headers=key)).status == 200
    assert {(await each).status for each in [client.post("/rate?rate=5", headers=key) for _ in range(5)]} == {200}
    await asyncio.gather(*(client.post("/rate", json={"rate": 5}, headers=key) for _ in range(10)))
    await counted(client, 1)
    assert (await client.post("/rate?rate=6", headers=key)).status == 200
    await client.post("/rates", json=[5], headers=key)
    await client.post("/rates", json=[5], headers=key)
    totals = await counted(client, 3)
    assert totals["distribution"] == {"5": 2, "6": 1}, "other rates and another call are another identity"


async def test_page_health_and_metrics(client: aiohttp.ClientSession) -> None:
    page = await (await client.get("/")).text()
    assert "curl" in page
    assert (await client.get("/healthz")).status == 200
    assert (await (await client.get("/readyz")).json())["checks"] == {"publishing": "ok", "store": "ok"}
    await client.post("/rate?rate=5")
    metrics = await (await client.get("/metrics")).text()
    assert "fanrate_confirmed_rates_total 1.0" in metrics
    async with client.head("/rates") as response:
        assert (response.status, await response.read()) == (200, b"")
