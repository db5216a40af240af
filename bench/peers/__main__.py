"""`python -m bench.peers`: build the peers that are built of source, and say which of all are there."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from bench.peers import PEERS, NotBuilt, Peer
from bench.peers.building import Recipe, say
from core.commands import add_version
from stack.programs import MISSING_PROGRAM, MissingProgram

FINE = 0
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what is missing; the exit code."""
    chosen: list[Peer] = _parser().parse_args(arguments).only
    recipes = list({peer.recipe.name: peer.recipe for peer in chosen if peer.recipe is not None}.values())
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _end)
    try:
        for recipe in recipes:
            _build(recipe)
    except KeyboardInterrupt:
        say("\ninterrupted")
        return INTERRUPTED
    for peer in chosen:
        print(f"{peer.name}: {_state(peer)}")
    return FINE if not recipes or any(recipe.is_built for recipe in recipes) else MISSING_PROGRAM


def _end(number: int, frame: object) -> None:
    """A build is in a group of its own, which nobody else ends."""
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m bench.peers",
        description="Build the peers that are built of source, into the user's cache, and say which of all are there. "
        "One whose toolchain is missing is left out, with the reason.",
        epilog="Exit codes: 0 fine, 2 wrong usage, 3 none of what is built of source is there.",
    )
    add_version(parser)
    parser.add_argument(
        "--only", type=_named, default=list(PEERS.values()), metavar="NAME[,NAME]", help=", ".join(PEERS)
    )
    return parser


def _named(text: str) -> list[Peer]:
    names = text.split(",")
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(PEERS)}")
    return [PEERS[name] for name in names]


def _build(recipe: Recipe) -> None:
    if recipe.is_built:
        return
    try:
        recipe.build(say)
    except NotBuilt as exc:
        say(str(exc))


def _state(peer: Peer) -> str:
    try:
        peer.check()
    except (NotBuilt, MissingProgram) as exc:
        return str(exc)
    versions = ", ".join(f"{name} {version}" for name, version in peer.versions().items())
    return f"there, for {', '.join(peer.brokers)}: {versions}"


if __name__ == "__main__":
    sys.exit(main())
