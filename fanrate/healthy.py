"""`fanrate healthy`: asks the service on this machine how it is, for the health checks of containers.

A check runs every few seconds beside the service that it asks, so this imports nothing that it could do without.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final

from core.commands import add_version, number

HOST: Final = "127.0.0.1"
PORT: Final = "8080"
ANSWER_S: Final = 2.0
"""How long the service may be silent."""
MOST_BYTES: Final = 65_536


def main(arguments: Sequence[str] | None = None, prog: str = "python -m fanrate.healthy") -> int:
    """Ask once; 0 if the answer is yes, else 1 and the reason on standard error."""
    options = _parser(prog).parse_args(arguments)
    reason = _ask(options.port, "/readyz" if options.ready else "/healthz")
    if reason:
        print(f"fanrate: {reason}", file=sys.stderr)
        return 1
    print("ready" if options.ready else "healthy")
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog,
        description=f"Asks the service on {HOST} whether it is healthy: whether it should be left to run.",
        epilog="Exit codes: 0 yes, 1 no or no answer; the reason is on standard error. 2 wrong usage.",
    )
    add_version(parser)
    parser.add_argument("--ready", action="store_true", help="ask whether it is ready: whether it can do its work now")
    parser.add_argument(
        "--port",
        type=number(1, 65_535),
        default=os.environ.get("PORT") or PORT,
        help=f"where it listens [PORT, else {PORT}]; a process listens on its HEALTH_PORT",
    )
    return parser


def _ask(port: int, path: str) -> str | None:
    """Why the answer is not yes, or None if it is."""
    connection = HTTPConnection(HOST, port, timeout=ANSWER_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(MOST_BYTES)
    except (OSError, HTTPException) as exc:
        return f"no answer from http://{HOST}:{port}{path}: {exc}"
    finally:
        connection.close()
    return None if response.status == HTTPStatus.OK else _reason(response.status, body)


def _reason(status: int, body: bytes) -> str:
    """What a problem document says, which names the checks that failed."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, LookupError, TypeError):
        return f"answered {status}, and not with a problem document: is that fanrate?"


if __name__ == "__main__":
    sys.exit(main())
