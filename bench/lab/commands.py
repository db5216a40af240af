"""`python -m bench report`, `compare` and `bars`: their arguments and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from bench.lab import compare
from bench.lab.document import BadDocument
from bench.lab.figures import COST, FIGURES
from bench.lab.limits import bars
from bench.lab.rows import NoDocuments, read
from bench.runs import OUT
from core.commands import Subcommand
from core.errors import FanrateError

_FINE: Final = 0
_FOUND: Final = 1
_WRONG_USAGE: Final = 2


class Draw(Protocol):
    """Draws the runs in some folders; returns the files it wrote."""

    def __call__(self, folders: Sequence[Path], out: Path, beside: Path | None = None) -> list[Path]: ...


class NoLibraries(FanrateError):
    """Drawing takes libraries that nothing else needs."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"drawing takes {missing}: `make lab` installs it, or pip install 'fanrate[bench,lab]'")


def add_report(commands: argparse._SubParsersAction[Subcommand]) -> None:
    command = commands.add_parser(
        "report",
        help="draw the report of runs that were measured",
        description="Draw one report of all runs in some folders: what to choose and why, how it was measured, and "
        "every series with its tables and plots. The page needs nothing but itself: no network, no scripts. The same "
        "runs give the same bytes.",
        epilog="Exit codes: 0 drawn, 2 a folder without documents, or a file that is none.",
    )
    command.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="a folder of runs, or one run's file")
    command.add_argument("--out", type=Path, default=OUT / "report.html", metavar="FILE", help="[%(default)s]")
    command.add_argument(
        "--markdown", type=Path, metavar="DIR", help="also DIR/results.md, with its plots in DIR/plots/"
    )
    command.set_defaults(run=_report)


def drawing() -> Draw:
    """What draws; its libraries take half a second to import, so only who draws waits for them. Raises NoLibraries."""
    try:
        from bench.lab.report.draw import draw
    except ImportError as exc:
        raise NoLibraries(exc.name or str(exc)) from exc
    return draw


def add_bars(commands: argparse._SubParsersAction[Subcommand]) -> None:
    command = commands.add_parser(
        "bars",
        help="hold experiments against what Fanrate is held to",
        description="Hold the runs of some sittings, by experiment (its newest sitting) or folder, against what "
        "Fanrate is held to: docs/lab.md.",
        epilog="Exit codes: 0 all are met, 1 one is missed, or was not measured, 2 nothing to hold against them.",
    )
    command.add_argument("sittings", nargs="+", metavar="NAME|DIR")
    command.set_defaults(run=_bars)


def _bars(options: argparse.Namespace) -> int:
    try:
        found = bars(read([newest(name) or Path(name) for name in options.sittings]))
    except (BadDocument, NoDocuments, OSError) as exc:
        print(exc, file=sys.stderr)
        return _WRONG_USAGE
    if not found:
        print("no run of these is held to anything", file=sys.stderr)
        return _WRONG_USAGE
    width = max(len(bar.name) for bar in found)
    for bar in found:
        measured = f"{bar.measured} {bar.unit}".rstrip()
        print(f"{bar.name:<{width}}  {bar.bound:>6}  {measured:>9}  {bar.outcome}")
    return _FINE if all(bar.met for bar in found) else _FOUND


def newest(experiment: str) -> Path | None:
    """The folder of its newest sitting in bench/out, if there is one."""
    return max((path for path in (OUT / experiment).glob("2*Z") if path.is_dir()), default=None)


def _report(options: argparse.Namespace) -> int:
    draw = drawing()
    try:
        written = draw(options.folders, options.out, options.markdown)
    except (BadDocument, NoDocuments, OSError) as exc:
        print(exc, file=sys.stderr)
        return _WRONG_USAGE
    print("\n".join(f"written to {path}" for path in written))
    return _FINE


def add_compare(commands: argparse._SubParsersAction[Subcommand]) -> None:
    command = commands.add_parser(
        "compare",
        help="which rows of two sittings differ beyond noise",
        description="Hold the runs of folder B against those of folder A, row by row. The noise of a figure is taken "
        "from the turns of all rows; what differs by less is called equal. CPU figures are corrected for how fast the "
        "machine was in each. Two folders that were measured with the same command on the same machine serve best, "
        "with three turns or more.",
        epilog="Exit codes: 0 nothing is worse; 1 something is, beyond noise, or B lost something: a row that is "
        "measured in A alone though B tried it, a turn that failed where none of A did, a ledger that did not close; "
        "2 no comparison: a folder without documents, a file that is none, no common row, a single turn of each.",
    )
    command.add_argument("a", type=Path, metavar="A", help="a folder of runs, or one run's file: before")
    command.add_argument("b", type=Path, metavar="B", help="the same: after")
    command.add_argument(
        "--figure",
        choices=list(FIGURES),
        action="append",
        help="tell just this, and let it decide the exit code; may be repeated "
        f"[told: {', '.join(each.name for each in compare.DEFAULT)}; {COST.name} decides]",
    )
    command.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    asked = [FIGURES[name] for name in options.figure or []]
    try:
        compared = compare.compare(options.a, options.b, asked or compare.DEFAULT)
    except (BadDocument, NoDocuments, OSError) as exc:
        print(exc, file=sys.stderr)
        return _WRONG_USAGE
    print("\n".join(compare.lines(compared)))
    return _FOUND if compared.worse(asked or [COST]) else _FINE
