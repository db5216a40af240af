"""What `ensure` makes on Kafka: a topic that loses nothing, and groups that start at its beginning.

A group exists by its committed offsets. Each is committed together with the id of its topic, so that none of a topic
that was deleted is taken for one of its successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from brokers.kafka_cluster import NOT_YET, PAUSE_S, TRIES, Cluster, Topic
from brokers.kafka_wire import (
    RECORD_OVERHEAD_BYTES,
    Code,
    CreateTopicsRequest,
    DescribeConfigsRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    code_name,
)
from core.errors import BrokerError, BrokerUnavailable
from core.settings import Durability

PARTITIONS: Final = 12
"""Of a topic that `ensure` makes. So many members of a group can share it; further ones have nothing to do."""
MAX_MESSAGE_BYTES: Final = 2**20
MAX_REPLICAS: Final = 3

_DAY_MS = 86_400_000
_RETENTION_MS = 8 * _DAY_MS
"""A day more than HORIZON_S is by default: what is too old to be counted still arrives, and becomes a dead letter."""
_CREATE_TIMEOUT_MS = 5000
_TOPIC_RESOURCE = 2

_WITHOUT_LOSS: Final[Mapping[str, tuple[str, Callable[[str], bool]]]] = {
    "cleanup.policy": ("'delete'", lambda found: found == "delete"),
    "retention.ms": (f"-1 or at least {_RETENTION_MS}", lambda found: int(found) == -1 or int(found) >= _RETENTION_MS),
    "retention.bytes": ("-1", lambda found: found == "-1"),
    "unclean.leader.election.enable": ("false", lambda found: found == "false"),
    "compression.type": ("producer, uncompressed or gzip", lambda found: found in ("producer", "uncompressed", "gzip")),
}
"""Topic settings that must be so; any other value loses messages or makes them unreadable here.

Of a topic that leaves compression to producers, a batch packed in a way that cannot be unpacked here is one message."""
_FLUSH = "flush.messages"
_IN_SYNC = "min.insync.replicas"
"""With fewer than two, the one node that confirmed may be the one that is lost, whatever replicas there are."""


def group_id(topic: str, group: str) -> str:
    """Kafka's groups are not of one topic, ours are."""
    return f"{topic}.{group}"


async def ensure_topic(cluster: Cluster, name: str, durability: Durability) -> tuple[Topic, int]:
    """The topic, made if it was not there, and the largest body that it takes."""
    if await cluster.look_at(name) is None:
        await _create(cluster, name, durability)
    topic = await _until_led(cluster, name)
    await _earliest(cluster, name, range(len(topic.leaders)))
    settings = await _settings(cluster, name)
    check_settings(name, settings, topic.replicas, durability)
    return topic, min(MAX_MESSAGE_BYTES, int(settings["max.message.bytes"]) - RECORD_OVERHEAD_BYTES)


def check_settings(name: str, settings: Mapping[str, str], replicas: int, durability: Durability) -> None:
    """Raise BrokerError, naming the setting, if a topic of `replicas` with `settings` could lose what was confirmed."""
    for setting, (wanted, fits) in _WITHOUT_LOSS.items():
        if setting in settings and not fits(settings[setting]):
            raise _unfit(name, f"{setting}={settings[setting]!r} could lose messages, must be {wanted}")
    in_sync = settings.get(_IN_SYNC, "1")
    if durability != "relaxed" and replicas > 1 and int(in_sync) < 2:
        raise _unfit(name, f"{_IN_SYNC}={in_sync!r} could lose messages, must be at least 2 of its {replicas} replicas")
    if durability == "fsync" and settings.get(_FLUSH) != "1":
        raise _unfit(name, f"{_FLUSH}={settings.get(_FLUSH)!r} syncs too seldom, must be '1'")


def _unfit(name: str, why: str) -> BrokerError:
    return BrokerError(
        f"topic {name!r}: {why}; kafka-configs.sh --alter sets it, or delete the topic once all is counted"
    )


async def ensure_group(cluster: Cluster, topic: Topic, group: str) -> None:
    """Commit the topic's beginning for each partition that the group has nothing of.

    While a group has members, only they may commit. Those of a group that exists begin at the beginning of what was
    added to the topic; those of one that does not, as the topic was made anew, leave it.
    """
    while True:
        found = await committed(cluster, topic, group)
        missing = sorted(set(range(len(topic.leaders))) - set(found))
        if not missing:
            return
        offsets = await _earliest(cluster, topic.name, missing)
        code = await _commit(cluster, topic, group, offsets)
        has_members = code in (Code.UNKNOWN_MEMBER, Code.ILLEGAL_GENERATION, Code.REBALANCE)
        if code == Code.NONE or (found and has_members):
            return
        if code not in NOT_YET and not has_members:
            raise BrokerUnavailable(f"group {group!r} of topic {topic.name!r}: {code_name(code)}")
        await asyncio.sleep(PAUSE_S)


