"""What the compose files say of a server is what the server's own file says: where its data lies, where it listens, how
much memory it takes, how it is asked and stopped."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest

from brokers.nats import NatsBroker
from core.endpoints import Endpoint
from fanrate.healthy import ANSWER_S
from tests.deploy.files import BROKERS, ROOT, Service, image_environment, image_version, services

DEPLOY = ROOT / "deploy"
SERVERS = (*BROKERS, "redis")
CONFIGURED = {
    "kafka": {"/etc/fanrate/kafka.properties": "kafka.properties", "/etc/fanrate/kafka.sh": "kafka.sh"},
    "nats": {"/etc/fanrate/nats.conf": "nats.conf"},
    "rabbit": {"/etc/rabbitmq/rabbitmq.conf": "rabbit.conf"},  # where its image looks for it
    "redis": {"/etc/fanrate/redis.conf": "redis.conf"},
    "nginx": {"/etc/fanrate/nginx.conf": "nginx.conf"},
}
"""Path in the container, file in deploy/."""
ENTRYPOINTS = {
    "kafka": ["sh", "/etc/fanrate/kafka.sh"],
    "nats": ["nats-server", "-c", "/etc/fanrate/nats.conf"],
    "rabbit": ["rabbitmq-server"],
    "redis": ["sh", "-c", 'exec redis-server /etc/fanrate/redis.conf --appendfsync "$$REDIS_APPENDFSYNC"'],
    "nginx": ["nginx", "-e", "stderr", "-c", "/etc/fanrate/nginx.conf"],
}
USERS = {"kafka": "appuser", "nats": "10001:10001", "rabbit": "rabbitmq", "redis": "redis", "nginx": "nginx"}
"""Of the images; NATS has none, and takes any."""
RABBIT_DATA = "/var/lib/rabbitmq"
"""Where RabbitMQ's image has its data, under the node's name."""
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "kb": 2**10, "mb": 2**20, "gb": 2**30, "mib": 2**20}


def service(name: str) -> Service:
    return services(name if name in BROKERS else "nats")[name]


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def one(pattern: str, of: str) -> str:
    (found,) = re.findall(pattern, of, re.MULTILINE)
    return str(found)


def size_bytes(told: str) -> int:
    number = one(r"^\d+", told)
    return int(number) * UNITS[told.removeprefix(number).lower()]


def seconds(told: str) -> float:
    assert told.endswith("s")
    return float(told[:-1])


def volume(name: str) -> PurePosixPath:
    """Where in the container what it keeps lies."""
    (target,) = (mount.split(":")[1] for mount in service(name)["volumes"] if isinstance(mount, str))
    return PurePosixPath(target)


def port(name: str) -> str:
    """Where the server's own file lets it listen for clients."""
    match name:
        case "kafka":
            return one(r"^listeners=CLIENT://0\.0\.0\.0:(\d+),", text("kafka.properties"))
        case "nats":
            return one(r"^port: (\d+)$", text("nats.conf"))
        case "rabbit":
            return one(r"^listeners\.tcp\.default = (\d+)$", text("rabbit.conf"))
        case "nginx":
            return one(r"^ +listen (\d+) ", text("nginx.conf"))
    assert "port" not in re.findall(r"^\w+", text("redis.conf"), re.MULTILINE)
    return "6379"


@pytest.mark.parametrize("broker", BROKERS)
def test_each_waits_for_those_it_needs(broker: str) -> None:
    healthy = {"condition": "service_healthy"}
    for name, each in services(broker).items():
        needed = {"nginx": ["api"], broker: [], "redis": []}.get(name, [broker, "redis"])
        assert each.get("depends_on", {}) == dict.fromkeys(needed, healthy), name


def test_what_is_kept_lies_in_the_volume() -> None:
    kept = {
        "kafka": one(r"^log\.dirs=(\S+)$", text("kafka.properties")),
        "nats": one(r"^ +store_dir: (\S+)$", text("nats.conf")),
        "rabbit": RABBIT_DATA,
        "redis": service("redis")["working_dir"],
    }
    for name, folder in kept.items():
        assert PurePosixPath(folder).is_relative_to(volume(name)), name
    assert one(r"test -f (\S+)/meta\.properties", text("kafka.sh")) == kept["kafka"]
    assert "dir" not in re.findall(r"^\w+", text("redis.conf"), re.MULTILINE), "it goes by the working directory"
    assert service("rabbit")["hostname"] == "rabbit", "another name would be another, empty folder"


@pytest.mark.parametrize("name", ENTRYPOINTS)
def test_each_server_starts_with_its_file(name: str) -> None:
    mounts = [mount for mount in service(name)["volumes"] if not isinstance(mount, str)]
    assert {mount["target"]: Path(mount["source"]).name for mount in mounts} == CONFIGURED[name]
    assert {mount["type"] for mount in mounts} == {"bind"}
    assert service(name)["entrypoint"] == ENTRYPOINTS[name]
    assert "command" not in service(name)
    assert service(name)["user"] == USERS[name]


def test_durability_is_used_where_it_arrives() -> None:
    """Each name of deploy/durability/ where its server reads it: in Redis' entrypoint, above, and in two files."""
    assert one(r"^ +sync_interval: (\S+)$", text("nats.conf")) == "$NATS_SYNC_INTERVAL"
    assert 'kafka.Kafka $properties --override "log.flush.interval.messages=$KAFKA_FLUSH_MESSAGES"' in text("kafka.sh")
    assert one(r"^properties=(.*)$", text("kafka.sh")) == "${1:-/etc/fanrate/kafka.properties}"


