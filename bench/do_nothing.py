"""The least a server can do: `python -m bench.do_nothing PORT` answers 200 to every request, whatever it asks.

What a generator carries is measured against it. It counts blank lines and reads nothing, so requests must have no body.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class DoNothing(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n") and not self._rest:
            self._transport.write(_ANSWER * data.count(b"\r\n\r\n"))
            return
        data = self._rest + data
        whole = data.count(b"\r\n\r\n")
        self._rest = data[data.rfind(b"\r\n\r\n") + 4 :] if whole else data
        self._transport.write(_ANSWER * whole)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(DoNothing, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
