"""A compose file without locks, and then with them: nobody else is let in, no secret is shown, and what dies comes
back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from stack.ports import free_port
from tests.deploy.engine import UP_S, CheckFailed, Container, Project, attempt, call, project
from tests.deploy.files import ROOT, locked_services, services
from tests.deploy.steps import build, counted, killed_under_load, locked_down, replayed, say, services_of

MAKE = ROOT / "deploy" / "locks" / "make.sh"
PASSWORDS = ("broker.password", "store.password")
REFUSED = "{0} refuses user and password, as {1}_USER and {1}_PASSWORD_FILE have them"
TRIES = 60
PAUSE_S = 1.0

VISIT = """
import asyncio, sys
from brokers import open_broker
from core.endpoints import Access, Endpoint
from core.errors import FanrateError
from core.settings import Keeping
from store import open_store

async def at_store(endpoint):
    store = open_store(endpoint, Keeping())
    try:
        await store.check()
    finally:
        await store.close()

async def at_broker(endpoint):
    broker = open_broker(endpoint, name="visitor")
    await broker.start()
    try:
        for _ in range(50):
            try:
                return await broker.ensure("visits", ["visitors"])
            except FanrateError as exc:
                said = exc
            if str(said) != f"no connection to {endpoint}":
                break
            await asyncio.sleep(0.2)
        raise said
    finally:
        await broker.close()

setting, url, user, password = sys.argv[1:]
file = f"/run/secrets/{setting.lower()}_password" if user and not password else ""
ca_file = "/run/secrets/authority" if "+tls" in url else ""
endpoint = Endpoint.of(url, Access(setting, user, password, file, ca_file, "plain"))
try:
    asyncio.run((at_store if setting == "STORE" else at_broker)(endpoint))
except FanrateError as exc:
    print(f"refused: {exc}")
else:
    print("let in")
"""


async def check_locked(broker: str) -> None:
    """Raises FanrateError, or AssertionError from the load, with what is wrong."""
    print(f"docker-compose.{broker}.yml with deploy/locks/{broker}.yml", flush=True)
    start = time.monotonic()
    with TemporaryDirectory() as directory:
        folder = Path(directory) / "locks"
        await call("sh", str(MAKE), str(folder))
        async with project(broker, free_port()) as compose:
            await build(compose)
            await locked_afterwards(compose, folder)
            await locked_down(compose)
            await replayed(compose)
            await strangers(compose, broker)
            await killed_under_load(compose, [each for each in await compose.containers() if is_server(each)])
            await replayed(compose)
            await wrong_passwords(compose, broker, folder)
            await replayed(compose)
            await nothing_shown(compose, folder)
    say("clean", f"LOSS 0 DUP 0, {time.monotonic() - start:.0f} s")


async def locked_afterwards(compose: Project, folder: Path) -> None:
    """Volumes that were begun without locks."""
    await compose.up()
    await replayed(compose)
    before = await counted(compose)
    compose.lock(folder)
    after_s = await compose.up()
    if (after := await counted(compose)) != before:
        raise CheckFailed(f"{before} were counted without locks, {after} with them")
    say("locked", f"all healthy after {after_s:.1f} s, and all {after} counts are there")


async def strangers(compose: Project, broker: str) -> None:
    """Who comes without TLS, without a user, with the wrong one, or as the compose file says without locks."""
    plain, locked = (each["api"]["environment"] for each in (services(broker), locked_services(broker)))
    for setting in ("BROKER", "STORE"):
        open_url, url = plain[f"{setting}_URL"], locked[f"{setting}_URL"]
        if (told := await visit(compose, setting, url, "fanrate", "")) != "let in":
            raise CheckFailed(f"fanrate with its password at {url}: {told}")
        for way in ((open_url, "", ""), (url, "", ""), (url, "fanrate", "wrong"), (url, "guest", "guest")):
            told = await visit(compose, setting, *way)
            if not told.startswith("refused: "):
                raise CheckFailed(f"{way}: {told}")
            say(f"{setting.lower()}, {way[1] or 'nobody'}", told.removeprefix("refused: "))


async def visit(compose: Project, setting: str, url: str, user: str, password: str) -> str:
    """`let in`, or why not; without a password, `user` has the right one."""
    told = await compose.inside("api", "python", "-c", VISIT, setting, url, user, password)
    return told.splitlines()[-1]  # what stands before it was logged


async def wrong_passwords(compose: Project, broker: str, folder: Path) -> None:
    """New replicas and processes are red with the cause, and go on by themselves once it is put right."""
    right = {folder / name: (folder / name).read_text() for name in PASSWORDS}
    for path in right:
        path.write_text("wrong\n")
    again = ("up", "--detach", "--force-recreate", "--no-deps", "api", "process")
    await compose.compose(*again, timeout_s=UP_S)
    environment = locked_services(broker)["api"]["environment"]
    for setting in ("BROKER", "STORE"):
        _, _, place = environment[f"{setting}_URL"].partition("://")
        for container in await services_of(compose):
            if (setting, container.kind) == ("STORE", "api"):
                continue  # is ready without the store
            reason = await until_told(compose, container, REFUSED.format(place.partition("/")[0], setting))
            say(f"wrong: {container.name}", reason)
    for path, text in right.items():
        path.write_text(text)
    for container in await services_of(compose):
        say(f"put right: {container.name}", f"ready after {await until_ready(container):.1f} s")
    if restarted := [each.name for each in await services_of(compose) if each.restarts]:
        raise CheckFailed(f"{restarted} were restarted meanwhile")


async def until_told(compose: Project, container: Container, wanted: str) -> str:
    """Wait until that is a part of why it is not ready; the whole of it."""
    told = ""
    for _ in range(TRIES):
        told = await compose.reason(container)
        if wanted in told:
            return told
        await asyncio.sleep(PAUSE_S)
    raise CheckFailed(f"{container.name} said {told!r}, not {wanted!r}")


async def until_ready(container: Container) -> float:
    """How long it took, seconds."""
    start = time.monotonic()
    for _ in range(TRIES):
        code, _, _ = await attempt("docker", "exec", container.id, "fanrate", "healthy", "--ready")
        if not code:
            return time.monotonic() - start
        await asyncio.sleep(PAUSE_S)
    raise CheckFailed(f"{container.name} is not ready {TRIES * PAUSE_S:g} s after it was put right")


async def nothing_shown(compose: Project, folder: Path) -> None:
    """No password and no key, wherever the engine shows something; all has been said by now."""
    secrets = [(folder / name).read_text().strip() for name in PASSWORDS]
    secrets.append((folder / "server.key").read_text().splitlines()[1])
    for container in await compose.containers():
        shown = await compose.shown(container)
        if any(secret in shown for secret in secrets):
            raise CheckFailed(f"{container.name}: a secret is shown by docker inspect, top or logs")
        if is_server(container) and "/run/secrets/server_key" not in shown:
            raise CheckFailed(f"{container.name}: docker inspect does not show where its key is")
    say("secrets", "none in docker inspect, top and logs")


def is_server(container: Container) -> bool:
    return container.kind not in ("api", "process", "nginx")
