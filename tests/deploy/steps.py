"""What every check of a compose file does with it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.client import Address
from bench.reading import Reader
from bench.replay import replay
from tests.deploy.engine import CheckFailed, Container, Project, call
from tests.deploy.files import dockerfile
from tests.trouble.load import Load, load_on

MOST_IMAGE_BYTES = 120_000_000
"""What the image may hold beyond its base, unpacked."""
FLOWS_S = 60.0
"""How soon after a container is healthy again confirms, or counts, must flow."""
REPLAYS = 2


def say(step: str, result: str) -> None:
    print(f"  {step:<22} {result}", flush=True)


async def build(compose: Project) -> None:
    await compose.compose("build", "--quiet", "api", timeout_s=600)
    base = re.search(r"^ARG PYTHON=(\S+)$", dockerfile(), re.MULTILINE)
    assert base
    size = await call("docker", "run", "--rm", "--network", "none", "fanrate", "du", "-s", "-B1", "/opt/fanrate")
    beyond = int(size.split()[0])
    if beyond > MOST_IMAGE_BYTES:
        raise CheckFailed(f"the image holds {beyond} bytes beyond its base, at most {MOST_IMAGE_BYTES}")
    say("image", f"{beyond / 1e6:.1f} MB beyond python:{base[1]}")


async def locked_down(compose: Project) -> None:
    """What the kernel says of each container's first process."""
    for container in await compose.containers():
        asked = "grep -E '^(Uid|CapBnd|NoNewPrivs):' /proc/1/status; touch /written 2>&1 || true"
        told = await call("docker", "exec", container.id, "sh", "-c", asked)
        rights = dict(re.findall(r"^(\w+):\s+(\w+)", told, re.MULTILINE))
        if rights.get("Uid", "0") == "0" or int(rights["CapBnd"], 16) or rights["NoNewPrivs"] != "1":
            raise CheckFailed(f"{container.name} has rights: {rights}")
        if "Read-only" not in told:
            raise CheckFailed(f"{container.name} could write: {told}")
    say("locked down", "no root, no capability, nothing to write to")


async def replayed(compose: Project) -> None:
    result = await replay(compose.url, REPLAYS)
    if not result.verdict.clean:
        raise CheckFailed("; ".join([str(result.verdict), *result.verdict.lines()]))
    say("replay", f"{result.verdict.confirmed} confirmed, {result.verdict.counted} counted, {result.verdict}")


async def killed_under_load(compose: Project, containers: Sequence[Container]) -> None:
    async with load_on(compose.url, soon_s=FLOWS_S) as load:
        for container in containers:
            await compose.kill(container)
            after_s = await compose.until_back(container)
            await load.flows()
            await load.grows("counting", load.counted_rates, FLOWS_S)
            say(f"kill -9 {container.name}", f"healthy again after {after_s:.1f} s")
        await load.stop()
        await settled(load)


async def settled(load: Load) -> None:
    await load.settle(abandoned=True)
    verdict = await load.verdict()
    say("load meanwhile", f"{verdict.confirmed} confirmed, {verdict.counted} counted, {verdict}")


async def services_of(compose: Project) -> list[Container]:
    return [each for each in await compose.containers() if each.kind in ("api", "process")]


async def counted(compose: Project) -> int:
    reader = Reader(Address.of(compose.url))
    try:
        return (await reader.totals()).count
    finally:
        reader.close()
