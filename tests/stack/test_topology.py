from typing import get_args

import pytest

from core.errors import SettingsError
from stack.topology import SERVERS, Broker, Topology


def test_each_broker_has_a_server():
    assert set(SERVERS) == set(get_args(Broker))


def test_each_topic_is_read_by_one_process():
    topology = Topology(dispatch="topics", topics=5, processes=2)
    assert [topology.process_settings(k)["READ_TOPICS"] for k in (0, 1)] == ["2,4", "1,3,5"]


def test_a_process_without_a_topic_is_refused():
    with pytest.raises(SettingsError, match="PROCESSES=4 and TOPICS=3: 1 of the processes would have no topic"):
        Topology(dispatch="topics", processes=4)


def test_only_topics_are_shared_out():
    assert "READ_TOPICS" not in Topology(processes=4).process_settings(0)


@pytest.mark.parametrize(
    ("topology", "programs"),
    [
        (Topology(), ["redis-server", "nats-server"]),
        (Topology(broker="redis", balancer="nginx-tuned"), ["redis-server", "nginx"]),
        (Topology(broker="rabbit"), ["redis-server", "rabbitmq-server"]),
        (Topology(broker="kafka", dispatch="inline"), ["redis-server"]),
    ],
)
def test_programs(topology: Topology, programs: list[str]):
    assert topology.programs == programs


def test_replicas_that_share_a_machine_space_their_publishes_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MIN_INTERVAL_S", raising=False)
    assert "MIN_INTERVAL_S" not in Topology().api_settings
    assert Topology(replicas=2).api_settings["MIN_INTERVAL_S"] == "0.002"
    assert Topology(replicas=2, api_env={"MIN_INTERVAL_S": "0"}).api_settings["MIN_INTERVAL_S"] == "0"
    monkeypatch.setenv("MIN_INTERVAL_S", "0.001")
    assert "MIN_INTERVAL_S" not in Topology(replicas=2).api_settings
