"""wrk: a closed loop at full load, for peaks. No latency is taken from it: a closed loop leaves out what it waited."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

import msgspec

from bench.client import Address
from core.errors import FanrateError
from stack.programs import find

Script = Literal["rate", "rates", "message"]
RATES_PER_REQUEST: dict[Script, int] = {"rate": 1, "rates": 1000, "message": 1}
_TIMEOUT_S = 30


class WrkFailed(FanrateError):
    """wrk ended with an error."""


class Peak(msgspec.Struct, frozen=True):
    """What wrk did: `requests` were answered, `not_200` of them with a status of 400 or more; the others are sockets
    with an error."""

    requests: int
    duration_us: int
    not_200: int
    connect: int
    read: int
    write: int
    timeout: int
    connections: int = 0
    rates_per_request: int = 1

    @property
    def confirmed(self) -> int:
        """Requests answered 200."""
        return self.requests - self.not_200

    @property
    def confirmed_rates(self) -> int:
        return self.confirmed * self.rates_per_request

    @property
    def failed(self) -> int:
        """Requests that were not answered 200, and sockets with an error."""
        return self.not_200 + self.connect + self.read + self.write + self.timeout

    @property
    def sent_rates(self) -> int:
        """At most so many left: each connection may have had one under way at the end, each error another."""
        unanswered = self.connections + self.read + self.write + self.timeout
        return (self.requests + unanswered) * self.rates_per_request

    @property
    def per_s(self) -> float:
        """Rates answered 200 a second."""
        return self.confirmed_rates / (self.duration_us / 1e6)


def command(
    address: Address,
    script: str,
    *,
    connections: int,
    seconds: float,
    threads: int = 1,
    arguments: Sequence[str] = (),
) -> list[str]:
    """wrk's command line; raises MissingProgram. Its timeout is long: one that passes only hides a latency."""
    options = ["-t", str(threads), "-c", str(connections), "-d", f"{max(1, round(seconds))}s"]
    options += ["--timeout", f"{_TIMEOUT_S}s"]
    given = ["--", *arguments] if arguments else []
    return [str(find("wrk")), *options, "-s", script, f"http://{address}", *given]


async def run(address: Address, script: Script, *, connections: int, seconds: float) -> Peak:
    """Send at full load for `seconds`, in whole seconds; raises MissingProgram and WrkFailed."""
    output = await told(address, script, connections=connections, seconds=seconds)
    return peak(output, script, connections=connections)


async def told(
    address: Address,
    script: str,
    *,
    connections: int,
    seconds: float,
    threads: int = 1,
    arguments: Sequence[str] = (),
) -> str:
    """What wrk prints when it has done the same, as it prints it; raises MissingProgram and WrkFailed."""
    with as_file(files("bench").joinpath("wrk", f"{script}.lua")) as path:
        argv = command(
            address, str(path), connections=connections, seconds=seconds, threads=threads, arguments=arguments
        )
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(seconds + 2 * _TIMEOUT_S):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    text = output.decode(errors="replace")
    if process.returncode:
        raise WrkFailed(text.strip())
    return text


def peak(output: str, script: Script, *, connections: int) -> Peak:
    """What `output` comes to, with what wrk does not say of itself; raises WrkFailed."""
    return msgspec.structs.replace(
        parse(output.encode()), connections=connections, rates_per_request=RATES_PER_REQUEST[script]
    )


async def run_bytes(
    address: Address, path: Path, *, connections: int, seconds: float, first: int = 0, rates_per_request: int = 1
) -> Peak:
    """Like `run`, with the requests in `path`, which `write_requests` made, from number `first` on, round and round."""
    arguments = [str(path), str(first)]
    output = await told(address, "bytes", connections=connections, seconds=seconds, arguments=arguments)
    return msgspec.structs.replace(parse(output.encode()), connections=connections, rates_per_request=rates_per_request)


def write_requests(path: Path, requests: Iterable[bytes]) -> None:
    """Whole requests as they go over the wire, for `run_bytes`."""
    with path.open("wb") as file:
        for request in requests:
            file.write(b"%d\n%b" % (len(request), request))


def parse(output: bytes) -> Peak:
    """The line that the script's `done` wrote; raises WrkFailed."""
    lines = [line for line in output.splitlines() if line.startswith(b"{")]
    if not lines:
        raise WrkFailed(f"wrk said nothing of its requests: {output.decode(errors='replace').strip()}")
    return msgspec.json.decode(lines[-1], type=Peak)