async def committed(cluster: Cluster, topic: Topic, group: str) -> dict[int, int]:
    """Partition -> the offset that the group goes on from; empty for a group that does not exist."""
    request = OffsetFetchRequest(group_id(topic.name, group), [(topic.name, list(range(len(topic.leaders))))])
    for _ in range(TRIES):
        link = cluster.link_to(await coordinating(cluster, topic.name, group))
        answer = await link.ask(request)
        codes = {answer.error_code, *(code for _, found in answer.topics for _, _, _, code in found)} - {Code.NONE}
        if not codes:
            return {
                number: offset
                for _, found in answer.topics
                for number, offset, topic_id, _ in found
                if offset >= 0 and topic_id in ("", topic.id)
            }
        if not codes <= NOT_YET:
            break
        await asyncio.sleep(PAUSE_S)
    raise BrokerUnavailable(f"group {group!r} of topic {topic.name!r}: {', '.join(map(code_name, codes))}")


async def coordinating(cluster: Cluster, topic: str, group: str) -> int:
    """The node that coordinates the group, with a connection to it."""
    node = await cluster.coordinator(group_id(topic, group))
    await cluster.connect_to(node)
    return node


async def _create(cluster: Cluster, name: str, durability: Durability) -> None:
    """Any node passes the request on to the controller."""
    replicas = min(MAX_REPLICAS, cluster.nodes)
    settings = {
        "cleanup.policy": "delete",
        "retention.ms": str(_RETENTION_MS),
        "retention.bytes": "-1",
        "compression.type": "uncompressed",  # the server unpacks what producers of others packed, in whatever way
        "segment.ms": "3600000",  # only whole segments are deleted, so retention acts at most so much later
        "max.message.bytes": str(MAX_MESSAGE_BYTES + RECORD_OVERHEAD_BYTES),
        _IN_SYNC: str(min(2, replicas)),
        "unclean.leader.election.enable": "false",
        "message.timestamp.type": "LogAppendTime",  # retention goes by the clock of the server that deletes
    }
    if durability == "fsync":
        settings[_FLUSH] = "1"
    request = CreateTopicsRequest([(name, PARTITIONS, replicas, [], list(settings.items()))], _CREATE_TIMEOUT_MS, False)
    while True:
        answer = await cluster.any_link().ask(request, 2 * _CREATE_TIMEOUT_MS / 1000)
        _, code, text = answer.topic_errors[0]
        if code in (Code.NONE, Code.TOPIC_EXISTS):
            return
        if code not in NOT_YET:
            raise BrokerError(f"topic {name!r}: {text or code_name(code)}")
        await asyncio.sleep(PAUSE_S)


async def _until_led(cluster: Cluster, name: str) -> Topic:
    while True:
        topic = await cluster.look_at(name)
        if topic is not None and topic.leaders and min(topic.leaders) >= 0:
            return topic
        await asyncio.sleep(PAUSE_S)


async def _settings(cluster: Cluster, name: str) -> dict[str, str]:
    while True:
        answer = await cluster.any_link().ask(DescribeConfigsRequest([(_TOPIC_RESOURCE, name, None)]))
        code, text, _, _, entries = answer.resources[0]
        if code == Code.NONE:
            return {entry[0]: entry[1] for entry in entries}
        if code not in {*NOT_YET, Code.UNKNOWN_TOPIC}:
            raise BrokerError(f"the settings of topic {name!r}: {text or code_name(code)}")
        await asyncio.sleep(PAUSE_S)


async def _earliest(cluster: Cluster, name: str, partitions: Sequence[int]) -> dict[int, int]:
    """A leader that was just chosen may not know it yet: an answer shows that it takes messages, too."""
    while True:
        topic = await _until_led(cluster, name)
        try:
            return await cluster.earliest(topic, partitions)
        except BrokerUnavailable:
            cluster.any_link()
        await asyncio.sleep(PAUSE_S)


async def _commit(cluster: Cluster, topic: Topic, group: str, offsets: Mapping[int, int]) -> int:
    """The first error code; none other than 0 if all was committed."""
    found: list[tuple[int, int, Any]] = [(number, offset, topic.id) for number, offset in offsets.items()]
    request = OffsetCommitRequest(group_id(topic.name, group), -1, "", -1, [(topic.name, found)])
    link = cluster.link_to(await coordinating(cluster, topic.name, group))
    answer = await link.ask(request)
    return next((code for _, partitions in answer.topics for _, code in partitions if code != Code.NONE), 0)
