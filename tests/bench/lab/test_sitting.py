"""Sittings on real servers: short, but the whole way from a row to its file, and what happens when something fails."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

import bench.lab.sitting
import stack.parts
from bench.lab import document
from bench.lab.document import Run
from bench.lab.experiment import Experiment, rows_of
from bench.lab.order import Turn
from bench.lab.sitting import CannotWrite, FolderTaken, Sitting
from bench.lab.stage import FanrateStage
from bench.peers import PEERS
from bench.runs import SCENE
from stack.programs import MissingProgram
from tests.bench.lab.documents import LOUD
from tests.servers import needs

SHORT: dict[str, object] = {"seconds": 1, "connections": 8, "offered": [0.3]}


@pytest.fixture(autouse=True)
def servers() -> None:
    needs("redis-server", "nats-server", "wrk")


def sitting(out: Path, setup: dict[str, object], workload: dict[str, object] = SHORT, repeat: int = 1) -> Sitting:
    experiment = Experiment("test", "A test", repeat, rows_of("test", setup, workload))
    made = Sitting(experiment, out, quick=True, say=lambda line: None)
    made.open(resume=False)
    return made


def _documents(folder: Path) -> list[document.Run]:
    return [document.read(path) for path in folder.glob("*.json")]


async def test_a_run_is_measured_accounted_for_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sitting(tmp_path, {"broker": "nats"})
    (run,) = await first.hold()
    assert (run.outcome, run.reason) == ("measured", "")
    assert _documents(tmp_path) == [run]
    assert run.ledger is not None
    assert run.ledger.closed
    assert run.peak is not None
    assert run.ledger.counted >= run.peak.rates > 0
    assert set(run.peak.cpu_us_per_rate) == {"api", "process", "broker", "redis", "load"}
    assert all(cpu_us > 0 for cpu_us in run.peak.cpu_us_per_rate.values())
    assert set(run.memory_peak_bytes) == {"api", "process", "broker", "redis"}
    assert all(10**6 < held < 10**9 for held in run.memory_peak_bytes.values())
    assert run.peak.rates_per_message is not None
    assert 1 <= run.peak.rates_per_message <= 8
    (tail,) = run.tails
    assert tail.scheduled_per_s == pytest.approx(0.3 * run.peak.rates_per_s, rel=0.01)
    assert 0 < tail.latency_ms["p50"] <= tail.latency_ms["p99"] <= tail.latency_ms["max"]
    assert 0 < tail.freshness_ms["p50"] <= tail.freshness_ms["p99.9"]
    assert run.machine.versions["nats-server"]
    assert any("bytes.lua http://" in command and " -- " in command for command in run.commands)
    assert run.calibration_us > 0
    assert run.holding is not None

    again = Sitting(first.experiment, tmp_path, quick=True, say=lambda line: None)
    with pytest.raises(FolderTaken, match="--resume"):
        again.open(resume=False)
    again.open(resume=True)
    assert again.id == first.id
    with pytest.raises(FolderTaken, match="--quick"):
        Sitting(first.experiment, tmp_path, quick=False, say=lambda line: None).open(resume=True)
    assert not again.left
    document.write(_disturbed(run), again.path_of(Turn(again.experiment.rows[0], 1)))
    with monkeypatch.context() as other:
        other.setattr(bench.lab.sitting, "commit", lambda: "0123456789ab")
        with pytest.raises(FolderTaken, match="another build"):
            again.open(resume=True)
    for anew, left in ((False, []), (True, [1])):
        opened = Sitting(first.experiment, tmp_path, quick=True, say=lambda line: None)
        opened.open(resume=True, again=anew)
        assert [turn.number for turn in opened.left] == left
    more = Sitting(Experiment("test", "", 2, first.experiment.rows), tmp_path, quick=True, say=lambda line: None)
    more.open(resume=True)
    assert [turn.number for turn in more.left] == [2]


def _disturbed(run: Run) -> Run:
    assert run.peak is not None
    return replace(run, peak=replace(run.peak, busy=LOUD))


async def test_what_was_disturbed_stands_until_it_was_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sitting(tmp_path, {"broker": "nats"}, {**SHORT, "offered": []})
    (run,) = await first.hold()
    path = first.path_of(Turn(first.experiment.rows[0], 1))
    document.write(_disturbed(run), path)

    def again() -> Sitting:
        made = Sitting(first.experiment, tmp_path, quick=True, say=lambda line: None)
        made.open(resume=True, again=True)
        return made

    def missing(name: str) -> Path:
        raise MissingProgram(name)

    with monkeypatch.context() as without:
        without.setattr(stack.parts, "find", missing)
        (skipped,) = await again().hold()
    assert skipped.outcome == "skipped"
    assert "is not installed; to install it" in skipped.reason
    assert document.read(path).disturbed
    (anew,) = await again().hold()
    assert anew.outcome == "measured", anew.reason
    assert document.read(path) == anew


async def test_a_broker_that_stores_nothing_holds_nothing(tmp_path: Path) -> None:
    setup: dict[str, object] = {"broker": "nats+core", "durability": "relaxed"}
    (run,) = await sitting(tmp_path, setup, {**SHORT, "offered": []}).hold()
    assert run.outcome == "measured", run.reason
    assert run.holding is None


async def test_several_replicas_share_the_load_and_requests_are_counted_by_the_rate(tmp_path: Path) -> None:
    """Without a balancer each is sent its own; with topics each topic is one more message."""
    setup: dict[str, object] = {"broker": "nats", "replicas": 2, "dispatch": "topics"}
    (run,) = await sitting(tmp_path, setup, {**SHORT, "rates_per_request": 50}).hold()
    assert run.outcome == "measured", run.reason
    assert run.ledger is not None
    assert run.ledger.closed
    assert sum("bytes.lua" in command for command in run.commands) == 2
    assert run.service_settings["MIN_INTERVAL_S"] == "0.002"
    assert run.peak is not None
    assert run.peak.rates % 50 == 0
    assert run.tails[0].scheduled_per_s == pytest.approx(0.3 * run.peak.rates_per_s / 50, rel=0.01)


async def test_consumers_that_are_frozen_count_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At full load and on a schedule."""
    told: list[str] = []
    freeze, thaw = FanrateStage.freeze_consumers, FanrateStage.thaw_consumers
    monkeypatch.setattr(FanrateStage, "freeze_consumers", lambda stage: (told.append("freeze"), freeze(stage)))
    monkeypatch.setattr(FanrateStage, "thaw_consumers", lambda stage: (told.append("thaw"), thaw(stage)))
    (run,) = await sitting(tmp_path, {"broker": "nats"}, {**SHORT, "offered": [0.3], "consumers": "frozen"}).hold()
    assert run.outcome == "measured", run.reason
    assert told == ["freeze", "thaw"] * 2
    assert run.holding is not None
    assert run.peak is not None
    assert run.holding.depth
    assert run.holding.depth * (run.peak.rates_per_message or 0) > run.peak.rates / 2
    assert run.ledger is not None
    assert run.ledger.counted >= run.peak.rates


