"""`make compose-check`: each compose file brought up for real, scaled, loaded while every container is killed, stopped
and started again, and given other settings than its volumes were made with; then, from the start, with locks. Needs a
container engine."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from core.errors import FanrateError
from stack.ports import free_port
from stack.programs import MISSING_PROGRAM
from tests.deploy.engine import UP_S, CheckFailed, Container, NoEngine, Project, engine_version, project
from tests.deploy.files import BROKERS
from tests.deploy.locked import check_locked
from tests.deploy.steps import build, counted, killed_under_load, locked_down, replayed, say, services_of

FINE, FOUND = 0, 1
TOLD_TRIES = 60
TOLD_PAUSE_S = 1.0
NO_ENGINE = """\
no engine answers: {reason}
The check needs Docker Engine 20.10 and compose 2.33 (`docker compose version`), or newer, and a user who may use them:
https://docs.docker.com/engine/install/"""

SPOILED = {
    "nats": """
import asyncio, nats
async def main():
    client = await nats.connect("nats://nats:4222")
    jetstream = client.jetstream()
    config = (await jetstream.stream_info("rates")).config
    config.max_age = 3600
    await jetstream.update_stream(config)
    await client.close()
asyncio.run(main())
""",
    "kafka": """
import asyncio
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
async def main():
    client = AIOKafkaAdminClient(bootstrap_servers="kafka:9092")
    await client.start()
    await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, "rates", {"retention.ms": "3600000"})])
    await client.close()
asyncio.run(main())
""",
}
"""Gives the topic a setting that could lose messages; run where the services run. A queue of RabbitMQ cannot be given
another: there, the services ask for another DURABILITY."""


async def check(broker: str) -> None:
    """Raises FanrateError, or AssertionError from the load, with what is wrong."""
    print(f"docker-compose.{broker}.yml", flush=True)
    start = time.monotonic()
    async with project(broker, free_port()) as compose:
        await build(compose)
        say("up", f"all healthy after {await compose.up():.1f} s")
        await locked_down(compose)
        say("scale", f"3 replicas, 2 processes after {await scale(compose):.1f} s")
        await replayed(compose)
        await shared_out(compose)
        await killed_under_load(compose, await compose.containers())
        await stopped_and_started(compose)
        await other_settings(compose, broker)
        await topics(compose)
    say("clean", f"LOSS 0 DUP 0, {time.monotonic() - start:.0f} s")


async def scale(compose: Project) -> float:
    return await compose.up("--scale", "api=3", "--scale", "process=2")


async def shared_out(compose: Project) -> None:
    """nginx has found every replica, and every process has counted."""
    shares = {}
    for container in await services_of(compose):
        name = "fanrate_confirmed_rates_total" if container.kind == "api" else "fanrate_counted_rates_total"
        shares[container.name] = int(await compose.metric(container, name))
    if len(shares) != 5 or not all(shares.values()):
        raise CheckFailed(f"not everyone took part: {shares}")
    say("shared out", ", ".join(f"{name} {share}" for name, share in shares.items()))


async def stopped_and_started(compose: Project) -> None:
    before = await counted(compose)
    await compose.down()
    after_s = await compose.up()
    if (after := await counted(compose)) != before:
        raise CheckFailed(f"{before} were counted before, {after} are after")
    say("down, up", f"after {after_s:.1f} s all {after} are there")
    await replayed(compose)


async def other_settings(compose: Project, broker: str) -> None:
    """The broker's volume holds a topic with other settings than it should: it is said by name and with the way out,
    nothing dies of it, and after the way out the counts are there. Another DURABILITY, by the way, reaches the servers:
    processes are not ready before the store has what it asks for."""
    before = await counted(compose)
    settings = {"DURABILITY": "fsync" if broker in SPOILED else "relaxed"}
    if broker in SPOILED:
        await compose.inside("api", "python", "-c", SPOILED[broker])
    await compose.compose("up", "--detach", "--force-recreate", "api", "process", timeout_s=UP_S, **settings)
    for container, reason in await until_told(compose):
        say(f"spoiled: {container.name}", reason)
        if "once all is counted" not in reason or container.restarts:
            raise CheckFailed(f"{container.name} said {reason!r} after {container.restarts} restarts")
    await compose.forget_broker()
    await compose.up(**settings)
    if (after := await counted(compose)) != before:
        raise CheckFailed(f"{before} were counted before, {after} are after")
    say("volume made anew", f"with DURABILITY={settings['DURABILITY']}, and all {after} counts are there")
    await replayed(compose)


async def until_told(compose: Project) -> list[tuple[Container, str]]:
    """Each replica and process, with why it is not ready, once all have found out what is wrong with the topic."""
    told: list[tuple[Container, str]] = []
    for _ in range(TOLD_TRIES):
        told = [(each, await compose.reason(each)) for each in await services_of(compose)]
        if told and all("topic" in reason for _, reason in told):
            return told
        await asyncio.sleep(TOLD_PAUSE_S)
    raise CheckFailed(f"nothing was said of the topic: {[reason for _, reason in told]}")


async def topics(compose: Project) -> None:
    """One process for each topic."""
    await compose.forget_broker()
    await compose.up("--scale", "process=0", profile="topics", DISPATCH="topics")
    await replayed(compose)
    names = [each.name for each in await compose.containers()]
    readers = [name for name in names if name.startswith("process")]
    if readers != ["process-1-1", "process-2-1", "process-3-1"]:
        raise CheckFailed(f"the processes are {readers}")
    say("profile topics", ", ".join(names))


async def check_all(brokers: Sequence[str], checks: Sequence[Callable[[str], Awaitable[None]]]) -> int:
    """The exit code."""
    try:
        print(await engine_version(), flush=True)
    except NoEngine as exc:
        print(NO_ENGINE.format(reason=exc), file=sys.stderr)
        return MISSING_PROGRAM
    for broker in brokers:
        try:
            for each in checks:
                await each(broker)
        except (FanrateError, AssertionError) as exc:
            print(f"docker-compose.{broker}.yml: {exc}", file=sys.stderr)
            return FOUND
    return FINE


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.deploy.check", description=__doc__)
    parser.add_argument("--broker", choices=[*BROKERS, "all"], default="all", help="[all]")
    parser.add_argument("--locks", choices=["without", "with", "both"], default="both", help="[both]")
    chosen = parser.parse_args()
    checks = {"without": [check], "with": [check_locked], "both": [check, check_locked]}[chosen.locks]
    return asyncio.run(check_all(BROKERS if chosen.broker == "all" else [chosen.broker], checks))


if __name__ == "__main__":
    sys.exit(main())
