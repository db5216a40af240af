"""A Kafka server as a part: a node that is both broker and controller (KRaft), alone or one of several.

Its jars are what `mvn dependency:copy-dependencies` makes of `kafka-pom.xml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from core.settings import Durability
from stack.locks import OPEN, Locks
from stack.parts import Part, Tier
from stack.ports import HOST, free_port
from stack.probes import KAFKA
from stack.programs import MissingProgram, find, own_folder

KAFKA_VERSION: Final = "4.3.1"
"""Also in `kafka-pom.xml`."""

MOST_COPIES: Final = 3

_CLUSTER_ID: Final = "ZmFucmF0ZS1sb2NhbC0xMg"
_SCRAMS: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512")
_JAVA_OPTIONS: Final = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
"""Of its two compilers the quick one alone: a server here lives for minutes, on few cores that it shares with services
and load, and the thorough one would compile through all of that time. docs/lab.md has what that came to."""
_RUN: Final = """
set -e
java=$1 jars=$2 configuration=$3 folder=$4 options=$5
shift 5
if ! test -f "$folder/meta.properties"; then
  "$java" -Xmx64m $options -cp "$jars" kafka.tools.StorageTool format -c "$configuration" "$@"
fi
exec "$java" -Xms256m -Xmx256m $options -cp "$jars" kafka.Kafka "$configuration"
"""
"""Formats the folder if it is fresh, which takes a second, and becomes the server."""
_TIMES_ALONE: Final = """\
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
"""
"""They decide how soon a killed server is taken back: it must wait for its own session to end."""
_TIMES: Final = """\
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controller.quorum.election.timeout.ms=1000
controller.quorum.fetch.timeout.ms=2000
replica.lag.time.max.ms=5000
"""
"""They decide how soon the others do without a node: the defaults leave all partitions without confirms three times as
long."""


def kafka_jars() -> Path:
    """The folder of the server's jars; raises MissingProgram."""
    folder = own_folder().parent / f"kafka-{KAFKA_VERSION}"
    if not (folder / f"kafka_2.13-{KAFKA_VERSION}.jar").exists():
        raise MissingProgram("kafka")
    return folder


@dataclass(frozen=True, slots=True)
class Node:
    """One of the nodes of a cluster, numbered from 1."""

    number: int = 1
    port: int = field(default_factory=free_port)
    own_port: int = field(default_factory=free_port)
    """For the nodes among themselves."""
    controller_port: int = field(default_factory=free_port)


def kafka(
    directory: Path,
    *,
    name: str = "kafka",
    port: int | None = None,
    durability: Durability = "confirmed",
    locks: Locks = OPEN,
) -> Part:
    """Kafka for one machine; with `fsync` it syncs every message, also of topics and offsets that it makes itself. It
    talks to itself, and is probed, on a port of its own without locks."""
    node = Node(port=port or free_port())
    return kafka_node(directory, name, node, [node], durability, locks)


def kafka_node(
    directory: Path, name: str, node: Node, nodes: Sequence[Node], durability: Durability, locks: Locks = OPEN
) -> Part:
    """`node`, which is one of `nodes`."""
    data = directory.absolute() / "data" / name
    log_folder, configuration = data / "log", data / "server.properties"
    argv = ["/bin/sh", "-c", _RUN, "kafka", str(find("java")), str(kafka_jars() / "*")]
    argv += [str(configuration), str(log_folder), _JAVA_OPTIONS, "-t", _CLUSTER_ID]
    if locks.user:  # SCRAM's users belong to the data; those of PLAIN to the configuration
        for mechanism in _SCRAMS:
            argv += ["--add-scram", f"{mechanism}=[name={locks.user},password={locks.password}]"]
    return Part(
        name,
        Tier.SERVER,
        argv,
        node.port,
        locks.url("kafka", node.port),
        directory.absolute() / "logs" / f"{name}.log",
        KAFKA,
        probe_port=node.own_port,
        folders=[data],
        files={configuration: _configuration(node, nodes, log_folder, durability) + _locked(locks)},
    )


def _locked(locks: Locks) -> str:
    """How clients come in."""
    lines = []
    if locks.tls:
        lines += ["ssl.keystore.type=PEM", f"ssl.keystore.location={locks.key_and_certificate()}"]
    if locks.user:
        modules = "org.apache.kafka.common.security"
        jaas = "listener.name.client.{}.sasl.jaas.config={} required"
        lines.append(f"sasl.enabled.mechanisms=PLAIN,{','.join(_SCRAMS)}")
        user = f'user_{locks.user}="{locks.password}"'
        lines.append(f"{jaas.format('plain', f'{modules}.plain.PlainLoginModule')} {user};")
        lines += [f"{jaas.format(each.lower(), f'{modules}.scram.ScramLoginModule')};" for each in _SCRAMS]
    protocol = {
        (False, False): "PLAINTEXT",
        (True, False): "SSL",
        (False, True): "SASL_PLAINTEXT",
        (True, True): "SASL_SSL",
    }[locks.tls, bool(locks.user)]
    lines.append(f"listener.security.protocol.map=CLIENT:{protocol},OWN:PLAINTEXT,CONTROLLER:PLAINTEXT")
    return "\n".join([*lines, ""])


def _configuration(node: Node, nodes: Sequence[Node], log_folder: Path, durability: Durability) -> str:
    flush = "log.flush.interval.messages=1\n" if durability == "fsync" else ""
    copies = min(MOST_COPIES, len(nodes))
    voters = ",".join(f"{each.number}@{HOST}:{each.controller_port}" for each in nodes)
    return f"""\
process.roles=broker,controller
node.id={node.number}
controller.quorum.voters={voters}
listeners=CLIENT://{HOST}:{node.port},OWN://{HOST}:{node.own_port},CONTROLLER://{HOST}:{node.controller_port}
advertised.listeners=CLIENT://{HOST}:{node.port},OWN://{HOST}:{node.own_port}
inter.broker.listener.name=OWN
controller.listener.names=CONTROLLER
log.dirs={log_folder}
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={min(2, copies)}
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={min(2, copies)}
group.initial.rebalance.delay.ms=0
{_TIMES if len(nodes) > 1 else _TIMES_ALONE}\
num.network.threads=2
num.io.threads=2
background.threads=2
group.coordinator.threads=1
log.cleaner.dedupe.buffer.size=4194304
{flush}"""
