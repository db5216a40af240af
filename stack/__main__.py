"""`python -m stack`: Fanrate on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from core.commands import Subcommand, add_version, number, remedy
from core.errors import SettingsError
from core.program import WRONG_USAGE
from core.sections import load
from core.settings import Dispatch, Dispatching, Durability
from stack.configuration import Balancer
from stack.topology import Broker, Topology

DESCRIPTION = "Fanrate on this machine: run (one process), up (real servers), services (install those servers)."
UP = """\
Starts Redis, the broker, processes, API replicas and perhaps nginx as local processes, watches them, restarts what
dies, and stops all at Ctrl-C. Prints a table of the parts, then a line that begins with "ready". Logs, data and
parts.json lie in the directory. The services take their settings from the environment too: `{api} --help`."""
_KEEP_WORDS = {"": False, "0": False, "no": False, "false": False, "1": True, "yes": True, "true": True}
CODES = "exit codes: 0 fine, 1 it could not run or go on, 2 wrong usage or settings, 3 a program is not installed"


def main(arguments: Sequence[str] | None = None, prog: str = "python -m stack") -> int:
    """Run one command; the exit code."""
    options = _parser(prog).parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog, description=DESCRIPTION, epilog=CODES)
    add_version(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Subcommand)
    run = commands.add_parser("run", help="one process, nothing but Python; nothing survives a restart", epilog=CODES)
    run.add_argument("--port", type=number(1, 65_535), help="port to listen on [PORT, else 8080]")
    run.set_defaults(command=_run)
    up = commands.add_parser(
        "up",
        help="the real topology as local processes",
        description=UP.format(api=remedy("python -m api", "fanrate api")),
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    up.add_argument("--broker", choices=get_args(Broker), default="nats", help="[nats]")
    up.add_argument(
        "--dispatch",
        choices=get_args(Dispatch),
        help="one topic for all, TOPICS topics shared out among the processes, or no broker [DISPATCH, else group]",
    )
    up.add_argument("--durability", choices=get_args(Durability), help="of all servers [DURABILITY, else confirmed]")
    up.add_argument("--replicas", type=number(1, 64), default=1, metavar="N", help="API replicas, 1 to 64 [1]")
    up.add_argument("--processes", type=number(1, 64), default=1, metavar="N", help="consumers, 1 to 64 [1]")
    up.add_argument("--balancer", choices=["none", *get_args(Balancer)], default="none", help="[none]")
    up.add_argument(
        "--port",
        type=number(1, 65_535),
        default=8080,
        help="the balancer's port; without one, replica k listens on PORT + k - 1 [8080]",
    )
    up.add_argument("--directory", type=Path, default=Path(".stack"), help="where data and logs go [.stack]")
    up.add_argument("--keep", action="store_true", help="go on with an earlier run's data; also KEEP=1")
    up.set_defaults(command=lambda arguments: _up(up, arguments))
    services = commands.add_parser("services", help="install the servers that a topology needs", epilog=CODES)
    services.add_argument("--broker", choices=[*get_args(Broker), "all"], default="nats", help="[nats]")
    services.set_defaults(command=_services)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from stack import embedded

    if arguments.port is not None:
        os.environ["PORT"] = str(arguments.port)
    embedded.main()
    return 0


def _up(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from stack import up

    if arguments.balancer == "none" and arguments.port + arguments.replicas - 1 > 65_535:
        parser.error(
            f"--port {arguments.port} leaves no room for {arguments.replicas} replicas: the last port is 65535"
        )
    for name in ("dispatch", "durability"):
        if value := getattr(arguments, name):
            os.environ[name.upper()] = value
    try:
        dispatching = load(Dispatching)
        topology = Topology(
            broker=arguments.broker,
            replicas=arguments.replicas,
            processes=arguments.processes,
            balancer=None if arguments.balancer == "none" else arguments.balancer,
            port=arguments.port,
            dispatch=dispatching.dispatch,
            topics=dispatching.topics,
            durability=dispatching.durability,
        )
    except SettingsError as exc:
        print(f"fanrate: {exc}", file=sys.stderr)
        return WRONG_USAGE
    asked = os.environ.get("KEEP", "").lower()
    if asked not in _KEEP_WORDS:
        parser.error(f"KEEP={asked}: takes 1 or 0")
    return up.main(topology, arguments.directory, keep=arguments.keep or _KEEP_WORDS[asked])


def _services(arguments: argparse.Namespace) -> int:
    from stack import services

    return services.main(get_args(Broker) if arguments.broker == "all" else [arguments.broker])


if __name__ == "__main__":
    sys.exit(main())
