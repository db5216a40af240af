"""How it was measured, in words: the machine, the versions, the method, the totals, and what casts doubt on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from bench.lab.document import Machine, Run
from bench.lab.report.text import SPACE, listed, number, percent, plural
from bench.lab.report.words import share_told
from bench.lab.rows import Row, build_of

_PEAKS: Final = (
    "Peaks are closed loops: each connection sends when it was answered, and no latency is taken from them. CPU time "
    "is that of the operating system's accounts, children included, until all rates of the load were counted; it is "
    "{corrected}."
)
_CORRECTED: Final = (
    "told as at the machine's usual speed, by what a fixed piece of work took beside each load: multiplied by factors "
    "of {low:.2f} to {high:.2f}"
)
_AS_TAKEN: Final = "told as it was taken, whatever the machine's speed was in each turn"
_SCHEDULES: Final = (
    "Latency and freshness come from an open loop, at {shares} of the peak of the same run unless a table says "
    "otherwise: requests leave on a schedule whatever the answers do, and each counts from when it should have left. "
    "None is told of a load in which the generator itself was late, more was offered than the service takes, or more "
    "than one request in a thousand was not confirmed; what was not measured says which."
)
_NOISE: Final = (
    "Noise is taken from the spread of all rows' turns; a difference that two equal rows would show once in a hundred "
    "is called equal. Every turn closes its ledger: what was confirmed was counted, once."
)


def warnings(runs: Sequence[Run]) -> list[str]:
    """What makes the figures doubtful, most doubtful first."""
    return [text for text in (_open_books(runs), _busy(runs), _failed(runs), _machines(runs)) if text]


def method(runs: Sequence[Run], rows: Sequence[Row], factors: Sequence[float] = ()) -> list[str]:
    """What a reader must know to judge the figures; processor time was multiplied by `factors`."""
    told = [_turns(rows), _PEAKS.format(corrected=_corrected(factors))]
    if shares := share_told(rows):
        told.append(_SCHEDULES.format(shares=shares))
    told += [_NOISE, _missing(runs)]
    warm = [run.warm_up for run in runs if run.outcome == "measured" and run.warm_up]
    if late := sum(not each.agreed for each in warm):
        of = plural(len(warm), "turn")
        told.append(f"Warm-up went on until two loads agreed; in {number(late)} of {of} none did.")
    return [text for text in told if text]


def _corrected(factors: Sequence[float]) -> str:
    if all(factor == 1 for factor in factors):
        return _AS_TAKEN
    return _CORRECTED.format(low=min(factors), high=max(factors))


def _turns(rows: Sequence[Row]) -> str:
    turns = sorted({len(row.measured) for row in rows if row.measured})
    if not turns:
        return ""
    count = plural(turns[0], "turn") if len(turns) == 1 else f"{turns[0]} to {turns[-1]} turns"
    order = ", in rounds of random order, one set-up up at a time" if len(rows) > 1 else ""
    return f"{count} of each row{order}. Tables show the median and the range."


def totals(runs: Sequence[Run]) -> str:
    """Runs, rates and what the ledgers say."""
    books = [run.ledger for run in runs if run.ledger]
    confirmed, loss, dup = (sum(getattr(each, name) for each in books) for name in ("confirmed", "loss", "dup"))
    return f"{plural(len(runs), 'run')}, {number(confirmed)} rates confirmed: LOSS {number(loss)} DUP {number(dup)}"


def facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Name and value, for a list at the side."""
    first, last = (pick(run.at for run in runs) for pick in (min, max))
    days = f"{first:%Y-%m-%d}" if first.date() == last.date() else f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    told = [("measured", f"{days} UTC"), ("Fanrate", ", ".join(sorted({build_of(run) for run in runs})))]
    told += [("machine", _machine(machine)) for machine in _several(run.machine for run in runs)]
    versions: dict[str, set[str]] = {}
    for run in runs:
        for name, version in run.machine.versions.items():
            versions.setdefault(name, set()).add(version)
    told.append(
        ("versions", ", ".join(f"{name}{SPACE}{'/'.join(sorted(versions[name]))}" for name in sorted(versions)))
    )
    return told


def _open_books(runs: Sequence[Run]) -> str:
    wrong = [run for run in runs if run.ledger and not run.ledger.closed]
    if not wrong:
        return ""
    told = listed(sorted({f"{run.setup.system} on {run.setup.broker}" for run in wrong}))
    return f"{plural(len(wrong), 'ledger')} did not close, of {told}: rates were lost or counted twice."


def _busy(runs: Sequence[Run]) -> str:
    loads = [busy for run in runs for busy in run.busy]
    loud = [busy for busy in loads if busy.warns]
    if not loud:
        return ""
    others, steal = max(busy.others for busy in loud), max(busy.steal for busy in loud)
    return (
        f"The machine was busy with something else in {number(len(loud))} of {plural(len(loads), 'load')}: other "
        f"programs used up to {percent(others)} of it, and its host took up to {percent(steal)}. Do not trust "
        "these figures; `--again` measures those runs again, on a machine that is quiet by then."
    )


def _failed(runs: Sequence[Run]) -> str:
    failed = sum(run.outcome == "failed" for run in runs)
    return f"{number(failed)} of {plural(len(runs), 'run')} failed; the sections say why." if failed else ""


def _missing(runs: Sequence[Run]) -> str:
    """Runs without figures that cast no doubt on the others."""
    counts = {outcome: sum(run.outcome == outcome for run in runs) for outcome in ("void", "skipped")}
    told = [f"{number(count)} {'were' if count > 1 else 'was'} {outcome}" for outcome, count in counts.items() if count]
    return f"Of {plural(len(runs), 'run')}, {listed(told)}; the sections say why." if told else ""


def _machines(runs: Sequence[Run]) -> str:
    if len(_several(run.machine for run in runs)) < 2:
        return ""
    return "These runs come from several machines: hold no row of one against a row of another."


def _several(machines: Iterable[Machine]) -> list[Machine]:
    """Those that are not the same but for their load and their programs."""
    found = {(each.processor, each.cores, each.memory_bytes): each for each in machines}
    return [found[key] for key in sorted(found)]


def _machine(machine: Machine) -> str:
    memory = number(round(machine.memory_bytes / 1e9))
    return f"{machine.processor}, {plural(machine.cores, 'core')}, {memory}{SPACE}GB, {machine.system}"
