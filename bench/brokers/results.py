"""What a run found: its rows, its ledgers and its troubles; for people, and for the run's file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine, runs
from bench.bars import Options
from bench.brokers import table
from bench.brokers.contestants import Contestant
from bench.brokers.measures import Measure, Row, Taken
from bench.brokers.plan import Stop
from bench.ledger import Verdict

METHOD = """\
One topology up at a time, in rounds whose order changes; what a ratio compares with is measured beside it, on the same
stop, with the same server. Every server, service and client shares this machine."""


@dataclass(slots=True)
class Results:
    """Filled stop by stop; `troubles` are stops that failed."""

    measures: Sequence[Measure]
    taken: dict[tuple[Contestant, str], list[Taken]] = field(default_factory=lambda: defaultdict(list))
    ledgers: list[tuple[Stop, Verdict]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    skipped: dict[Contestant, str] = field(default_factory=dict)
    commands: dict[str, None] = field(default_factory=dict)
    profiles: dict[tuple[Contestant, str], Path] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        """Those of which at least one turn was taken, by kind of figure."""
        return [row for measure in self.measures for row in self.rows_of(measure)]

    def rows_of(self, measure: Measure) -> list[Row]:
        return [
            Row(asked, contestant, self.taken[contestant, asked.key])
            for asked in measure.asked
            for contestant in asked.limits
            if (contestant, asked.key) in self.taken
        ]

    @property
    def fine(self) -> bool:
        """Whether every stop was made, every ledger closed and every bar met."""
        clean = all(verdict.clean for _, verdict in self.ledgers)
        return clean and not self.troubles and all(row.bar.met for row in self.rows)

    def report(self, facts: Mapping[str, object], versions: Mapping[str, str]) -> list[str]:
        """The head, the table and the ledgers."""
        lines = ["", ", ".join(f"{name} {value}" for name, value in facts.items())]
        lines += [", ".join(f"{name} {value}" for name, value in versions.items()), *METHOD.splitlines(), ""]
        lines += table.lines(self.rows, versions) if self.rows else ["nothing was measured"]
        lines += ["", *(f"skipped: {one.name}: {reason}" for one, reason in self.skipped.items())]
        lines += [f"failed: {trouble}" for trouble in self.troubles]
        lines += [
            f"where the time goes, {one.name}, {service}: {path}" for (one, service), path in self.profiles.items()
        ]
        return lines + self._ledger_lines()

    def _ledger_lines(self) -> list[str]:
        open_ones = [f"{stop}: {verdict}: the run failed" for stop, verdict in self.ledgers if not verdict.clean]
        confirmed = sum(verdict.confirmed for _, verdict in self.ledgers)
        loss, dup = (sum(getattr(verdict, name) for _, verdict in self.ledgers) for name in ("loss", "dup"))
        return [*open_ones, f"{len(self.ledgers)} runs, {confirmed:,} rates confirmed: LOSS {loss} DUP {dup}"]

    def write(self, options: Options) -> Path:
        """The run's file."""
        settings = {"seconds": options.seconds, "repeat": options.repeat, "quick": options.quick}
        return runs.write("brokers", settings, self._document(), commands=list(self.commands))

    def _document(self) -> dict[str, object]:
        return {
            "rows": [_row(row) for row in self.rows],
            "ledgers": [_ledger(stop, verdict) for stop, verdict in self.ledgers],
            "failed": self.troubles,
            "skipped": {contestant.name: reason for contestant, reason in self.skipped.items()},
            "profiles": [str(path) for path in self.profiles.values()],
        }


def _row(row: Row) -> dict[str, object]:
    bar, contestant = row.bar, row.contestant
    return {
        "figure": row.asked.text,
        "contestant": contestant.name,
        "broker": contestant.broker,
        "durability": contestant.durability,
        "versions": contestant.versions(machine.versions()),
        "unit": bar.unit,
        "at_most" if bar.at_most else "at_least": bar.limit,
        "value": bar.value,
        "met": bar.met,
        "cpu_us_per_rate": row.cpu_us,
        "turns": row.taken,
    }


def _ledger(stop: Stop, verdict: Verdict) -> dict[str, object]:
    return {
        "stop": str(stop),
        "measures": [measure.name for measure in stop.measures],
        "sent_at_most": verdict.sent,
        "confirmed": verdict.confirmed,
        "counted": verdict.counted,
        "loss": verdict.loss,
        "dup": verdict.dup,
    }
