"""The three compose files, held against the settings that the code knows, against each other and against what they
promise: docs/containers.md."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest
import yaml

from brokers import open_broker
from core.durability import Durability
from core.sections import load
from core.settings import ApiSettings, Draining, ProcessSettings
from stack import kafka, parts
from stack import services as installed
from tests.deploy.files import (
    BROKERS,
    OLDEST_COMPOSE,
    ROOT,
    Service,
    compose_file,
    document,
    image_environment,
    image_version,
    locked_services,
    locks_file,
    services,
)
from tests.deploy.files import dockerfile as read_dockerfile
from tests.docs.pages import page, table

COMMON = ROOT / "deploy" / "common.yml"
SERVICES = ("api", "process", "process-1", "process-2", "process-3")
DURABILITIES: tuple[Durability, ...] = get_args(Durability)
FIXED = {
    "HOST",  # by the image, as the next two
    "PORT",
    "HEALTH_PORT",
    "BROKER_URL",  # by the compose file, as the next two
    "STORE_URL",
    "READ_TOPICS",
    "GROUP",  # the only job here is counting
    "SHARDS",  # takes one value only
    "WORKERS",  # replicas are scaled by --scale, as the next
    "WORKER_HEALTH_PORT",
    "DRAIN_S",  # stop_grace_period goes by it
    "BROKER_USER",  # by the locks, as the rest: without them the servers know no users, have no TLS
    "BROKER_PASSWORD",  # and no replicas, a container sees no other files, and who has such settings in the shell
    "BROKER_PASSWORD_FILE",  # for something else would get services that end at each start
    "BROKER_CA_FILE",
    "BROKER_SASL",
    "STORE_USER",
    "STORE_PASSWORD",
    "STORE_PASSWORD_FILE",
    "STORE_CA_FILE",
    "STORE_REPLICAS",
}
"""Settings that a user of the compose files does not choose."""
VARIABLES = {"DURABILITY": "confirmed", "PUBLISH": "127.0.0.1:8080"}
"""What the files themselves read from the shell or `.env`, and what it is otherwise."""


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def all_of_it(broker: str) -> dict[str, Service]:
    return services(broker)


def environment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this test read the settings of `service`, with nothing chosen by a user."""
    for name in settings_known() - {"DISPATCH"}:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**image_environment(), **service["environment"]}.items():
        if value is not None and name != "PATH":
            monkeypatch.setenv(name, value)


def settings_known() -> set[str]:
    return {name.upper() for section in (ApiSettings, ProcessSettings) for name in section.model_fields}


def test_they_differ_in_the_broker_only() -> None:
    left = []
    for broker in BROKERS:
        found = {**document(compose_file(broker))}
        found["services"] = {name: each for name, each in found["services"].items() if name != broker}
        text = yaml.safe_dump(found)
        url = services(broker)["api"]["environment"]["BROKER_URL"]
        left.append(text.replace(url, "URL").replace(broker, "BROKER"))
    assert left[0] == left[1] == left[2]


def test_services(broker: str, all_of_it: dict[str, Service]) -> None:
    assert list(all_of_it) == [broker, "redis", *SERVICES, "nginx"]
    assert document(compose_file(broker))["name"] == f"fanrate-{broker}"
    for name, service in all_of_it.items():
        assert service.get("profiles", []) == (["topics"] if name.startswith("process-") else [])


def test_every_setting_of_the_code_can_be_chosen_and_no_other(all_of_it: dict[str, Service]) -> None:
    for name in SERVICES:
        chosen = {setting for setting, value in all_of_it[name]["environment"].items() if value is None}
        assert chosen == settings_known() - FIXED
        assert set(all_of_it[name]["environment"]) <= settings_known()


