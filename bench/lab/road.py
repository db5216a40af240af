"""The one road that every run goes: warm up, a peak in a closed loop, loads on a schedule, the books."""

from __future__ import annotations

import asyncio
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Final

from bench import accounts, freshness, machine, wrk
from bench.bars import Options
from bench.client import Address
from bench.histogram import Histogram
from bench.lab.calibration import calibrating
from bench.lab.document import Books, Busy, Holding, Peak, Tail, WarmUp, Workload
from bench.lab.stage import Stage
from bench.ledger import Ledger, Verdict
from bench.load import OpenLoopReport, Request
from bench.open_loop import open_loop
from bench.schedule import Schedule
from core.errors import FanrateError
from core.rates import Rate

AGREE: Final = 0.05
"""Two warm-up loads agree when neither is further than this from the other, as a share."""
WINDOW_S: Final = 2.0
QUICK_WINDOW_S: Final = 1.0
MOST_WINDOWS: Final = 8
QUICK_MOST_WINDOWS: Final = 3
_BODIES: Final = 8
"""At least so many different requests, where each holds many rates."""


class PartDied(FanrateError):
    """A part of the setup ended by itself during a run."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"died during the run: {', '.join(names)}")


@dataclass(slots=True)
class Found:
    """What a run has found so far."""

    warm_up: WarmUp | None = None
    peak: Peak | None = None
    tails: list[Tail] = field(default_factory=list)
    memory_peak_bytes: dict[str, int] = field(default_factory=dict)
    holding: Holding | None = None
    ledger: Books | None = None
    calibrations_us: list[float] = field(default_factory=list)
    commands: dict[str, None] = field(default_factory=dict)
    service_settings: dict[str, str] = field(default_factory=dict)

    @property
    def calibration_us(self) -> float:
        return fmean(self.calibrations_us) if self.calibrations_us else 0.0


class Road:
    """Takes `workload` to `stage` once; `found` grows on the way, and is what is left when something fails.
    `directory` is for files of its own."""

    def __init__(self, stage: Stage, workload: Workload, options: Options, directory: Path, found: Found) -> None:
        self.found = found
        self._stage = stage
        self._workload = workload
        self._options = options
        self._requests = [_requests(stage, address, workload) for address in stage.addresses]
        self._files = [directory / f"requests-{number}" for number in range(len(self._requests))]
        for path, requests in zip(self._files, self._requests, strict=True):
            wrk.write_requests(path, (request.wire for request in requests))
        self._places = [0] * len(self._files)
        """Where in its file the next load begins: so that all subjects have their turn."""

    async def go(self) -> None:
        """Raises PartDied, NothingConfirmed, and what wrk and the broker raise; groups of them too."""
        try:
            await self._warm_up()
            accounts.reset_peaks(self._stage.roles)
            await self._peak()
            for offered in self._workload.offered:
                await self._tail(offered)
            self._remember_memory()
            self.found.ledger = _books(await self._stage.settle())
        except Exception as exc:  # and no CancelledError: Ctrl-C ends the sitting, whoever has died
            self._name_the_dead(exc)
            raise
        else:
            self._name_the_dead()
        finally:
            self.found.commands |= dict.fromkeys(self._stage.commands)

    def _name_the_dead(self, consequence: Exception | None = None) -> None:
        if dead := self._stage.dead:
            raise PartDied(dead) from consequence

    async def _warm_up(self) -> None:
        """Loads until two in a row agree; their rates are in the books, and in nothing else."""
        await self._stage.warm(self._options)
        quick = self._options.quick
        seconds, most = (QUICK_WINDOW_S, QUICK_MOST_WINDOWS) if quick else (WINDOW_S, MOST_WINDOWS)
        told: list[float] = []
        while len(told) < most and not agree(told):
            self._options.say(f"warming up, load {len(told) + 1}")
            peaks = await self._full_load(seconds)
            told.append(sum(peak.per_s for peak in peaks))
        self.found.warm_up = WarmUp([round(per_s) for per_s in told], agree(told))
        await self._stage.settle()

    async def _peak(self) -> None:
        """What was used is read when all was counted: a rate costs what it costs until then."""
        seconds = self._workload.seconds
        self._options.say(f"full load, {seconds:g} s")
        batched = await self._stage.batched()
        with self._consumers_as_asked():
            meter = Meter(self._stage.roles)
            async with calibrating(self.found.calibrations_us):
                peaks = await self._full_load(seconds)
            busy = meter.busy()
            self.found.holding = await self._stage.holding()
        await self._stage.settle()
        used_s = meter.used_s()
        rates = sum(peak.confirmed_rates for peak in peaks)
        self.found.peak = Peak(
            seconds=round(max(peak.duration_us for peak in peaks) / 1e6, 3),
            rates=rates,
            rates_per_s=round(sum(peak.per_s for peak in peaks), 1),
            failed=sum(peak.failed for peak in peaks),
            cpu_us_per_rate=_per_rate_us(used_s, rates),
            rates_per_message=_per_message(batched, await self._stage.batched()),
            busy=busy,
        )

    @contextmanager
    def _consumers_as_asked(self) -> Iterator[None]:
        """Around each load that is measured."""
        frozen = self._workload.consumers == "frozen"
        if frozen:
            self._stage.freeze_consumers()
        try:
            yield
        finally:
            if frozen:
                self._stage.thaw_consumers()

    async def _full_load(self, seconds: float) -> list[wrk.Peak]:
        """wrk on every address at once, with an even share of the connections."""
        addresses = self._stage.addresses
        shares = [len(range(k, self._workload.connections, len(addresses))) for k in range(len(addresses))]
        rates = self._workload.rates_per_request
        script = "bench/wrk/bytes.lua"
        works = []
        for address, path, first, share in zip(addresses, self._files, self._places, shares, strict=True):
            argv = wrk.command(address, script, connections=share, seconds=seconds, arguments=[str(path)])
            self.found.commands[shlex.join(argv)] = None
            works.append(
                wrk.run_bytes(address, path, first=first, connections=share, seconds=seconds, rates_per_request=rates)
            )
        peaks = await asyncio.gather(*works)
        self._places = [place + peak.requests for place, peak in zip(self._places, peaks, strict=True)]
        self._stage.book(sum(peak.sent_rates for peak in peaks), sum(peak.confirmed_rates for peak in peaks))
        return peaks

    async def _tail(self, offered: float) -> None:
        assert self.found.peak is not None
        workload = self._workload
        per_s = self.found.peak.rates_per_s / workload.rates_per_request * offered
        if not per_s:
            raise NothingConfirmed(self.found.peak.failed)
        self._options.say(f"{per_s:,.0f} requests a second on a schedule, {offered:.0%} of the peak")
        ledger = Ledger()
        schedule = Schedule(per_s, workload.seconds, workload.arrivals)
        meter = Meter(self._stage.roles)
        with self._consumers_as_asked():
            async with asyncio.TaskGroup() as tasks:
                load = tasks.create_task(self._on_schedule(schedule, ledger), name="schedule")
                probes = tasks.create_task(self._probe(ledger), name="probes")
            report, seen_s = load.result(), probes.result()
            busy = meter.busy()
        self._stage.book(ledger.sent_rates, ledger.confirmed_rates)
        await self._stage.settle()
        self.found.tails.append(
            Tail(
                offered=offered,
                scheduled_per_s=round(per_s, 1),
                confirmed=report.latency.count,
                confirmed_per_s=round(report.latency.count / report.seconds, 1),
                latency_ms=report.latency.told_ms(),
                histogram=report.latency.encode(),
                fell_behind=report.late,
                unsent=report.unsent,
                failed=report.failed,
                generator_late_ms_p99=round(report.lateness.percentile_s(99) * 1000, 3),
                cpu_us_per_rate=_per_rate_us(meter.used_s(), ledger.confirmed_rates),
                freshness_ms=seen_s.told_ms() if seen_s.count else {},
                probes=seen_s.count,
                busy=busy,
            )
        )

    async def _on_schedule(self, schedule: Schedule, ledger: Ledger) -> OpenLoopReport:
        addresses = self._stage.addresses
        return await open_loop(
            addresses,
            itertools.cycle(self._requests[0]),
            ledger,
            schedule,
            connections=self._workload.connections,
            confirmed_statuses=[self._stage.confirmed_status],
        )

    async def _probe(self, ledger: Ledger) -> Histogram:
        """From each probe's POST to its sight; of nothing where nothing is counted meanwhile."""
        seen_s = Histogram()
        store_url = self._stage.store_url
        if store_url is not None and self._workload.consumers == "running":
            for probe in await freshness.probe(self._stage.addresses[0], store_url, ledger, self._workload.seconds):
                seen_s.record(probe.from_post_s)
        return seen_s

    def _remember_memory(self) -> None:
        read = accounts.read(self._stage.roles)
        self.found.memory_peak_bytes = {role: account.peak_bytes for role, account in read.items()}


