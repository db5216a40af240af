"""Services before locked servers: red with the cause while they are not let in, and never with a secret in what they
say."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from bench.client import Address, ClientError, Connection, request_bytes
from stack import parts
from stack.locks import Locks, change_password, make_locks
from stack.member import Member
from stack.supervisor import PARTS_FILE, Stack
from stack.up import table
from tests.servers import needs

SOON_S = 30.0
CANARY = "canary/9f@x"
CONNECT_FAILED = "broker_connect_failed"


@dataclass(frozen=True, slots=True)
class Servers:
    """NATS as broker and Redis as store, behind the same locks."""

    stack: Stack
    nats: Member
    redis: Member
    locks: Locks

    async def services(self, env: dict[str, str], urls: dict[str, str], name: str = "") -> list[Member]:
        """A replica and a process, not waited for."""
        common = {"env": {"LOG_LEVEL": "debug", "CONFIRM_TIMEOUT_S": "1", **env}, **urls}
        made = [
            parts.api(self.stack.directory, name=f"api{name}", **common),  # type: ignore[arg-type]
            parts.process(self.stack.directory, name=f"process{name}", **common),  # type: ignore[arg-type]
        ]
        return [await self.stack.start(part, wait=False) for part in made]

    @property
    def urls(self) -> dict[str, str]:
        return {"broker_url": self.nats.url, "store_url": self.redis.url}


@asynccontextmanager
async def servers(directory: Path, *, password: str = "") -> AsyncIterator[Servers]:
    needs("nats-server", "redis-server", "openssl")
    locks = make_locks(directory / "locks")
    if password:
        locks.password_file.write_text(password)
    async with Stack(directory) as stack:
        nats = await stack.start(parts.nats(directory, locks=locks))
        redis = await stack.start(parts.redis(directory, locks=locks))
        yield Servers(stack, nats, redis, locks)


async def ask(member: Member, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body."""
    address = Address.of(member.url)
    connection = Connection(address, timeout_s=10.0)
    try:
        answer = await connection.exchange(request_bytes(address, method, path))
    finally:
        connection.close()
    return answer.status, answer.body.decode()


async def reads(member: Member, status: int, *said: str) -> str:
    """Wait until /readyz is answered so, with all that is `said` in it."""
    found: tuple[int, str] = (0, "")
    try:
        async with asyncio.timeout(SOON_S):
            while found[0] != status or not all(each in found[1] for each in said):
                await asyncio.sleep(0.05)
                try:
                    found = await ask(member, "/readyz")
                except ClientError:
                    continue
    except TimeoutError:
        raise AssertionError(f"{member.name} says {found}, its log {member.log_tail()}") from None
    return found[1]


async def test_red_with_the_cause_until_it_is_put_right(tmp_path: Path) -> None:
    async with servers(tmp_path) as served:
        file = tmp_path / "password"
        file.write_text("wrong")
        files = {f"{setting}_PASSWORD_FILE": str(file) for setting in ("BROKER", "STORE")}
        env = served.locks.settings("BROKER") | served.locks.settings("STORE") | files
        api, process = await served.services(env, served.urls)
        for member in (api, process):
            await reads(
                member,
                503,
                f"{served.nats.address} refuses user and password, as BROKER_USER and BROKER_PASSWORD_FILE have them: ",
                f"{served.redis.address} refuses user and password, as STORE_USER and STORE_PASSWORD_FILE have them: ",
            )
            assert member.running
        file.write_text(served.locks.password)
        for member in (api, process):
            await reads(member, 200)
            assert member.log.read_text().count(CONNECT_FAILED) == 1
        assert (await ask(api, "/rate?rate=5", "POST"))[0] == 200

        change_password(served.locks)
        changed = parts.nats(tmp_path, locks=served.locks, port=served.nats.port)
        for path, text in changed.files.items():
            path.write_text(text)
        os.kill(served.nats.pid, signal.SIGHUP)
        for member in (api, process):
            await reads(member, 503, f"{served.nats.address} refuses user and password")
            assert (await ask(member, "/healthz"))[0] == 200
        assert (await ask(api, "/rate?rate=5", "POST"))[0] == 503
        file.write_text(served.locks.password)
        await reads(api, 200)
        assert (await ask(api, "/rate?rate=5", "POST"))[0] == 200
        for member in (api, process):
            assert member.log.read_text().count(CONNECT_FAILED) == 2


