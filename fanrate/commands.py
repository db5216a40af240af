"""What `fanrate` can do: each command is handed on to the room that has it, and no other is imported."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final, NamedTuple

from core.commands import add_version

MISSING: Final = 3
"""The exit code when something that the command needs is not installed."""


class Command(NamedTuple):
    """`module` has the `main`. A `shared` one has several commands and is told the name of the one that is meant."""

    module: str
    shared: bool
    help: str


COMMANDS: Final = {
    "run": Command("stack.__main__", True, "the service in one process, in memory, for trying it"),
    "up": Command("stack.__main__", True, "the service on this machine, with real servers as local processes"),
    "services": Command("stack.__main__", True, "install the servers that `up` needs"),
    "replay": Command("bench.commands", True, "send 5 307 real ratings and account for every one"),
    "api": Command("api.__main__", False, "one replica of the HTTP interface"),
    "process": Command("process.__main__", False, "one counting process"),
    "dead": Command("process.__main__", True, "list dead letters"),
    "redrive": Command("process.__main__", True, "send dead letters again"),
    "healthy": Command("fanrate.healthy", False, "ask the service on this machine how it is, as a health check does"),
}
_EPILOG: Final = "`fanrate COMMAND --help` tells more. Exit codes: docs/operations.md."


def prepare(given: Sequence[str], prog: str) -> Callable[[], int]:
    """What runs the command that is asked for and returns the exit code. Ends the program if it is none."""
    if not given or given[0] not in COMMANDS:
        _parser(prog).parse_args(given)
    name, *arguments = given
    command = COMMANDS[name]
    try:
        room = import_module(command.module)
    except ModuleNotFoundError as exc:
        if not command.module.startswith("bench."):
            raise
        print(f"{prog}: {name} needs {exc.name}, which is not installed: install fanrate[bench]", file=sys.stderr)
        raise SystemExit(MISSING) from None
    if command.shared:
        return lambda: room.main([name, *arguments], prog)
    return lambda: room.main(arguments, f"{prog} {name}")


def _parser(prog: str) -> argparse.ArgumentParser:
    """Tells what there is, and ends the program: it knows commands by name only."""
    parser = argparse.ArgumentParser(prog, description="Takes ratings over HTTP and counts each once.", epilog=_EPILOG)
    add_version(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help, add_help=False)
    return parser