class NothingConfirmed(FanrateError):
    """Nothing was confirmed at full load."""

    def __init__(self, failed: int) -> None:
        super().__init__(f"nothing was confirmed at full load, {failed} requests failed")


class Meter:
    """What each role uses from now on, and what the rest of the machine does."""

    def __init__(self, roles: Mapping[str, Sequence[int]]) -> None:
        self._roles = roles
        self._before, self._own_before_s = accounts.read(roles), accounts.own_cpu_s()
        self._moment = machine.moment(roles)

    def used_s(self) -> dict[str, float]:
        """CPU seconds of each role so far, and of `load`: whatever sends, this process among it."""
        used = accounts.cpu_used_s(self._before, accounts.read(self._roles))
        return {**used, "load": accounts.own_cpu_s() - self._own_before_s}

    def busy(self) -> Busy:
        told = machine.busy_between(self._moment, machine.moment(self._roles))
        return Busy(round(told.others, 4), round(told.steal, 4), round(told.load_average, 2), told.busy)


def agree(told: Sequence[float]) -> bool:
    """Whether the last two are close enough to each other."""
    if len(told) < 2:
        return False
    lower, higher = sorted(told[-2:])
    return higher - lower <= AGREE * higher


def _requests(stage: Stage, address: Address, workload: Workload) -> list[Request]:
    """Different requests that go over all subjects."""
    size, subjects = workload.rates_per_request, workload.subjects
    amount = max(subjects // size, _BODIES if size > 1 else 1)
    rates: list[Rate] = [(f"film-{number % subjects}", number * 7 % 101) for number in range(amount * size)]
    return [stage.request(address, rates[at : at + size]) for at in range(0, len(rates), size)]


def _per_rate_us(used_s: Mapping[str, float], rates: int) -> dict[str, float]:
    return {role: round(cpu_s / max(1, rates) * 1e6, 3) for role, cpu_s in used_s.items()}


def _per_message(before: tuple[float, float] | None, after: tuple[float, float] | None) -> float | None:
    if before is None or after is None or after[1] == before[1]:
        return None
    return round((after[0] - before[0]) / (after[1] - before[1]), 2)


def _books(verdict: Verdict) -> Books:
    return Books(verdict.sent, verdict.confirmed, verdict.counted, verdict.loss, verdict.dup)
