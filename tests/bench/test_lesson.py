"""The lesson: its rows, its page, and what is kept when something is missing."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from bench import commands as command
from bench.bars import Options
from bench.ledger import compare_totals
from bench.lesson import words
from bench.lesson.counting import all_counted, verdict
from bench.lesson.page import TITLES, page
from bench.lesson.plan import BROKERS, Row, stops
from bench.lesson.results import Results, Taken
from bench.lesson.run import _make, _possible, _take, _tell
from bench.reading import Reader
from bench.scene import scene
from bench.wrk import parse
from stack import programs
from stack.programs import MISSING_PROGRAM
from stack.topology import Topology
from tests.bench.conftest import Serve
from tests.docs.pages import ROOT
from tests.servers import needs

OUTPUT = """\
Running 10s test @ http://127.0.0.1:8080
  5 threads and 5 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.01s    10.00ms   1.02s    60.00%
    Req/Sec     0.51      0.50     1.00     51.02%
  49 requests in 9.98s, 5.31KB read
Requests/sec:      4.91
Transfer/sec:     544.98B

49 requests answered 200
{"requests":49,"duration_us":9980000,"not_200":0,"connect":0,"read":0,"write":0,"timeout":0}
"""
ROWS = {row.key: row for stop in stops(BROKERS) for row in stop.rows}


def _taken(row: Row, requests: int = 49, lost: int = 0, refused: int = 0) -> Taken:
    peak = msgspec.structs.replace(parse(OUTPUT.encode()), requests=requests, not_200=refused, connections=5)
    verdict = compare_totals(sent=peak.sent_rates, confirmed=peak.confirmed_rates, counted=peak.confirmed_rates - lost)
    return Taken(row, OUTPUT, peak, verdict, 1.5, "wrk -t 5 -c 5")


def _results(keys: Sequence[str], requests: Mapping[str, int] | None = None) -> Results:
    results = Results(10)
    results.taken = {key: _taken(ROWS[key], (requests or {}).get(key, 49)) for key in keys}
    return results


def test_all_of_the_lesson_is_planned_to_end_in_time() -> None:
    planned = stops(BROKERS)
    assert {row.section for row in ROWS.values()} == TITLES.keys()
    assert sum(stop.lasts_s(10) for stop in planned) < 6 * 60
    assert len(ROWS) == sum(len(stop.rows) for stop in planned)


def test_its_servers_are_plain() -> None:
    assert {stop.topology.api_settings["MIN_INTERVAL_S"] for stop in stops(BROKERS)} == {"0"}


@pytest.mark.parametrize(
    ("ratio", "told"),
    [(0.04, "0.04 times as many"), (0.26, "0.3 times as many"), (1.1, "about as many"), (12, "12.0 times as many")],
)
def test_a_ratio_is_never_nothing(ratio: float, told: str) -> None:
    assert words.times(ratio) == told


def test_wrks_block_stands_there_as_wrk_printed_it_and_its_mean_is_read() -> None:
    taken = _taken(ROWS["kafka-linger"])
    assert taken.mean_s == 1.01
    assert OUTPUT.startswith(f"{taken.block}\n\n")
    assert f"```text\nwrk -t 5 -c 5\n{taken.block}\n```" in page(_results(["kafka-linger"]), {})


@pytest.mark.parametrize(("text", "seconds"), [("569.92us", 0.00056992), ("1.96ms", 0.00196), ("1.01s", 1.01)])
def test_each_unit_of_wrk_is_known(text: str, seconds: float) -> None:
    row = _taken(ROWS["nats-one"])
    told = Taken(row.row, OUTPUT.replace("1.01s ", f"{text} "), row.peak, row.verdict, 0, "")
    assert told.mean_s == pytest.approx(seconds)


def test_the_page_says_what_was_measured_beside_what_the_lesson_found() -> None:
    text = page(_results(list(ROWS), {"nats-one": 80_000, "nats-topics": 40_000}), {"cores": 2})
    assert "| NATS, one server | 3 713 | 8 016 | 1.96 ms | 1.01 s | LOSS 0 DUP 0 |" in text
    assert "on NATS 0.5 times as many, Kafka about as many, RabbitMQ about as many" in " ".join(text.split())
    assert all(f"\n## {title}\n" in text for title in TITLES.values())
    assert "Machine: cores 2." in text


@pytest.mark.parametrize("key", list(ROWS))
def test_any_row_alone_makes_a_page(key: str) -> None:
    assert f"\n## {TITLES[ROWS[key].section]}\n" in page(_results([key]), {})


def test_what_is_missing_is_on_the_page_with_its_reason() -> None:
    results = _results(["nats-one"])
    results.skipped["Kafka, one server"] = "java is not installed.\nDo this"
    results.failed["RabbitMQ, one server"] = "it fell"
    text = page(results, {})
    assert "| Kafka, one server | | skipped: java is not installed. | | | |" in text
    assert "| RabbitMQ, one server | | failed: it fell | | | |" in text
    assert not results.fine
    del results.failed["RabbitMQ, one server"]
    assert results.fine


def test_a_row_that_lost_a_rate_fails_the_run() -> None:
    results = _results(["nats-one"])
    assert results.fine
    results.taken["nats-one"] = _taken(ROWS["nats-one"], lost=1)
    assert not results.fine
    assert "LOSS 1 DUP 0" in page(results, {})


def test_requests_that_were_refused_are_told_and_many_fail_the_row() -> None:
    results = _results([])
    results.take(_taken(ROWS["nats-one"], 1000, refused=10))
    assert results.fine
    assert "| LOSS 0 DUP 0; 10 not answered 200 |" in page(results, {})
    results.take(_taken(ROWS["kafka-one"], 1000, refused=11))
    assert not results.fine
    told = "failed: 11 of 1000 requests were not answered 200; LOSS 0 DUP 0"
    assert f"| {ROWS['kafka-one'].title} | | {told} | | | |" in page(results, {})
    assert "kafka-one" not in results.taken


def test_a_row_in_which_a_server_died_has_failed_by_its_name() -> None:
    results = _results([])
    results.take(replace(_taken(ROWS["nats-one"]), died=["nats"]))
    assert results.failed == {ROWS["nats-one"].title: "nats died meanwhile; LOSS 0 DUP 0"}
    assert not results.fine


def test_what_ends_a_stop_fails_what_is_missing_of_it_or_its_end() -> None:
    stop = stops(["nats"])[0]
    one, other = stop.rows
    results = _results([one.key])
    results.fail(stop, "it fell")
    assert results.failed == {other.title: "it fell"}
    results = _results([one.key, other.key])
    results.fail(stop, "it fell")
    assert results.failed == {f"{other.title}, at the end": "it fell"}
    assert not results.fine


def test_a_broker_without_its_server_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("redis-server", "nats-server"):
        (tmp_path / name).touch(0o755)
    _hide_programs(tmp_path, monkeypatch)
    results = Results(10)
    possible = _possible(stops(BROKERS), results)
    assert {row.broker for stop in possible for row in stop.rows} == {"nats", None}
    assert "nginx is not installed" in results.skipped[ROWS["nats-three"].title]
    assert results.skipped.keys() > {row.title for row in ROWS.values() if row.broker in ("kafka", "rabbit")}


def test_without_any_server_it_ends_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _hide_programs(tmp_path, monkeypatch)
    assert command.main(["lesson"]) == MISSING_PROGRAM
    assert "is not installed" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("redis-server", "wrk")
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    assert command.main(["lesson", "--out", str(out)]) == command.FOUND
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"{out}: Not a directory\n")


def test_a_page_that_cannot_be_written_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lesson.md").mkdir()
    results = _results(["nats-one"])
    _tell(results, {}, tmp_path)
    told = capsys.readouterr()
    assert "| NATS, one server | 3 713 |" in told.out
    assert "written to" not in told.out
    assert told.err.startswith("lesson.md: not written: ")
    assert len(told.err.splitlines()) == 1
    assert not results.fine


async def test_a_row_whose_file_cannot_be_written_stands_and_fails_the_run(tmp_path: Path) -> None:
    needs("redis-server", "wrk")
    stop = next(stop for stop in stops(BROKERS) if stop.rows[0].key == "inline")
    out = tmp_path / "out"
    out.touch()
    results = Results(1)
    await _make([stop], results, out)
    assert results.taken.keys() == {"inline"}
    assert results.failed.keys() == {"lesson-inline"}


def _hide_programs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(programs, "SYSTEM_FOLDERS", "")


def test_what_an_earlier_row_left_under_way_may_be_counted_in_this_one() -> None:
    earlier = {"sent": 105 + 55, "before": 103, "confirmed": 50}
    assert verdict(**earlier, after=153).clean
    assert verdict(**earlier, after=160).clean, "two of the first row's and all that this one left under way"
    assert verdict(**earlier, after=161).dup == 1
    assert verdict(**earlier, after=152).loss == 1


async def test_a_row_is_over_when_all_of_it_is_counted_and_nothing_is_under_way(serve: Serve) -> None:
    """The total grows with each look, and then what is under way comes to its end."""
    told = {"/rates": deque([3, 8, 12, 12, 13]), "/opened": deque([2, 0])}

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        value = told[request.path].popleft()
        if request.path == "/opened":
            return web.json_response({"opened": value, "abandoned": 0})
        return web.json_response({"count": value, "sum": 0, "distribution": {}})

    reader = Reader(await serve(handle))
    try:
        assert await all_counted(reader, 10) == 13
    finally:
        reader.close()
    assert not any(told.values())


async def test_a_broker_that_is_killed_and_comes_back_is_noticed() -> None:
    needs("redis-server", "nats-server", "wrk")
    async with scene(Options(), Topology("nats")) as stage:
        row = asyncio.create_task(_take(ROWS["nats-one"], stage, 1), name="row")
        async with asyncio.timeout(30):
            while not (await stage.reader.totals()).count:
                await asyncio.sleep(0.01)
            await stage.broker.crash()
            taken = await row
    assert taken.died == [stage.broker.name]
    assert taken.verdict.clean
    assert taken.trouble.startswith("nats died meanwhile; LOSS 0 DUP 0")


async def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    needs("redis-server", "nats-server", "nginx", "wrk")
    lesson = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "bench", "lesson", "--brokers", "nats", "--seconds", "1", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert lesson.stderr is not None
        async with asyncio.timeout(60):
            while b"requests/s, LOSS 0 DUP 0" not in (line := await lesson.stderr.readline()):
                assert line, "it ended before the first row"
            lesson.send_signal(signal.SIGINT)
            told, _ = await lesson.communicate()
    finally:
        if lesson.returncode is None:
            lesson.kill()
    assert lesson.returncode == command.INTERRUPTED
    _check_what_was_kept(tmp_path, told.decode())


def _check_what_was_kept(folder: Path, told: str) -> None:
    text = (folder / "lesson.md").read_text()
    assert text in told
    assert "| NATS, one server | 3 713 |" in text
    assert "It was interrupted" in text
    [file] = folder.glob("*-lesson-nats-one.json")
    results = json.loads(file.read_bytes())["results"]
    assert "Requests/sec:" in results["output"]
    assert (results["ledger"]["loss"], results["ledger"]["dup"]) == (0, 0)


def test_the_page_of_the_documentation_is_one_that_was_drawn() -> None:
    """Its words are today's; its figures are those of the run that it tells of."""
    text = " ".join((ROOT / "docs" / "lesson.md").read_text(encoding="utf-8").split())
    for told in (words.INTRODUCTION, words.CLOSED_LOOP, words.METHOD.format(seconds=10)):
        assert " ".join(told.split()) in text
    for row in ROWS.values():
        assert f"| {row.title} |" in text
    assert "LOSS 0 DUP 0." in text
    assert "interrupted" not in text