async def test_what_cannot_be_is_skipped_with_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Another system is accounted for by the broker's own count."""
    setup: dict[str, object] = {"system": "aiohttp-publish", "broker": ["nats", "redis"]}
    runs = {run.setup.broker: run for run in await sitting(tmp_path, setup).hold()}
    skipped, run = runs["redis"], runs["nats"]
    assert skipped.outcome == "skipped"
    assert "redis" in skipped.reason
    assert run.outcome == "measured", run.reason
    assert run.ledger is not None
    assert run.ledger.confirmed <= run.ledger.counted <= run.ledger.sent
    assert run.holding is not None
    assert run.holding.messages <= run.ledger.counted
    assert not run.tails[0].freshness_ms


async def test_a_system_whose_toolchain_is_missing_is_skipped_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = PEERS["go"].recipe
    assert recipe is not None
    monkeypatch.setitem(vars(recipe), "folder", tmp_path / "not built")
    setup: dict[str, object] = {"system": ["go", "fanrate"], "broker": "nats"}
    runs = await sitting(tmp_path / "runs", setup, {**SHORT, "offered": []}).hold()
    skipped, run = sorted(runs, key=lambda run: run.setup.system, reverse=True)
    assert (skipped.outcome, run.outcome) == ("skipped", "measured"), run.reason
    if shutil.which("go") is None:
        assert "go cannot be built without go; to get it:" in skipped.reason
    else:
        assert "go is not built; to get it: make peers" in skipped.reason


