"""The parts of clusters: who finds whom by which setting."""

from __future__ import annotations

from pathlib import Path

from stack.clusters import NODES, kafka_cluster, nats_cluster, rabbit_cluster, redis_nodes, replica_of, replicated
from stack.parts import Part
from tests.servers import needs


def text(part: Part, name: str) -> str:
    (found,) = (text for path, text in part.files.items() if path.name == name)
    return found


def settings(part: Part) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text(part, "server.properties").splitlines())


def each_has_folders_of_its_own(nodes: list[Part]) -> None:
    assert len({folder for node in nodes for folder in node.folders}) == NODES
    assert len({node.log for node in nodes}) == NODES
    assert len({node.port for node in nodes}) == NODES


def test_nats(tmp_path: Path) -> None:
    needs("nats-server")
    cluster = nats_cluster(tmp_path)
    each_has_folders_of_its_own(list(cluster.nodes))
    assert cluster.url == "nats://" + ",".join(node.address for node in cluster.nodes)
    texts = [text(node, "nats.conf") for node in cluster.nodes]
    (routes,) = {line for each in texts for line in each.splitlines() if "routes:" in line}
    for node, each in zip(cluster.nodes, texts, strict=True):
        (route,) = (line.split()[1] for line in each.splitlines() if line.strip().startswith("listen:"))
        assert f'"nats://{route}"' in routes
        assert f"server_name: {node.name}\n" in each


def test_nats_syncs_each_message_where_it_must(tmp_path: Path) -> None:
    needs("nats-server")
    cluster = nats_cluster(tmp_path, durability="fsync")
    assert all("sync_interval: always" in text(node, "nats.conf") for node in cluster.nodes)
    assert all("sync_interval" not in text(node, "nats.conf") for node in nats_cluster(tmp_path).nodes)


def test_kafka(tmp_path: Path) -> None:
    needs("java", "kafka")
    cluster = kafka_cluster(tmp_path)
    each_has_folders_of_its_own(list(cluster.nodes))
    assert cluster.url == "kafka://" + ",".join(node.address for node in cluster.nodes)
    read = [settings(node) for node in cluster.nodes]
    assert [each["node.id"] for each in read] == ["1", "2", "3"]
    (voters,) = {each["controller.quorum.voters"] for each in read}
    for voter, each in zip(voters.split(","), read, strict=True):
        number, _, address = voter.partition("@")
        assert number == each["node.id"]
        assert each["listeners"].endswith(f"CONTROLLER://{address}")
    for each in read:
        assert each["offsets.topic.replication.factor"] == each["default.replication.factor"] == "3"
        assert each["min.insync.replicas"] == each["transaction.state.log.min.isr"] == "2"


def test_rabbit(tmp_path: Path) -> None:
    needs("rabbitmq-server", "epmd")
    cluster = rabbit_cluster(tmp_path)
    (epmd,) = cluster.before
    each_has_folders_of_its_own(list(cluster.nodes))
    assert cluster.url == f"amqp://{','.join(node.address for node in cluster.nodes)}/"
    assert {node.env["ERL_EPMD_PORT"] for node in cluster.nodes} == {str(epmd.port)}
    assert len({node.env["FANRATE_COOKIE"] for node in cluster.nodes}) == 1
    assert len({node.env["RABBITMQ_DIST_PORT"] for node in cluster.nodes}) == NODES
    for node in cluster.nodes:
        for number, each in enumerate(cluster.nodes, 1):
            peer = f"cluster_formation.classic_config.nodes.{number} = {each.env['RABBITMQ_NODENAME']}\n"
            assert peer in text(node, "rabbitmq.conf")
        assert "cluster_partition_handling = pause_minority\n" in text(node, "rabbitmq.conf")


def test_another_cluster_has_another_cookie(tmp_path: Path) -> None:
    needs("rabbitmq-server", "epmd")
    first, second = (rabbit_cluster(tmp_path).nodes[0].env["FANRATE_COOKIE"] for _ in range(2))
    assert first != second


def test_redis(tmp_path: Path) -> None:
    needs("redis-server")
    plain = redis_nodes(tmp_path)
    cluster = replicated(plain)
    each_has_folders_of_its_own(list(cluster.nodes))
    assert cluster.url == f"redis://{','.join(node.address for node in cluster.nodes)}/0"
    assert "--replicaof" not in cluster.nodes[0].argv
    for node in cluster.nodes[1:]:
        assert list(node.argv[-3:]) == ["--replicaof", "127.0.0.1", str(cluster.nodes[0].port)]
    assert list(replica_of(plain[2], plain[0]).argv[-1:]) == [str(plain[2].port)]
