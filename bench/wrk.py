"""wrk: a closed loop at full load, for peaks. No latency is taken from it: a closed loop leaves out what it waited."""

from __future__ import annotations

import asyncio
from importlib.resources import as_file, files
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
    def sent_rates(self) -> int:
        """At most so many left: each connection may have had one under way at the end, each error another."""
        unanswered = self.connections + self.read + self.write + self.timeout
        return (self.requests + unanswered) * self.rates_per_request

    @property
    def per_s(self) -> float:
        """Rates answered 200 a second."""
        return self.confirmed_rates / (self.duration_us / 1e6)


def command(address: Address, script: str, *, connections: int, seconds: float) -> list[str]:
    """wrk with one thread; raises MissingProgram."""
    options = ["-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s", "--timeout", f"{_TIMEOUT_S}s"]
    return [str(find("wrk")), *options, "-s", script, f"http://{address}"]


async def run(address: Address, script: Script, *, connections: int, seconds: float) -> Peak:
    """Send at full load for `seconds`, in whole seconds; raises MissingProgram and WrkFailed."""
    with as_file(files("bench").joinpath("wrk", f"{script}.lua")) as path:
        arguments = command(address, str(path), connections=connections, seconds=seconds)
        process = await asyncio.create_subprocess_exec(
            *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(seconds + 2 * _TIMEOUT_S):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        raise WrkFailed(output.decode(errors="replace").strip())
    return msgspec.structs.replace(parse(output), connections=connections, rates_per_request=RATES_PER_REQUEST[script])


def parse(output: bytes) -> Peak:
    """The line that the script's `done` wrote; raises WrkFailed."""
    lines = [line for line in output.splitlines() if line.startswith(b"{")]
    if not lines:
        raise WrkFailed(f"wrk said nothing of its requests: {output.decode(errors='replace').strip()}")
    return msgspec.json.decode(lines[-1], type=Peak)
