"""`python -m bench matrix` and `python -m bench experiment`: runs from axes on the command line, or from files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop

from bench.lab import experiment
from bench.lab.commands import Draw, drawing, newest
from bench.lab.experiment import BadExperiment, Experiment
from bench.lab.sitting import Sitting
from bench.progress import only_warnings
from bench.runs import OUT
from core.commands import Subcommand
from stack.programs import MISSING_PROGRAM, find

REPORT: Final = OUT / "report.html"
FINE: Final = 0
FOUND: Final = 1
_BUSY: Final = 0.1
"""Share of the cores that others may use before a sitting begins with a warning."""
_SETUP: Final = {
    "brokers": ("broker", str, "nats", "nats, kafka, rabbit, redis or nats+core"),
    "systems": ("system", str, "fanrate", "fanrate, or a peer: docs/lab.md"),
    "replicas": ("replicas", int, "1", "API replicas"),
    "processes": ("processes", int, "1", "counting processes"),
    "dispatch": ("dispatch", str, "group", "group, topics or inline"),
    "durability": ("durability", str, "confirmed", "relaxed, confirmed or fsync"),
    "balancer": ("balancer", str, "none", "none, nginx-plain, nginx-tuned, nginx-random or nginx-hash"),
}
_WORKLOAD: Final = {
    "connections": ("connections", int, "64", "connections, each with one request at a time"),
    "rates-per-request": ("rates_per_request", int, "1", "1 is POST /rate, more is POST /rates"),
    "subjects": ("subjects", int, "3000", "different subjects"),
    "consumers": ("consumers", str, "running", "running, or frozen: they count afterwards, as fair beside peers"),
}


def add_matrix(commands: argparse._SubParsersAction[Subcommand]) -> None:
    command = commands.add_parser(
        "matrix",
        help="measure all combinations of brokers, replicas, connections and more",
        description="Measure all combinations of what is listed (commas between): each as often as --repeat says, in "
        "rounds of random order, one topology up at a time. Each run becomes a JSON file in --out; a report is drawn "
        "from them at the end, or at Ctrl-C.",
    )
    for name, (_, _, default, text) in {**_SETUP, **_WORKLOAD}.items():
        command.add_argument(f"--{name}", default=default, metavar="LIST", help=f"{text} [{default}]")
    command.add_argument(
        "--offered",
        default="0.5",
        metavar="LIST",
        help="loads on a schedule, as shares of the row's own peak, for latencies; 'none' for the peak alone [0.5]",
    )
    command.add_argument("--arrivals", choices=["even", "poisson"], default="even", help="of such a schedule [even]")
    command.add_argument(
        "--settings", default="", metavar="'A=B C=D'", help="further settings of the services, as in docs/settings.md"
    )
    command.add_argument("--seconds", type=float, default=10.0, help="length of each load [10]")
    command.add_argument("--repeat", type=int, default=3, help="rounds; medians are taken [3]")
    _add_common(command)
    command.set_defaults(run=_matrix)


def add_experiment(commands: argparse._SubParsersAction[Subcommand]) -> None:
    command = commands.add_parser(
        "experiment",
        help="run experiments from files and draw the report",
        description=f"Run experiments, {', '.join(experiment.named())}, or such files (*.toml: docs/lab.md). Each run "
        "becomes a JSON file; the report is drawn from them at the end, or at Ctrl-C.",
    )
    command.add_argument("names", nargs="+", metavar="NAME|FILE")
    _add_common(command)
    command.set_defaults(run=_experiment)


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--quick", action="store_true", help="each row once, short loads, little warming up: for orientation"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help=f"folder of the runs [a new one in {OUT}]")
    command.add_argument(
        "--resume", action="store_true", help="go on with the runs in --out, or with the newest, and keep what is there"
    )
    command.add_argument(
        "--again",
        action="store_true",
        help="--resume, but measure again, in place of the old, what the machine's other work or its host disturbed",
    )


def _matrix(options: argparse.Namespace) -> int:
    setup = {field: _listed(options, name, kind) for name, (field, kind, _, _) in _SETUP.items()}
    workload = {field: _listed(options, name, kind) for name, (field, kind, _, _) in _WORKLOAD.items()}
    offered = [] if options.offered == "none" else _numbers("offered", options.offered, float)
    rows = experiment.rows_of(
        "matrix",
        {**setup, "settings": options.settings},
        {**workload, "offered": offered, "arrivals": options.arrivals, "seconds": options.seconds},
    )
    if options.repeat < 1:
        raise BadExperiment(f"--repeat {options.repeat}: at least 1")
    return _hold([Experiment("matrix", "Matrix", options.repeat, rows)], options)


def _experiment(options: argparse.Namespace) -> int:
    return _hold([experiment.load(name) for name in options.names], options)


def _hold(experiments: Sequence[Experiment], options: argparse.Namespace) -> int:
    """All of them, one after another; the report of what there is, also when it is interrupted."""
    only_warnings()
    find("wrk")
    draw = drawing()
    wanted = [each.quick() for each in experiments] if options.quick else experiments
    sittings = [
        Sitting(each, _folder(each.name, options, many=len(wanted) > 1), options.quick, _say) for each in wanted
    ]
    for sitting in sittings:
        sitting.open(resume=options.resume or options.again, again=options.again)
    folders = ", ".join(str(sitting.out) for sitting in sittings)
    minutes = sum(sitting.lasts_s for sitting in sittings) / 60
    _say(f"{sum(len(sitting.left) for sitting in sittings)} runs, about {minutes:.0f} minutes, into {folders}")
    _warn_if_busy()
    try:
        for sitting in sittings:
            uvloop.run(sitting.hold())
    finally:
        _report([sitting.out for sitting in sittings], draw)
    return _exit_code(sittings)


def _exit_code(sittings: Sequence[Sitting]) -> int:
    """That nothing was measured, by now or before, is no success either."""
    made = {run.outcome for sitting in sittings for run in sitting.runs}
    before = {run.outcome for sitting in sittings for run in sitting.done.values()}
    if "failed" in made:
        return FOUND
    if not made or "measured" in made | before:
        return FINE
    if made == {"skipped"}:
        _say("nothing was measured: all rows were skipped")
        return MISSING_PROGRAM
    return FOUND


def _folder(name: str, options: argparse.Namespace, *, many: bool) -> Path:
    if options.out is not None:
        out: Path = options.out
        return out / name if many else out
    old = newest(name)
    if (options.resume or options.again) and old:
        return old
    return OUT / name / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def _report(folders: Sequence[Path], draw: Draw) -> None:
    """The report of all runs there are, if there is one."""
    measured = [folder for folder in folders if any(folder.glob("*.json"))]
    if not measured:
        _say("nothing was measured")
        return
    page = REPORT if folders[0].is_relative_to(OUT) else folders[0].parent / REPORT.name
    page = page if len(folders) > 1 or page == REPORT else folders[0] / REPORT.name
    try:
        written = draw(measured, page, page.parent)
    except OSError as exc:
        _say(f"no report: {page}: {exc.strerror or exc}; the runs are there, `report` draws them")
    else:
        print("\n".join(f"written: {path}" for path in written), flush=True)


def _warn_if_busy() -> None:
    """Figures of a machine that does other work are of that work too."""
    used = psutil.cpu_percent(interval=1.0) / 100
    if used > _BUSY:
        _say(f"WARNING: this machine is busy: {used:.0%} of its cores are in use; figures will be of that, too")


def _listed(options: argparse.Namespace, name: str, kind: type) -> list[Any]:
    return _numbers(name, getattr(options, name.replace("-", "_")), kind)


def _numbers(name: str, text: str, kind: type) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise BadExperiment(f"--{name} {text}: not a list of numbers with commas between") from None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
