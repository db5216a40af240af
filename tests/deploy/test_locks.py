"""Locks for the compose files: what is named after them, and what makes and takes the secrets: docs/containers.md."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from brokers import open_broker
from core.endpoints import Endpoint
from core.sections import load
from core.settings import ApiSettings, ProcessSettings
from stack import parts
from stack.locks import Locks
from stack.ports import HOST, free_port
from stack.programs import find
from stack.supervisor import Stack
from tests.deploy.files import (
    BROKERS,
    ROOT,
    Service,
    document,
    image_environment,
    locked_services,
    locks_file,
    services,
)
from tests.servers import needs

LOCKS = ROOT / "deploy" / "locks"
SERVICES = ("api", "process", "process-1", "process-2", "process-3")
MADE = {
    "authority": "ca.pem",
    "server_certificate": "server.pem",
    "server_key": "server.key",
    "broker_password": "broker.password",
    "store_password": "store.password",
}
"""Each secret, and the file that it is."""
OF_SERVICES = {"authority", "broker_password", "store_password"}
OF_BROKER = {"authority", "server_certificate", "server_key", "broker_password"}
OF_REDIS = {"authority", "server_certificate", "server_key", "store_password"}


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What make.sh made."""
    needs("openssl")
    make(tmp_path / "locks")
    return tmp_path / "locks"


def make(folder: Path) -> None:
    command = ["sh", LOCKS / "make.sh", folder]
    subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, timeout=60, check=True)


def test_they_differ_in_the_broker_only() -> None:
    left = []
    for broker in BROKERS:
        found = dict(document(locks_file(broker)))
        found["services"] = {name: each for name, each in found["services"].items() if name != broker}
        of_broker = found["x-service"]["environment"]
        assert set(of_broker) <= {"BROKER_URL", "BROKER_SASL"}
        text = yaml.safe_dump(found)
        for name, value in of_broker.items():
            text = re.sub(rf"\n *{name}: {re.escape(value)}$", "", text, flags=re.MULTILINE)
        left.append(text)
    assert left[0] == left[1] == left[2]


def test_they_change_nothing_but_the_locks(broker: str) -> None:
    changed = {"environment", "entrypoint", "healthcheck", "secrets", "tmpfs", "volumes"}
    before, after = services(broker), locked_services(broker)
    assert list(before) == list(after)
    for name in before:
        assert after[name].keys() - before[name].keys() <= {"secrets", "tmpfs"}
        assert {key for key, value in before[name].items() if after[name][key] != value} <= changed
        assert before[name].get("environment", {}).keys() <= after[name].get("environment", {}).keys()
        assert before[name]["healthcheck"].keys() == after[name]["healthcheck"].keys()
    assert after["nginx"] == before["nginx"]