@pytest.mark.parametrize("name", SERVICES)
def test_the_services_take_their_settings(
    broker: str, all_of_it: dict[str, Service], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = all_of_it[name]["environment"].get("READ_TOPICS", "")
    if reads:
        monkeypatch.setenv("DISPATCH", "topics")
    environment(all_of_it[name], monkeypatch)
    settings: Any = load(ApiSettings if name == "api" else ProcessSettings)
    assert all_of_it[name]["command"] == ["fanrate", "api" if name == "api" else "process"]
    assert (settings.port if name == "api" else settings.health_port) == 8080
    assert settings.host == "0.0.0.0"
    open_broker(settings.broker, name="test")
    assert [host for host, _ in settings.broker.hosts] == [broker]
    assert [host for host, _ in settings.store.hosts] == ["redis"]


def test_the_profile_reads_every_topic(all_of_it: dict[str, Service]) -> None:
    read = [each["environment"]["READ_TOPICS"] for each in all_of_it.values() if "profiles" in each]
    topics = ProcessSettings.model_fields["topics"].default
    assert read == [str(number) for number in range(1, topics + 1)]


def test_every_container_is_locked_down(all_of_it: dict[str, Service]) -> None:
    for name, service in all_of_it.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"], name
        assert "container_name" not in service, "could not be scaled"
        assert name in SERVICES or service["user"] not in ("root", "0"), name
    assert re.findall(r"^USER (.*)$", read_dockerfile(), re.MULTILINE) == ["10001:10001"]


def test_only_nginx_can_be_reached(broker: str, all_of_it: dict[str, Service]) -> None:
    assert document(compose_file(broker))["networks"] == {"inside": {"internal": True}, "edge": {}}
    for name, service in all_of_it.items():
        assert service["networks"] == (["inside", "edge"] if name == "nginx" else ["inside"])
        assert ("ports" in service) == (name == "nginx")


def test_only_servers_keep_anything(broker: str, all_of_it: dict[str, Service]) -> None:
    kept = {}
    for name, service in all_of_it.items():
        for mount in service.get("volumes", []):
            if isinstance(mount, str):
                kept[name] = mount.partition(":")[0]
            else:
                assert mount["read_only"] is True
                folder = ROOT if name == broker else COMMON.parent
                assert (folder / mount["source"]).is_file()
    assert kept == {broker: "broker", "redis": "redis"}
    assert list(document(compose_file(broker))["volumes"]) == ["broker", "redis"]


def test_there_is_time_to_drain(all_of_it: dict[str, Service]) -> None:
    for name in SERVICES:
        grace_s = float(all_of_it[name]["stop_grace_period"].removesuffix("s"))
        assert grace_s >= Draining.model_fields["drain_s"].default + parts.AFTER_DRAIN_S


def test_they_read_no_other_variables(broker: str) -> None:
    for path in (COMMON, compose_file(broker)):
        text = path.read_text(encoding="utf-8").replace("$$", "")
        for name, default in re.findall(r"\$\{?(\w+)(?::-([^}]*)\})?", text):
            assert VARIABLES[name] == default
    assert VARIABLES["DURABILITY"] == ApiSettings.model_fields["durability"].default


def test_images_have_the_versions_that_are_known_to_work(broker: str, all_of_it: dict[str, Service]) -> None:
    images = {each["image"] for name, each in all_of_it.items() if name not in SERVICES}
    assert all(image_version(image) for image in images)
    told = {row[0] for row in table(page("containers.md"), "Images")}
    python = re.search(r"^ARG PYTHON=(\S+)$", read_dockerfile(), re.MULTILINE)
    assert python
    assert images <= told
    assert f"python:{python[1]}" in told
    assert {all_of_it[name]["image"] for name in SERVICES} == {"fanrate"}


def test_brokers_are_those_of_make_up() -> None:
    assert services("kafka")["kafka"]["image"] == f"apache/kafka:{kafka.KAFKA_VERSION}"
    _, _, version = installed.NATS_MODULE.partition("@v")
    assert services("nats")["nats"]["image"] == f"nats:{version}-alpine"


def test_their_health_is_asked_of_them(broker: str, all_of_it: dict[str, Service]) -> None:
    """A service's port is that of its health check, and a server's that of its URL."""
    for name in SERVICES:
        assert all_of_it[name]["healthcheck"]["test"] == ["CMD", "fanrate", "healthy", "--ready"]
    port = urlsplit(all_of_it["api"]["environment"]["BROKER_URL"]).port
    asked = " ".join(all_of_it[broker]["healthcheck"]["test"])
    monitoring = re.search(r"^http: 127\.0\.0\.1:(\d+)$", (ROOT / "deploy" / "nats.conf").read_text(), re.MULTILINE)
    assert monitoring
    assert (monitoring[1] if broker == "nats" else str(port)) in asked


@pytest.mark.parametrize("durability", DURABILITIES)
def test_durability_reaches_the_servers(durability: Durability) -> None:
    text = (ROOT / "deploy" / "durability" / f"{durability}.env").read_text(encoding="utf-8")
    asked = dict(line.split("=") for line in text.splitlines() if not line.startswith("#"))
    assert asked == {
        "REDIS_APPENDFSYNC": parts._STORE_FSYNC[durability],
        "NATS_SYNC_INTERVAL": "always" if durability == "fsync" else "120s",
        "KAFKA_FLUSH_MESSAGES": "1" if durability == "fsync" else str(2**63 - 1),
    }


def test_each_durability_has_its_file(all_of_it: dict[str, Service], broker: str) -> None:
    assert {path.stem for path in (ROOT / "deploy" / "durability").iterdir()} == set(DURABILITIES)
    for name in (broker, "redis"):
        assert all_of_it[name]["env_file"] == ["durability/${DURABILITY:-confirmed}.env"]


def compose_version() -> tuple[int, ...]:
    """Empty if there is none. One that was built by hand may call itself "dev"."""
    try:
        told = call("docker", "compose", "version", "--short")
    except OSError:
        return ()
    if told.returncode:
        return ()
    found = re.match(r"v?(\d+)\.(\d+)", told.stdout)
    return tuple(map(int, found.groups())) if found else OLDEST_COMPOSE


def call(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("page", ["README.md", "docs/containers.md"])
def test_the_pages_tell_the_oldest_compose(page: str) -> None:
    oldest = ".".join(map(str, OLDEST_COMPOSE))
    assert re.findall(r"compose v?(\d\S*) or newer", (ROOT / page).read_text(encoding="utf-8")) == [oldest]


@pytest.mark.parametrize("locked", [False, True], ids=["open", "locked"])
def test_compose_takes_them(broker: str, locked: bool) -> None:
    """And sees the same services as this reading of the files."""
    files = ["-f", compose_file(broker), *(["-f", locks_file(broker)] if locked else [])]
    command = ["docker", "compose", "--env-file", "/dev/null", *files, "--profile", "topics", "config"]
    version = compose_version()
    if version < OLDEST_COMPOSE:
        pytest.skip("no docker compose" if not version else f"docker compose is {'.'.join(map(str, version))}")
    told = call(*command)
    assert told.returncode == 0, told.stderr
    found = yaml.safe_load(told.stdout)["services"]
    ours = locked_services(broker) if locked else services(broker)
    assert set(found) == set(ours)
    for name in ours:
        assert found[name]["image"] == ours[name]["image"]
        assert found[name].get("entrypoint") == ours[name].get("entrypoint")
        waits = {other: each["condition"] for other, each in found[name].get("depends_on", {}).items()}
        assert waits == {other: each["condition"] for other, each in ours[name].get("depends_on", {}).items()}
        assert set(found[name]["networks"]) == set(ours[name]["networks"])
        assert found[name].get("tmpfs", []) == ours[name].get("tmpfs", [])
        assert [each["source"] for each in found[name].get("secrets", [])] == ours[name].get("secrets", [])
        assert found[name]["read_only"] is True
        wanted = {key: value for key, value in ours[name].get("environment", {}).items() if value is not None}
        assert wanted.items() <= found[name].get("environment", {}).items()