@pytest.mark.parametrize("broker", BROKERS)
def test_they_meet_at_one_port(broker: str) -> None:
    environment = services(broker)["api"]["environment"]
    assert urlsplit(environment["BROKER_URL"]).netloc.rpartition("@")[2] == f"{broker}:{port(broker)}"
    assert environment["STORE_URL"] == f"redis://redis:{port('redis')}/0"


def test_kafka_tells_its_clients_where_it_is() -> None:
    advertised = one(r"^advertised\.listeners=(\S+)$", text("kafka.properties"))
    assert advertised == f"CLIENT://kafka:{port('kafka')}"


def test_nginx_is_published_where_it_listens_and_finds_the_replicas() -> None:
    assert service("nginx")["ports"] == ["${PUBLISH:-127.0.0.1:8080}:" + port("nginx")]
    replicas = re.findall(r"^ +server (\S+) resolve", text("nginx.conf"), re.MULTILINE)
    assert replicas == [f"api:{image_environment()['PORT']}"] * 2
    assert service("nginx")["ulimits"]["nofile"] >= int(one(r"^worker_rlimit_nofile (\d+);$", text("nginx.conf")))


@pytest.mark.parametrize("name", [*SERVERS, "nginx"])
def test_each_is_asked_where_it_listens(name: str) -> None:
    monitoring = one(r"^http: (127\.0\.0\.1:\d+)$", text("nats.conf"))
    asked = {
        "nats": ["CMD", "wget", "-q", "-O", "/dev/null", f"http://{monitoring}/healthz"],
        "redis": ["CMD", "redis-cli", "-e", "ping"],
    }
    by_port = ["CMD", "bash", "-c", f"</dev/tcp/127.0.0.1/{port(name)}"]
    assert service(name)["healthcheck"]["test"] == asked.get(name, by_port)


@pytest.mark.parametrize("broker", BROKERS)
def test_health_checks_are_frequent_and_patient(broker: str) -> None:
    """A server may read what it holds for two minutes before its failures count."""
    for name, each in services(broker).items():
        check = each["healthcheck"]
        assert check.keys() == {"test", "interval", "timeout", "retries", "start_period"}, name
        assert seconds(check["interval"]) <= 5, name
        assert seconds(check["timeout"]) >= 2 * ANSWER_S, name
        assert check["retries"] >= 3, name
        assert seconds(check["start_period"]) >= (120 if name in SERVERS else 30), name


@pytest.mark.parametrize("broker", BROKERS)
def test_each_is_stopped_as_it_wants(broker: str) -> None:
    """SIGTERM is what all but nginx know; a server gets time to write what it holds."""
    for name, each in services(broker).items():
        assert each.get("stop_signal") == ("SIGQUIT" if name == "nginx" else None), name
        assert name not in SERVERS or seconds(each["stop_grace_period"]) >= 30, name
    assert re.findall(r"^exec java", text("kafka.sh"), re.MULTILINE), "a shell in front would keep the signal"


def test_what_servers_take_is_below_what_their_containers_have() -> None:
    heap = one(r"^exec java -Xms\d+m -Xmx(\d+m) ", text("kafka.sh"))
    assert 1.5 * size_bytes(heap) <= size_bytes(service("kafka")["mem_limit"])
    redis = size_bytes(one(r"^maxmemory (\S+)$", text("redis.conf")))
    assert 2 * redis <= size_bytes(service("redis")["mem_limit"])
    rabbit = size_bytes(one(r"^vm_memory_high_watermark\.absolute = (\S+)$", text("rabbit.conf")))
    assert 1.5 * rabbit <= size_bytes(service("rabbit")["mem_limit"])
    go = size_bytes(service("nats")["environment"]["GOMEMLIMIT"])
    assert 1.5 * topic_bytes() <= go <= 0.9 * size_bytes(service("nats")["mem_limit"])


def topic_bytes() -> int:
    """What a topic of NATS may hold, in memory with DURABILITY=relaxed."""
    return NatsBroker(Endpoint.of("nats://nats:4222"), name="test", durability="relaxed")._max_topic_bytes


@pytest.mark.parametrize("broker", BROKERS)
def test_whatever_they_write_to_has_an_end(broker: str) -> None:
    for name, each in services(broker).items():
        assert all(",size=" in mount or ":size=" in mount for mount in each.get("tmpfs", [])), name
        sizes = [size_bytes(mount.rpartition("size=")[2]) for mount in each.get("tmpfs", [])]
        assert sum(sizes) <= size_bytes(each["mem_limit"]) / 4, "what lies there counts as the container's memory"
        assert each["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}, name
        assert each["pids_limit"] >= (1024 if name in SERVERS else 256), name
    assert ":exec," in service("kafka")["tmpfs"][0], "native libraries are unpacked into /tmp and run"


def test_our_image_is_asked_of_no_registry() -> None:
    """There, its name is somebody else's. Built where it is missing; not at each `up`, which then would upgrade."""
    built: dict[str, Any] = {name: each for name, each in services("nats").items() if "build" in each}
    assert set(built) == {"api", "process", "process-1", "process-2", "process-3"}
    assert {(each["image"], each["build"], each["pull_policy"]) for each in built.values()} == {
        ("fanrate", "..", "never")
    }


def test_redis_has_no_published_hole() -> None:
    """CVE-2025-32023 and CVE-2025-49844 were closed in 8.0.3 and 8.0.4."""
    assert image_version(service("redis")["image"]) >= (8, 0, 4)
