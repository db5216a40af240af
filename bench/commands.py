"""`python -m bench`: replay real ratings against a running service or measure it, measure the spine, compare the
brokers, kill nodes of clusters, or measure the generator of all that load."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import uvloop

from bench import generator, measure, replay, runs
from bench.bars import Options
from bench.brokers import run as brokers_run
from bench.brokers.contestants import BROKERS
from bench.client import WrongAddress
from bench.clusters import run as clusters_run
from bench.lab.commands import add_bars, add_compare, add_report
from bench.lab.experiment import BadExperiment
from bench.lab.matrix import add_experiment, add_matrix
from bench.lab.sitting import FolderTaken
from bench.lesson import plan as lesson
from bench.lesson import run as lesson_run
from bench.machine import allow_files
from bench.runs import OUT
from bench.spine import run as spine_run
from core.commands import Subcommand, add_version, number
from core.errors import FanrateError
from stack.programs import MISSING_PROGRAM, MissingProgram

FINE = 0
FOUND = 1
WRONG_USAGE = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None, prog: str = "python -m bench") -> int:
    """Run one command; the exit code."""
    allow_files()
    options = _parser(prog).parse_args(arguments)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except WrongAddress as exc:
        print(f"--url: {exc}", file=sys.stderr)
        return WRONG_USAGE
    except (BadExperiment, FolderTaken) as exc:
        print(exc, file=sys.stderr)
        return WRONG_USAGE
    except MissingProgram as exc:
        print(exc, file=sys.stderr)
        return MISSING_PROGRAM
    except FanrateError as exc:
        print(exc, file=sys.stderr)
        return FOUND
    return code


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog,
        description="Replay real ratings against a running service or measure it, measure the way of a rate, compare "
        "the brokers, kill nodes of clusters, or measure the load generator.",
        epilog="Exit codes: 0 fine, 1 the run found something, 2 wrong usage, 3 a needed program is not installed.",
    )
    add_version(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Subcommand)
    _add_replay(commands)
    _add_measure(commands)
    _add_generator(commands)
    _add_spine(commands)
    _add_brokers(commands)
    _add_clusters(commands)
    add_experiment(commands)
    add_matrix(commands)
    add_report(commands)
    add_compare(commands)
    add_bars(commands)
    _add_lesson(commands)
    return parser


def _add_replay(commands: argparse._SubParsersAction[Subcommand]) -> None:
    command = commands.add_parser(
        "replay",
        help="send 5 307 real film ratings, wait until they are counted and compare",
        description="Send 5 307 real film ratings through POST /rate, wait until all are counted, and hold each "
        "subject's growth in count, sum and distribution against the file. May be repeated. Prints LOSS 0 DUP 0; exits "
        "with 1 otherwise, or when nothing moved for a minute.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("--url", default="http://127.0.0.1:8080", help="where the service listens")
    command.add_argument("--times", type=_natural, default=replay.TIMES, help="how often the file is sent")
    command.set_defaults(run=_replay)


def _replay(options: argparse.Namespace) -> int:
    result = uvloop.run(replay.replay(options.url, options.times))
    print("\n".join(replay.lines(result)))
    return FINE if result.verdict.clean else FOUND


def _add_measure(commands: argparse._SubParsersAction[Subcommand]) -> None:
    command = commands.add_parser(
        "measure",
        help="measure any running service: rates/s, percentiles, ledger",
        description="Send rates at full speed to find how many a second the service takes, for ten "
        "seconds at most; then send half as many on a schedule, and tell how long answers take from when each was due. "
        "Every rate is accounted for: prints LOSS 0 DUP 0. Exits with 1 otherwise, or when the schedule was not kept, "
        "or requests were not confirmed. "
        "Ctrl-C ends it early; what was measured is told.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("--url", default="http://127.0.0.1:8080", help="where the service listens")
    command.add_argument("--connections", type=_connections, default=measure.CONNECTIONS, help="how many, kept")
    command.add_argument("--rate", type=number(1, 100_000), metavar="R", help="rates/s of the schedule: no full speed")
    command.add_argument("--seconds", type=number(1, 3600), default=int(measure.SECONDS), help="length of the schedule")
    command.set_defaults(run=_measure)


def _measure(options: argparse.Namespace) -> int:
    measured = measure.Measured(options.url, options.connections)
    try:
        uvloop.run(measure.measure(measured, rate=options.rate, seconds=options.seconds))
    except KeyboardInterrupt:
        measured.interrupted = True
    print("\n".join(measure.lines(measured)))
    if measured.interrupted:
        return INTERRUPTED
    return FINE if measured.fine else FOUND


def _add_generator(commands: argparse._SubParsersAction[Subcommand]) -> None:
    command = commands.add_parser(
        "generator",
        help="measure the load generator itself",
        description="Send to a server that does nothing, at full speed and on a schedule of 20 000 requests/s, and "
        "tell what one core carries; exits with 1 if that is less.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("--seconds", type=number(1, 600), default=5, help="length of each")
    command.set_defaults(run=_generator)


def _generator(options: argparse.Namespace) -> int:
    carried = uvloop.run(generator.measure(options.seconds))
    print("\n".join(generator.lines(carried)))
    print(f"written: {runs.write('generator', {'seconds': options.seconds}, generator.told(carried), commands=[])}")
    return FINE if carried.met else FOUND


def _add_spine(commands: argparse._SubParsersAction[Subcommand]) -> None:
    defaults = Options()
    command = commands.add_parser(
        "spine",
        help="measure the way of a rate through NATS JetStream into Redis",
        description="Measure POST /rate, group commit, folding, freshness and memory on NATS JetStream and Redis, each "
        "against its bar. Needs redis-server, nats-server and wrk. One JSON file per measure goes to bench/out/; a "
        "missed bar names a profile, and exits with 1.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    measures = list(spine_run.MEASURES)
    command.add_argument("--only", choices=measures, action="append", help="measure just this; may be repeated")
    command.add_argument("--seconds", type=_natural, default=int(defaults.seconds), help="length of one load")
    command.add_argument("--repeat", type=_natural, default=defaults.repeat, help="turns, of which the median is taken")
    command.add_argument("--quick", action="store_true", help="a million POSTs instead of ten, fewer rates to fold")
    command.add_argument("--profile", action="store_true", help="write profiles also where the bars are met")
    command.set_defaults(run=_spine)


def _spine(options: argparse.Namespace) -> int:
    settings = Options(seconds=options.seconds, repeat=options.repeat, quick=options.quick, profile=options.profile)
    return FINE if uvloop.run(spine_run.run(options.only or list(spine_run.MEASURES), settings)) else FOUND


def _add_brokers(commands: argparse._SubParsersAction[Subcommand]) -> None:
    defaults, quick = Options(), brokers_run.QUICK
    command = commands.add_parser(
        "brokers",
        help="measure every broker side by side",
        description="Measure POST /rate, its tail, group commit, folding, nginx, TLS and memory on each broker against "
        "bars, in rounds, one topology up at a time: about 40 minutes. Prints one table with durability, versions and "
        "CPU by role, and writes a JSON file to bench/out/. A broker whose server is missing is skipped. A missed bar "
        "names a profile, and exits with 1. Needs redis-server, wrk, nginx and the brokers' servers.",
    )
    measures = list(brokers_run.MEASURES)
    alone = ", ".join(name for name in measures if name in brokers_run.ALONE)
    command.add_argument(
        "--only",
        choices=measures,
        action="append",
        help=f"measure just this; may be repeated; {alone}, of the hot route, are taken only so",
    )
    command.add_argument(
        "--brokers",
        type=_brokers,
        default=list(BROKERS),
        metavar="NAME[,NAME]",
        help=f"just these of {', '.join(BROKERS)}",
    )
    command.add_argument(
        "--seconds", type=_natural, help=f"length of one load [{defaults.seconds:g}; quick: {quick.seconds:g}]"
    )
    command.add_argument(
        "--repeat",
        type=_natural,
        help=f"rounds; the median is taken [{defaults.repeat}; quick: {quick.repeat}]",
    )
    command.add_argument("--quick", action="store_true", help="one round of short loads, for orientation: 6 minutes")
    command.add_argument("--profile", action="store_true", help="write profiles also where the bars are met")
    command.set_defaults(run=_brokers_run)


def _brokers_run(options: argparse.Namespace) -> int:
    defaults = brokers_run.QUICK if options.quick else Options()
    settings = replace(
        defaults,
        seconds=options.seconds or defaults.seconds,
        repeat=options.repeat or defaults.repeat,
        profile=options.profile,
    )
    names = options.only or [name for name in brokers_run.MEASURES if name not in brokers_run.ALONE]
    return FINE if uvloop.run(brokers_run.run(names, options.brokers, settings)) else FOUND


def _add_clusters(commands: argparse._SubParsersAction[Subcommand]) -> None:
    command = commands.add_parser(
        "clusters",
        help="kill nodes of clusters under load",
        description="Bring up three nodes of each broker in turn, and the store's Redis with two replicas; kill -9 the "
        "leading node under load, start it again, and kill the next. The longest times without a confirm and without "
        "counting are held to bars, and every rate is accounted for: about two minutes each. Prints LOSS 0 DUP 0; "
        "exits with 1 when a bar is missed. Logs stay in bench/out/.",
    )
    command.add_argument(
        "--kinds",
        type=_kinds,
        default=list(clusters_run.KINDS),
        metavar="NAME[,NAME]",
        help=f"just these of {', '.join(clusters_run.KINDS)}, the last of which is the store's; or all",
    )
    command.set_defaults(run=_clusters_run)


def _clusters_run(options: argparse.Namespace) -> int:
    return FINE if uvloop.run(clusters_run.run(options.kinds)) else FOUND


def _add_lesson(commands: argparse._SubParsersAction[Subcommand]) -> None:
    command = commands.add_parser(
        "lesson",
        help="make the experiment again that this project grew from",
        description="wrk -c5 -t5 at one server, three behind plain round robin, a handler per message and three "
        "topics, and at a Kafka client that lingers for a second: what wrk prints, beside what a lesson found, with "
        "the reasons of each difference. About five minutes. Writes lesson.md and a JSON file per row. A broker whose "
        "server is missing is skipped. Every row's ledger is closed; exits with 1 when one is not. Needs redis-server, "
        "wrk, nginx and the brokers' servers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("--seconds", type=_natural, default=10, help="length of one run of wrk")
    command.add_argument(
        "--brokers",
        type=lambda text: _listed(text, lesson.BROKERS),
        default=",".join(lesson.BROKERS),
        metavar="NAME[,NAME]",
        help="just these",
    )
    command.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="where its files go")
    command.set_defaults(run=_lesson)


def _lesson(options: argparse.Namespace) -> int:
    return FINE if uvloop.run(lesson_run.run(options.brokers, seconds=options.seconds, out=options.out)) else FOUND


def _connections(text: str) -> int:
    wanted, most = number(1, 10_000)(text), allow_files()
    if wanted > most:
        raise argparse.ArgumentTypeError(
            f"{wanted} connections are more than the {most} that `ulimit -Hn` leaves room for"
        )
    return wanted


def _kinds(text: str) -> list[str]:
    return list(clusters_run.KINDS) if text == "all" else _listed(text, clusters_run.KINDS)


def _brokers(text: str) -> list[str]:
    return _listed(text, BROKERS)


def _listed(text: str, known: Sequence[str]) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")
    return names


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10**6):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000")
    return int(text)
