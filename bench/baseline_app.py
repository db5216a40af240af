"""The yardstick: an aiohttp application that does nothing, `python -m bench.baseline_app PORT`."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web


async def handle(_: web.Request) -> web.Response:
    return web.Response()


def main(port: int) -> None:
    app = web.Application()
    app.router.add_post("/rate", handle)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main(int(sys.argv[1]))