def ways(served: Servers, way: str, directory: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Settings and URLs by which CANARY is the password."""
    tls = {name: value for name, value in _both(served.locks).items() if name.endswith("_CA_FILE")}
    users = {f"{setting}_USER": served.locks.user for setting in ("BROKER", "STORE")}
    if way == "url":
        entry = f"://{served.locks.user}:{quote(CANARY, safe='')}@"
        return tls, {name: url.replace("://", entry) for name, url in served.urls.items()}
    if way == "setting":
        return {**tls, **users, "BROKER_PASSWORD": CANARY, "STORE_PASSWORD": CANARY}, served.urls
    file = directory / "password"
    file.write_text(CANARY)
    return {**tls, **users, "BROKER_PASSWORD_FILE": str(file), "STORE_PASSWORD_FILE": str(file)}, served.urls


def _both(locks: Locks) -> dict[str, str]:
    return locks.settings("BROKER") | locks.settings("STORE")


@pytest.mark.parametrize("way", ["url", "setting", "file"])
async def test_no_secret_is_in_what_services_say(tmp_path: Path, way: str) -> None:
    """Where it is the right password, where it is a wrong one, and where there is no server."""
    async with servers(tmp_path / "right", password=CANARY) as right, servers(tmp_path / "wrong") as wrong:
        env, urls = ways(right, way, tmp_path)
        let_in = await right.services(env, urls)
        env, urls = ways(wrong, way, tmp_path)
        kept_out = await wrong.services(env, urls)
        said = [await reads(member, 200) for member in let_in]
        said += [await reads(member, 503, "refuses user and password") for member in kept_out]
        assert (await ask(let_in[0], "/rate?rate=5", "POST"))[0] == 200
        said += [table(each.stack.members) for each in (right, wrong)]
        said += [(each.stack.directory / PARTS_FILE).read_text() for each in (right, wrong)]
        await wrong.nats.kill()
        for member in (*let_in, *kept_out):
            said += [(await ask(member, path))[1] for path in ("/metrics", "/healthz", "/readyz")]
            await member.stop()
            said.append(member.log.read_text())
    assert_silent(said)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["api", "--help"], 0),
        (["process", "dead"], 1),
        (["api", "HOST=192.0.2.1"], 1),
        (["process", "HEALTH_PORT=none", "STORE_URL=canary"], 2),
        (["api", "BROKER_CA_FILE=/nowhere"], 2),
        (["api", f"BROKER_URL=kafka://u:{quote(CANARY, safe='')}@h:1", "HORIZON_S=9999999"], 2),
        (["process", f"BROKER_URL={CANARY}"], 2),
    ],
)
def test_no_secret_is_in_what_programs_end_with(command: list[str], code: int) -> None:
    """At a port where nobody listens."""
    module, *arguments = command
    env = {"BROKER_URL": f"nats://u:{quote(CANARY, safe='')}@127.0.0.1:1", "STORE_USER": "u", "STORE_PASSWORD": CANARY}
    env |= dict(each.split("=", 1) for each in arguments if "=" in each)
    words = [sys.executable, "-m", module, *(each for each in arguments if "=" not in each)]
    done = subprocess.run(words, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert_silent([done.stdout + done.stderr])


def assert_silent(said: list[str]) -> None:
    assert all(said), "one of them said nothing"
    assert not [each for each in said if "canary" in each]
