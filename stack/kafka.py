"""A Kafka server as a part: one node that is both broker and controller (KRaft).

Its jars are what `mvn dependency:copy-dependencies` makes of `kafka-pom.xml`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from core.settings import Durability
from stack.parts import Part, Tier
from stack.ports import HOST, free_port
from stack.probes import KAFKA
from stack.programs import MissingProgram, find, own_folder

KAFKA_VERSION: Final = "4.3.1"
"""Also in `kafka-pom.xml`."""

_CLUSTER_ID: Final = "ZmFucmF0ZS1sb2NhbC0xMg"
_JAVA_OPTIONS: Final = "-XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
_RUN: Final = """
set -e
if ! test -f "$4/meta.properties"; then
  "$1" -Xmx64m -XX:TieredStopAtLevel=1 $5 -cp "$2" kafka.tools.StorageTool format -t "$6" -c "$3"
fi
exec "$1" -Xms256m -Xmx256m $5 -cp "$2" kafka.Kafka "$3"
"""
"""Formats the folder if it is fresh, which takes a second, and becomes the server."""


def kafka_jars() -> Path:
    """The folder of the server's jars; raises MissingProgram."""
    folder = own_folder().parent / f"kafka-{KAFKA_VERSION}"
    if not (folder / f"kafka_2.13-{KAFKA_VERSION}.jar").exists():
        raise MissingProgram("kafka")
    return folder


def kafka(
    directory: Path, *, name: str = "kafka", port: int | None = None, durability: Durability = "confirmed"
) -> Part:
    """Kafka for one machine; with `fsync` it syncs every message, also of topics and offsets that it makes itself."""
    port = port or free_port()
    data = directory.absolute() / "data" / name
    log_folder, configuration = data / "log", data / "server.properties"
    argv = ["/bin/sh", "-c", _RUN, "kafka", str(find("java")), str(kafka_jars() / "*")]
    argv += [str(configuration), str(log_folder), _JAVA_OPTIONS, _CLUSTER_ID]
    return Part(
        name,
        Tier.SERVER,
        argv,
        port,
        f"kafka://{HOST}:{port}",
        directory.absolute() / "logs" / f"{name}.log",
        KAFKA,
        folders=[data],
        files={configuration: _configuration(port, free_port(), log_folder, durability)},
    )


def _configuration(port: int, controller_port: int, log_folder: Path, durability: Durability) -> str:
    """The times of broker.* decide how soon a killed server is taken back: it must wait for its own session to end."""
    flush = "log.flush.interval.messages=1\n" if durability == "fsync" else ""
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{HOST}:{controller_port}
listeners=CLIENT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}
advertised.listeners=CLIENT://{HOST}:{port}
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_folder}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
num.network.threads=2
num.io.threads=2
background.threads=2
group.coordinator.threads=1
log.cleaner.dedupe.buffer.size=4194304
{flush}"""
