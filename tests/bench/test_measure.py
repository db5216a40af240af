"""`bench measure` against the embedded service, and against what is none."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys

import pytest
from aiohttp import web

from bench.client import Address
from bench.commands import main
from bench.ledger import Ledger, compare_totals
from bench.load import closed_loop
from bench.measure import Measured, MeasureFailed, lines, measure
from bench.reading import Reader
from tests.bench.conftest import Serve
from tests.bench.servers import requests


async def test_it_finds_what_a_service_takes_and_how_long_answers_take(url: str) -> None:
    measured = Measured(url, 8)
    stop = asyncio.Event()
    address = Address.of(url)
    others = asyncio.create_task(closed_loop(address, requests(address), Ledger(), connections=1, stop=stop))
    await measure(measured, rate=None, seconds=0.5)
    stop.set()
    await others
    assert measured.verdict
    assert measured.verdict.clean
    assert measured.verdict.counted == measured.peak.confirmed + measured.paced.confirmed
    assert measured.per_s == pytest.approx(measured.peak.confirmed_per_s / 2)
    told = lines(measured)
    assert re.fullmatch(
        r"full speed, 8 connections: [\d,]+ rates/s confirmed \(closed loop: no latencies\); .*", told[0]
    )
    assert told[-1] == "LOSS 0 DUP 0"


async def test_at_a_rate_there_is_a_schedule_only(url: str) -> None:
    measured = Measured(url, 4)
    await measure(measured, rate=200, seconds=0.5)
    assert (measured.peak.confirmed, measured.paced.confirmed) == (0, 100)
    assert measured.per_s == 200


def test_latencies_are_told_where_the_schedule_was_kept() -> None:
    measured = Measured("http://127.0.0.1:1", 4, per_s=2, trouble="nobody answers")
    measured.paced.scheduled = 2
    for duration_s in (0.002, 0.5):
        measured.paced.latency.record(duration_s)
        measured.paced.confirmed_at.append(1.0)
    measured.paced.lateness.record(0.0015)
    told = lines(measured)
    assert told[2].endswith(" of a core, and was itself late by 1.50 ms (p99), which latencies include")
    assert re.search(r" ms: p50 2\.0\d, p90 50\d\.\d+, p99 50\d\.\d+, p99\.9 50\d\.\d+, max 50\d\.\d+$", told[1])
    assert told[-1] == "nobody answers"
    assert not measured.fine


async def test_a_schedule_that_is_not_kept_is_void(url: str) -> None:
    measured = Measured(url, 1)
    await measure(measured, rate=90_000, seconds=0.3)
    assert measured.verdict
    assert measured.verdict.clean
    assert not measured.fine
    told = "\n".join(lines(measured))
    assert re.search("latencies are void: .*; lower --rate", told)
    assert "p99.9" not in told


@pytest.mark.parametrize(("every", "void"), [(50, "2 of 100 requests were not confirmed"), (10**6, "")])
async def test_what_is_not_confirmed_makes_latencies_void(serve: Serve, every: int, void: str) -> None:
    counted = 0

    async def now_and_then(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal counted
        if request.method == "POST":
            counted += 1
            return web.Response(status=400 if counted % every == 0 else 200)
        return web.json_response({"count": 0, "sum": 0, "distribution": {}})

    measured = Measured(f"http://{await serve(now_and_then)}", 4, ledger=Ledger())
    await measure(measured, rate=200, seconds=0.5, patience_s=0.1)
    told = lines(measured)
    if not measured.paced.late:  # others may disturb the generator
        assert measured.paced.void == void
        assert told[1].startswith(f"latencies are void: {void}" if void else "from when each was due")
    measured.verdict = compare_totals(sent=98, confirmed=98, counted=98)
    assert measured.fine is not bool(measured.paced.void)


async def test_a_service_that_loses_is_found(serve: Serve) -> None:
    async def forgetful(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response()
        if request.path == "/rates":
            return web.json_response({"count": 0, "sum": 0, "distribution": {}})
        unknown = '{"type":"urn:fanrate:problem:unknown-subject"}'
        return web.Response(status=404, text=unknown, content_type="application/problem+json")

    measured = Measured(f"http://{await serve(forgetful)}", 2)
    await measure(measured, rate=20, seconds=0.5, patience_s=0.3)
    assert measured.verdict
    assert measured.verdict.loss == 10
    assert not measured.fine
    assert lines(measured)[-1] == "LOSS 10 DUP 0"


async def test_a_service_that_refuses_all_is_told_with_its_answers(serve: Serve) -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(status=400)
        return web.json_response({"count": 0, "sum": 0, "distribution": {}})

    measured = Measured(f"http://{await serve(refuse)}", 2)
    with pytest.raises(MeasureFailed, match=r"confirmed nothing: \d+ answers of 400"):
        await measure(measured, rate=None, seconds=0.2)


async def test_ctrl_c_keeps_what_was_measured(url: str) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench", "measure", "--url", url, "--rate", "500", "--seconds", "60",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await _until_counted(url, 100)
        program.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            written, errors = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    assert program.returncode == 130
    told = written.decode().splitlines()
    assert told[0].startswith("interrupted: ")
    assert re.match(r"on a schedule of 500/s: ", told[1])
    assert told[-1] == "LOSS 0 DUP 0"
    assert b"Traceback" not in errors


async def _until_counted(url: str, rates: int) -> None:
    reader = Reader(Address.of(url))
    try:
        async with asyncio.timeout(20):
            while (await reader.totals()).count < rates:
                await asyncio.sleep(0.02)
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--url", "http://127.0.0.1:1"], 1, "no Fanrate can be read at http://127.0.0.1:1: no connection to"),
        (["--url", "https://127.0.0.1"], 2, "--url: 'https://127.0.0.1' is not of the form http://HOST:PORT"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measure", *arguments]) == code
    written = capsys.readouterr().err
    assert written.startswith(told)
    assert written.count("\n") == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://a..b:80",
        f"http://{'a' * 70}.example:80",
        "http://\N{LATIN SMALL LETTER A WITH DIAERESIS}.example:1",
        "http://user:secret@127.0.0.1:80",
        "http://127.0.0.1:0",
        "http://127.0.0.1:70000",
        "http://127.0.0.1/#there",
        "http://a b:80",
    ],
)
def test_a_wrong_url_is_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--url", url]) == 2
    written = capsys.readouterr().err
    assert written.startswith(f"--url: {url!r}")
    assert written.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://localhost", "localhost:80"),
        ("http://api_1.Example.org.:81/", "api_1.example.org.:81"),
        ("http://10.0.0.1:82", "10.0.0.1:82"),
        ("http://[::1]:83", "[::1]:83"),
        ("http://[fe80::1%25eth0]:84", "[fe80::1%25eth0]:84"),
    ],
)
def test_a_url_that_a_client_can_be_pointed_at(url: str, told: str) -> None:
    assert str(Address.of(url)) == told


def test_more_connections_than_files_are_refused_by_name() -> None:
    done = subprocess.run(
        ["bash", "-c", 'ulimit -n 256; exec "$0" -m bench measure --connections 500', sys.executable],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "500 connections are more than the 192 that `ulimit -Hn` leaves room for" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--rate", "0"], ["--rate", "1000000"], ["--seconds", "x"], ["--connections", "0"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_with:
        main(["measure", *arguments])
    assert exit_with.value.code == 2
