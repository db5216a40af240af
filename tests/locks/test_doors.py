"""What a server behind a lock makes of each wrong way to come in: one line that names setting and cause, and it goes on
by itself when that is put right, at whichever side."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from pathlib import Path

import pytest
from redis import Redis
from structlog.testing import capture_logs

from core.errors import SettingsError
from stack.locks import change_password, make_authority, make_certificate, make_locks
from tests.locks.kinds import KAFKA, MECHANISMS, NAMES, NATS, RABBIT, REDIS, STORE, LockedServer, Trouble

TOLD_S = 15.0
RIGHT_S = 20.0


async def says(trouble: Trouble, *patterns: str) -> str:
    """Wait until what is wrong is this; all of it on one line."""
    said = ""
    deadline = time.monotonic() + TOLD_S
    while time.monotonic() < deadline:
        said = await trouble()
        if all(re.search(pattern, said) for pattern in patterns):
            assert "\n" not in said
            return said
        await asyncio.sleep(0.05)
    raise AssertionError(f"{said!r} is not {patterns}")


def at(server: LockedServer) -> Redis:
    """The server, seen by the plain client."""
    locks = server.locks
    access = {"username": locks.user, "password": locks.password, "ssl_ca_certs": str(locks.authority)}
    return Redis("127.0.0.1", server.port, ssl=True, **access)


async def works(trouble: Trouble) -> None:
    deadline = time.monotonic() + RIGHT_S
    while said := await trouble():
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.05)


async def test_the_right_way(server: LockedServer) -> None:
    async with server.kind.visit(server.endpoint()) as trouble:
        await works(trouble)


@pytest.mark.parametrize("kind", [KAFKA], ids=["kafka"], scope="session", indirect=True)
@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_each_mechanism_of_kafka(server: LockedServer, mechanism: str) -> None:
    async with server.kind.visit(server.endpoint(sasl=mechanism)) as trouble:
        await works(trouble)
    wrong = {"sasl": mechanism, "password_file": "", "password": "wrong"}
    async with server.kind.visit(server.endpoint(**wrong)) as trouble:
        await says(trouble, "refuses user and password, as BROKER_USER and BROKER_PASSWORD have them")


async def test_a_wrong_password_that_is_put_right(server: LockedServer, tmp_path: Path) -> None:
    setting, file = server.kind.setting, tmp_path / "password"
    file.write_text("wrong-canary\n")
    with capture_logs() as logs:
        async with server.kind.visit(server.endpoint(password_file=str(file))) as trouble:
            told = f"refuses user and password, as {setting}_USER and {setting}_PASSWORD_FILE have them: "
            await says(trouble, f"127.0.0.1:[0-9]+ {told}")
            await asyncio.sleep(0.6)
            assert told in await trouble()
            file.write_text(server.locks.password)
            await works(trouble)
    assert "canary" not in repr(logs)
    failed = [line for line in logs if line["event"] == "broker_connect_failed"]
    assert len(failed) == (0 if server.kind is STORE else 1), failed


async def test_a_password_is_wanted(server: LockedServer) -> None:
    setting = server.kind.setting
    async with server.kind.visit(server.endpoint(user="", password_file="")) as trouble:
        await says(trouble, f"127.0.0.1:[0-9]+ wants {setting}_USER and {setting}_PASSWORD: ")


async def test_a_foreign_certificate_that_comes_to_be_trusted(server: LockedServer, tmp_path: Path) -> None:
    other = make_locks(tmp_path / "other", user="")
    async with server.kind.visit(server.endpoint(ca_file=str(other.authority))) as trouble:
        await says(trouble, f"{server.kind.setting}_CA_FILE: .* was signed by no authority in {other.authority}: ")
        shutil.copy(server.locks.authority, other.authority)
        await works(trouble)


async def test_a_certificate_that_the_system_does_not_know(server: LockedServer) -> None:
    async with server.kind.visit(server.endpoint(ca_file="")) as trouble:
        await says(trouble, f"{server.kind.setting}_CA_FILE: .* was signed by no known authority: ")


async def test_a_certificate_for_another_name(server: LockedServer) -> None:
    url = server.url.replace("127.0.0.1", "localhost")
    async with server.kind.visit(server.endpoint(url)) as trouble:
        await says(
            trouble, f"{server.kind.setting}_URL: the certificate of localhost:[0-9]+ is another's: ", "'localhost'"
        )


async def test_no_tls_with_a_server_that_wants_it(server: LockedServer) -> None:
    scheme = server.url.partition("+tls")[0]
    url = server.url.replace("+tls://", "://")
    async with server.kind.visit(server.endpoint(url, ca_file="")) as trouble:
        await says(trouble, rf"{server.kind.setting}_URL .*{re.escape(scheme)}\+tls://")


@pytest.mark.parametrize("kind", [REDIS, STORE], ids=lambda kind: kind.name, scope="session", indirect=True)
async def test_a_server_that_refuses_is_asked_at_growing_intervals(server: LockedServer) -> None:
    with at(server) as client:
        before = client.info("stats")["total_connections_received"]
        access = {"password_file": "", "password": "wrong"}
        async with server.kind.visit(server.endpoint(**access)) as trouble:
            deadline = time.monotonic() + 4.0
            while time.monotonic() < deadline:
                assert await trouble()
                await asyncio.sleep(0.02)
        assert 3 <= client.info("stats")["total_connections_received"] - before <= 7


@pytest.mark.parametrize("kind", [REDIS, STORE], ids=lambda kind: kind.name, scope="session", indirect=True)
async def test_a_user_of_redis_needs_few_rights(server: LockedServer, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("few-rights")
    with at(server) as client:
        client.execute_command("ACL", "SETUSER", "few", "on", ">few-rights", "~fanrate:*", "+@all", "-@admin", "+role")
    several = server.url.replace("127.0.0.1:", "127.0.0.1:1,127.0.0.1:")
    for url in [server.url, several] if server.kind is STORE else [server.url]:
        async with server.kind.visit(server.endpoint(url, user="few", password_file=str(file))) as trouble:
            await works(trouble)


@pytest.mark.parametrize("kind", [STORE], ids=["store"], scope="session", indirect=True)
async def test_what_redis_holds_is_there_after_a_restart(server: LockedServer) -> None:
    """It reads transactions in the name of the user default, who is off."""
    with at(server) as client, client.pipeline(transaction=True) as together:
        together.set("counted", 1).set("applied", 1).execute()
    await asyncio.to_thread(server.restart)
    with at(server) as client:
        assert client.mget("counted", "applied") == [b"1", b"1"]


@pytest.mark.parametrize("kind", [STORE], ids=["store"], scope="session", indirect=True)
async def test_a_redis_that_would_forget_it(server: LockedServer) -> None:
    with at(server) as client:
        async with server.kind.visit(server.endpoint()) as trouble:
            for right, back in (("-@all", "+@all"), ("resetkeys", "~*")):
                client.execute_command("ACL", "SETUSER", "default", right)
                await says(trouble, "^Redis may forget what it counted: give the user default, ")
                client.execute_command("ACL", "SETUSER", "default", back)
                await works(trouble)


@pytest.mark.parametrize(
    "kind", [NATS, RABBIT, KAFKA, STORE], ids=lambda kind: kind.name, scope="session", indirect=True
)
async def test_a_host_that_is_away_leaves_it_to_the_others(server: LockedServer) -> None:
    url = server.url.replace("127.0.0.1:", "127.0.0.1:1,127.0.0.1:")
    for _ in range(2):  # whichever is the first
        async with server.kind.visit(server.endpoint(url)) as trouble:
            await works(trouble)


@pytest.mark.restarts
async def test_tls_with_a_server_that_has_none_until_it_has(server: LockedServer) -> None:
    await asyncio.to_thread(server.restart, locked=False)
    async with server.kind.visit(server.endpoint(server.url.replace("://", "+tls://"))) as trouble:
        await says(trouble, f"{server.kind.setting}_URL .*TLS|TLS, for which {server.kind.setting}_URL asks")
        await asyncio.to_thread(server.restart)
        await works(trouble)


@pytest.mark.restarts
async def test_an_expired_certificate_that_is_renewed(server: LockedServer) -> None:
    make_certificate(server.locks, names=NAMES, days=-1)
    await asyncio.to_thread(server.restart)
    async with server.kind.visit(server.endpoint()) as trouble:
        await says(trouble, f"{server.kind.setting}_URL: the certificate of 127.0.0.1:[0-9]+ has expired")
        make_certificate(server.locks, names=NAMES)
        await asyncio.to_thread(server.restart)
        await works(trouble)


@pytest.mark.restarts
async def test_a_password_and_an_authority_that_change_while_it_runs(server: LockedServer, tmp_path: Path) -> None:
    """The server is told first, clients follow."""
    ours, trusted = tmp_path / "password", tmp_path / "ca.pem"
    shutil.copy(server.locks.password_file, ours)
    shutil.copy(server.locks.authority, trusted)
    endpoint = server.endpoint(password_file=str(ours), ca_file=str(trusted), sasl="plain")
    async with server.kind.visit(endpoint) as trouble:
        await works(trouble)
        make_authority(server.locks)
        make_certificate(server.locks, names=NAMES)
        change_password(server.locks)
        await asyncio.to_thread(server.restart)
        await says(trouble, f"{server.kind.setting}_CA_FILE")
        shutil.copy(server.locks.authority, trusted)
        await says(trouble, f"{server.kind.setting}_PASSWORD_FILE")
        ours.unlink()
        await says(trouble, f"{server.kind.setting}_PASSWORD_FILE {ours}: No such file")
        shutil.copy(server.locks.password_file, ours)
        await works(trouble)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"", "is empty"), (b"\n\n", "is empty"), (b"\xff\xfe", "is not text")],
)
def test_a_password_file_that_is_none_is_refused_at_the_start(
    server: LockedServer, tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=f"{server.kind.setting}_PASSWORD_FILE {file}: {said}"):
        server.endpoint(password_file=str(file))