@pytest.mark.parametrize("name", SERVICES)
def test_the_services_take_their_settings(
    broker: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = locked_services(broker)[name]
    known = {each.upper() for section in (ApiSettings, ProcessSettings) for each in section.model_fields}
    for setting in known:
        monkeypatch.delenv(setting, raising=False)
    for setting, value in {**image_environment(), **service["environment"]}.items():
        if value is not None and setting != "PATH":
            monkeypatch.setenv(setting, in_folder(value, folder))
    if "READ_TOPICS" in service["environment"]:
        monkeypatch.setenv("DISPATCH", "topics")
    settings: Any = load(ApiSettings if name == "api" else ProcessSettings)
    open_broker(settings.broker, name="test")
    for endpoint, host, password in ((settings.broker, broker, "broker"), (settings.store, "redis", "store")):
        assert [each for each, _ in endpoint.hosts] == [host]
        assert endpoint.tls
        assert endpoint.user == "fanrate"
        assert endpoint.password() == (folder / f"{password}.password").read_text().strip()


def in_folder(value: str, folder: Path) -> str:
    found = re.fullmatch(r"/run/secrets/(\w+)", value)
    return str(folder / MADE[found[1]]) if found else value


def test_each_container_gets_its_own_secrets_only(broker: str) -> None:
    wanted = {broker: OF_BROKER, "redis": OF_REDIS, "nginx": set(), **dict.fromkeys(SERVICES, OF_SERVICES)}
    for name, service in locked_services(broker).items():
        assert set(service.get("secrets", [])) == wanted[name], name
        told = set(re.findall(r"/run/secrets/(\w+)", str(service)))
        assert told <= wanted[name], name
        assert not {setting for setting in secret_settings(service) if service["environment"][setting] is not None}
    declared = {name: each["file"] for name, each in document(locks_file(broker))["secrets"].items()}
    assert declared == {name: "${LOCKS:-.locks}/" + file for name, file in MADE.items()}


def secret_settings(service: Service) -> set[str]:
    return {setting for setting in service.get("environment", {}) if setting.endswith("_PASSWORD")}


def test_the_health_check_asks_at_the_port_of_the_url(broker: str) -> None:
    locked = locked_services(broker)
    endpoint = Endpoint.place(locked["api"]["environment"]["BROKER_URL"])
    (_, port), asked = endpoint.hosts[0], locked[broker]["healthcheck"]["test"]
    assert (
        asked == services("nats")["nats"]["healthcheck"]["test"] if broker == "nats" else str(port) in " ".join(asked)
    )


def test_what_is_made_is_closed_to_others_and_readable_inside(folder: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {name: modes[name] for name in MADE.values()} == dict.fromkeys(MADE.values(), 0o644)
    assert modes["ca.key"] == 0o600
    assert (folder / "broker.password").read_text() != (folder / "store.password").read_text()
    for name in (*BROKERS, "redis"):
        asked = ["openssl", "verify", "-CAfile", folder / "ca.pem", "-verify_hostname", name, folder / "server.pem"]
        assert subprocess.run(asked, capture_output=True, timeout=20, check=False).returncode == 0, name


def test_making_again_changes_nothing_that_is_there(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    make(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "store.password").unlink()
    make(folder)
    assert (folder / "store.password").read_bytes() != before["store.password"]
    assert (folder / "broker.password").read_bytes() == before["broker.password"]


def test_git_does_not_see_them() -> None:
    assert ".locks/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


async def test_redis_takes_them_and_keeps_what_it_has(folder: Path, tmp_path: Path) -> None:
    needs("redis-server")
    told = configured("redis", folder, tmp_path)["redis.conf"]
    assert set(told.splitlines()) >= {"port 0", "tls-port 6379", f"include {ROOT / 'deploy' / 'redis.conf'}"}
    (folder / "password").write_text((folder / "store.password").read_text())
    part = parts.redis(tmp_path, locks=Locks(folder, tls=True, user="fanrate"))
    own = ["--tls-port", str(part.port), "--bind", HOST, "--dir", str(part.folders[0]), "--appendfsync", "always"]
    async with Stack(tmp_path) as stack:
        part = replace(part, argv=[part.argv[0], str(tmp_path / "tmp" / "redis.conf"), *own])
        server = await stack.start(part, supervised=False)
        assert ask_redis(part.port, folder, "", "PING").startswith("NOAUTH")
        ask_redis(part.port, folder, "fanrate", "MULTI\nSET counted 1\nSET applied 1\nEXEC")
        await server.kill()
        await server.start()
        assert ask_redis(part.port, folder, "fanrate", "MGET counted applied") == "1\n1\n"


def ask_redis(port: int, folder: Path, user: str, commands: str) -> str:
    """As the health check asks."""
    command = [find("redis-cli"), "--tls", "--cacert", folder / "ca.pem", "-h", HOST, "-p", str(port)]
    env = {**os.environ}
    if user:
        command += ["--user", user]
        env["REDISCLI_AUTH"] = password_of(folder, "store")
    told = subprocess.run(command, input=commands, env=env, capture_output=True, text=True, timeout=20, check=False)
    return told.stdout


def test_nats_takes_them(folder: Path, tmp_path: Path) -> None:
    needs("nats-server")
    told = configured("nats", folder, tmp_path)["nats.conf"]
    assert told.startswith((ROOT / "deploy" / "nats.conf").read_text(encoding="utf-8"))
    command = [find("nats-server"), "-t", "-c", tmp_path / "tmp" / "nats.conf", "-p", str(free_port())]
    env = {**os.environ, "NATS_SYNC_INTERVAL": "120s"}
    tried = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)
    if "sync_interval" in tried.stderr:
        pytest.skip(tried.stderr.strip())
    assert tried.returncode == 0, tried.stderr


def test_rabbit_is_open_to_nobody_else(folder: Path, tmp_path: Path) -> None:
    written = configured("rabbit", folder, tmp_path)
    told = settings(written["rabbit.conf"])
    before = settings((ROOT / "deploy" / "rabbit.conf").read_text(encoding="utf-8"))
    assert {name: told[name] for name in told if told[name] != before.get(name)} == {
        "listeners.tcp": "none",
        "listeners.ssl.default": "5671",
        "ssl_options.cacertfile": str(tmp_path / "secrets" / "authority"),
        "ssl_options.certfile": str(tmp_path / "secrets" / "server_certificate"),
        "ssl_options.keyfile": str(tmp_path / "secrets" / "server_key"),
        "ssl_options.verify": "verify_none",
        "load_definitions": str(tmp_path / "tmp" / "definitions.json"),
    }
    assert before.keys() - told.keys() == {"listeners.tcp.default", "loopback_users"}
    assert "RABBITMQ_CONFIG_FILES=/tmp/conf.d\n" in (LOCKS / "server.sh").read_text(encoding="utf-8")
    assert not list((tmp_path / "tmp" / "conf.d").iterdir()), "the image's own lets guest in"
    users = yaml.safe_load(written["definitions.json"])["users"]
    assert [(user["name"], user["password"]) for user in users] == [("fanrate", password_of(folder, "broker"))]


def test_kafka_is_open_to_nobody_else(folder: Path, tmp_path: Path) -> None:
    written = configured("kafka", folder, tmp_path)
    told = settings(written["kafka.properties"])
    before = settings((ROOT / "deploy" / "kafka.properties").read_text(encoding="utf-8"))
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    assert {name: told[name] for name in told if told[name] != before.get(name)} == {
        "listeners": "CLIENT://0.0.0.0:9092,OWN://127.0.0.1:9094,CONTROLLER://127.0.0.1:9093",
        "advertised.listeners": "CLIENT://kafka:9092,OWN://127.0.0.1:9094",
        "inter.broker.listener.name": "OWN",
        "listener.security.protocol.map": "CLIENT:SASL_SSL,OWN:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(tmp_path / "tmp" / "server.pem"),
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.client.plain.sasl.jaas.config": f'{plain} user_fanrate="{password_of(folder, "broker")}";',
    }
    assert written["server.pem"] == (folder / "server.key").read_text() + (folder / "server.pem").read_text()


@pytest.mark.parametrize("server", [*BROKERS, "redis"])
def test_only_their_user_reads_what_is_written(server: str, folder: Path, tmp_path: Path) -> None:
    configured(server, folder, tmp_path)
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "tmp").iterdir()} == {0}