@pytest.mark.parametrize(
    ("server", "when", "offered", "replicas"),
    [("nats-server", "full load", [], [1, 2]), ("redis-server", "on a schedule", [0.3], [1])],
)
async def test_a_server_that_dies_is_named_and_the_rest_goes_on(
    tmp_path: Path, server: str, when: str, offered: list[float], replicas: list[int]
) -> None:
    """One of the first row's is killed under load; the other row, on servers of its own, is measured."""
    killed: list[int] = []

    def kill(line: str) -> None:
        if when in line and not killed:
            mine = psutil.Process().children(recursive=True)
            killed.extend(process.pid for process in mine if process.name() == server)
            asyncio.get_running_loop().call_later(0.4, os.kill, killed[0], signal.SIGKILL)

    made = sitting(tmp_path, {"broker": "nats", "replicas": replicas}, {**SHORT, "offered": offered})
    made.say = kill
    failed, *rest = sorted(await made.hold(), key=lambda run: run.order)
    assert failed.outcome == "failed"
    assert [run.outcome for run in rest] == ["measured"] * (len(replicas) - 1), [run.reason for run in rest]
    assert server.removesuffix("-server") in failed.reason.lower()
    again = Sitting(made.experiment, tmp_path, quick=True, say=lambda line: None)
    again.open(resume=True)
    assert [turn.row.setup for turn in again.left] == [failed.setup]


async def test_a_folder_that_takes_no_more_ends_it_by_name(tmp_path: Path) -> None:
    made = sitting(tmp_path, {"broker": "nats"}, {**SHORT, "offered": []})
    for turn in made.left:
        made.path_of(turn).with_suffix(".new").symlink_to("/dev/full")
    with pytest.raises(CannotWrite, match="No space left on device"):
        await made.hold()
    assert not _documents(tmp_path)


async def test_a_disk_without_room_for_the_servers_ends_it_before_a_run_is_spoilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sitting(tmp_path, {"broker": "nats"}, {**SHORT, "offered": []})
    monkeypatch.setattr(bench.lab.sitting, "LEAST_FREE_BYTES", 2**60)
    with pytest.raises(CannotWrite, match=r"MiB free on its disk.*--resume goes on"):
        await made.hold()
    assert not os.listdir(tmp_path)


async def test_what_a_killed_run_left_is_removed_when_it_is_resumed(tmp_path: Path) -> None:
    left = tmp_path / f"{SCENE}abc" / "data"
    left.mkdir(parents=True)
    (left / "log").write_text("x")
    made = sitting(tmp_path, {"broker": "nats"})
    assert os.listdir(tmp_path) == [left.parent.name]
    made.open(resume=True)
    assert not os.listdir(tmp_path)


async def test_ctrl_c_ends_it_also_when_a_server_has_died(tmp_path: Path) -> None:
    """NATS is killed under load; the run waits for what it had to be counted, and is interrupted."""
    made = sitting(tmp_path, {"broker": "nats", "replicas": [1, 2]}, {**SHORT, "offered": []})
    seen: list[str] = []

    def kill(line: str) -> None:
        seen.append(line)
        if "full load" in line:
            loop = asyncio.get_running_loop()
            (nats,) = (each for each in psutil.Process().children(recursive=True) if each.name() == "nats-server")
            loop.call_later(0.4, nats.kill)
            loop.call_later(2.0, holding.cancel)

    made.say = kill
    holding = asyncio.create_task(made.hold())
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert sum("full load" in line for line in seen) == 1
    assert not _documents(tmp_path)


def test_nothing_measured_is_no_success(tmp_path: Path) -> None:
    """A peer that was built nowhere."""
    command = [*(sys.executable, "-m", "bench", "matrix", "--systems", "go", "--offered", "none", "--repeat", "1")]
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "runs")], capture_output=True, text=True, timeout=60, check=False, env=env
    )
    assert done.returncode == 3, done.stderr
    assert "all rows were skipped" in done.stderr
    assert (tmp_path / "runs" / "report.html").exists()


@pytest.mark.timeout(300)
def test_ctrl_c_keeps_and_reports_what_was_measured(tmp_path: Path) -> None:
    """The command as a user runs it: interrupted in the second run, resumed, and then it has nothing left to do."""
    out = tmp_path / "runs"
    command = [
        *(sys.executable, "-m", "bench", "matrix", "--brokers", "nats", "--connections", "4,8", "--offered", "none"),
        *("--seconds", "1", "--repeat", "1", "--quick", "--out", str(out)),
    ]
    first = subprocess.Popen([*command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stderr is not None
    loads = 0
    for line in first.stderr:
        loads += "full load" in line
        if loads == 2:
            first.send_signal(signal.SIGINT)
            break
    told, _ = first.communicate(timeout=60)
    assert first.returncode == 130
    assert [run.outcome for run in _documents(out)] == ["measured"]
    assert (out / "report.html").exists()
    assert "report.html" in told
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=100, check=False)
    assert again.returncode == 0, again.stderr
    assert sorted(run.order for run in _documents(out)) == [1, 2]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
