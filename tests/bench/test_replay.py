"""The replay against the embedded service, and against what is not one."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from importlib.resources import files

import pytest
from aiohttp import web

from bench.client import Address
from bench.commands import main
from bench.ledger import Fault, Ledger
from bench.load import closed_loop, rate_request
from bench.reading import Reader, await_counted
from bench.replay import ReplayFailed, lines, ratings, replay

Serve = Callable[[Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]], Awaitable[Address]]


def test_the_file_has_the_totals_that_come_with_it() -> None:
    told = json.loads(files("bench").joinpath("data", "ratings.totals.json").read_text())
    rates = [rate for _, rate in ratings()]
    subjects = {subject for subject, _ in ratings()}
    assert told == {
        "count": len(rates),
        "sum": sum(rates),
        "subjects": len(subjects),
        "min": min(rates),
        "max": max(rates),
    }


async def test_a_replay_closes_its_ledger_again_and_again_beside_other_traffic(url: str) -> None:
    address = Address.of(url)
    stop = asyncio.Event()
    others = itertools.cycle([rate_request(address, (f"other-{number}", 7)) for number in range(100)])
    traffic = asyncio.create_task(closed_loop(address, others, Ledger(), connections=2, stop=stop))
    for _ in range(2):
        result = await replay(url, 1)
        assert result.verdict.clean
        assert result.verdict.confirmed == result.verdict.counted == 5307
        assert lines(result)[-1] == "LOSS 0 DUP 0"
    stop.set()
    assert (await traffic).statuses[200] > 0


async def test_a_stranger_on_its_subjects_is_found(url: str) -> None:
    """What the ledger does not know of must show, or LOSS 0 DUP 0 says nothing."""
    address = Address.of(url)
    reader = Reader(address)
    before = await reader.read(["film-1", "film-2"])
    ledger = Ledger()
    await closed_loop(address, iter([rate_request(address, ("film-1", 5))]), ledger, connections=1)
    await closed_loop(address, iter([rate_request(address, ("film-2", 5))]), Ledger(), connections=1)
    verdict = await await_counted(reader, ledger, before)
    assert [(found.fault, found.subject, found.amount) for found in verdict.findings] == [(Fault.PHANTOM, "film-2", 1)]
    ledger.confirm([("film-1", 5)])
    ledger.send([("film-1", 5)])
    verdict = await await_counted(reader, ledger, before, patience_s=0.5)
    assert verdict.loss == 1
    reader.close()


async def test_all_subjects_come_in_pages(url: str) -> None:
    address = Address.of(url)
    names = sorted(f"film-{number}" for number in range(1500))
    requests = iter([rate_request(address, (name, 5)) for name in names])
    report = await closed_loop(address, requests, Ledger(), connections=8)
    assert report.statuses == {200: 1500}
    reader = Reader(address)
    async with asyncio.timeout(10):
        while [row.subject for row in await reader.all_subjects()] != names:
            await asyncio.sleep(0.05)
    reader.close()


async def test_a_service_that_confirms_nothing_ends_the_replay(serve: Serve) -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(status=503)
        if request.path == "/rates":
            return web.json_response({"count": 0, "sum": 0, "distribution": {}})
        return web.json_response({"type": "urn:fanrate:problem:unknown-subject"}, status=404, dumps=_compact)

    address = await serve(handle)
    with pytest.raises(ReplayFailed, match=r"nothing was confirmed for 0\.5 s: \d+ answers of 503"):
        await replay(f"http://{address}", 1, patience_s=0.5)


def _compact(content: object) -> str:
    return json.dumps(content, separators=(",", ":"))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--url", "http://127.0.0.1:1"], 1, "no Fanrate can be read at http://127.0.0.1:1: no connection to"),
        (["--url", "https://127.0.0.1"], 2, "--url: 'https://127.0.0.1' is not of the form http://HOST:PORT"),
        (["--url", "http://127.0.0.1:99999"], 2, "--url: 'http://127.0.0.1:99999': "),
    ],
)
def test_what_cannot_be_reached_is_one_line(
    arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", *arguments]) == code
    written = capsys.readouterr().err
    assert written.startswith(told)
    assert written.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["replay", "--times", "0"], ["replay", "--times", "-1"], ["spine", "--only", "x"], []]
)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_with:
        main(arguments)
    assert exit_with.value.code == 2


async def test_another_service_is_one_line(serve: Serve) -> None:
    async def handle(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="It works!")

    address = await serve(handle)
    with pytest.raises(ReplayFailed, match="GET /rates is not a summary of rates"):
        await replay(f"http://{address}", 1)