@pytest.mark.parametrize("password", ["", "canary other", 'canary"', "canary\\", "canary\nother", "$canary"])
def test_a_password_that_would_mean_something_else_is_refused(password: str, folder: Path, tmp_path: Path) -> None:
    (folder / "broker.password").write_text(password)
    told = run_script("nats", folder, tmp_path)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == "broker.password: must be one line of letters, digits and . _ ~ - only\n"


def configured(server: str, folder: Path, tmp_path: Path) -> dict[str, str]:
    """What server.sh writes for it, by name."""
    told = run_script(server, folder, tmp_path)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    return {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "tmp").iterdir() if path.is_file()}


def run_script(server: str, folder: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """server.sh at other paths than in a container, and without becoming the server."""
    own, secrets = tmp_path / "tmp", tmp_path / "secrets"
    for path in (own, secrets):
        path.mkdir(exist_ok=True)
    script = (LOCKS / "server.sh").read_text(encoding="utf-8")
    for name, file in MADE.items():
        (secrets / name).symlink_to(folder / file)
    places = {
        "/run/secrets": secrets,
        "/etc/rabbitmq/rabbitmq.conf": ROOT / "deploy" / "rabbit.conf",
        "/etc/fanrate": ROOT / "deploy",
        "/tmp/": f"{own}/",  # noqa: S108 - the container's own
        "  exec ": "  : ",
    }
    found = re.compile("|".join(map(re.escape, places)))
    script = found.sub(lambda match: str(places[match[0]]), script)
    env = {**os.environ, "REDIS_APPENDFSYNC": "always"}
    command = ["sh", "-c", script, "server.sh", server]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)


def password_of(folder: Path, name: str) -> str:
    return (folder / f"{name}.password").read_text().strip()


def settings(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
