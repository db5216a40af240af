"""Kafka's protocol as far as the adapter speaks it: requests, error codes, record batches. aiokafka encodes and decodes
all but what it does not know or is slow at."""

from __future__ import annotations

import enum
import itertools
import struct
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Final

import structlog
from aiokafka.errors import KafkaError, for_code  # type: ignore[import-untyped]
from aiokafka.protocol.admin import (  # type: ignore[import-untyped]
    ApiVersionRequest,
    CreateTopicsRequest,
    DescribeConfigsRequest,
    SaslAuthenticateRequest,
    SaslHandShakeRequest,
)
from aiokafka.protocol.api import Request, RequestStruct, Response  # type: ignore[import-untyped]
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest  # type: ignore[import-untyped]
from aiokafka.protocol.coordination import FindCoordinatorRequest  # type: ignore[import-untyped]
from aiokafka.protocol.fetch import FetchRequest_v4  # type: ignore[import-untyped]
from aiokafka.protocol.group import (  # type: ignore[import-untyped]
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    SyncGroupRequest,
)
from aiokafka.protocol.offset import OffsetRequest  # type: ignore[import-untyped]
from aiokafka.protocol.types import (  # type: ignore[import-untyped]
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder  # type: ignore[import-untyped]
from aiokafka.record.memory_records import MemoryRecords  # type: ignore[import-untyped]

from core.errors import BrokerUnavailable

log = structlog.get_logger()

__all__ = [
    "ApiVersionRequest",
    "Code",
    "CreateTopicsRequest",
    "DescribeConfigsRequest",
    "FetchRequest_v4",
    "FindCoordinatorRequest",
    "HeartbeatRequest",
    "JoinGroupRequest",
    "KafkaError",
    "LeaveGroupRequest",
    "MetadataRequest",
    "OffsetCommitRequest",
    "OffsetFetchRequest",
    "OffsetRequest",
    "SaslAuthenticateRequest",
    "SaslHandShakeRequest",
    "SyncGroupRequest",
    "code_name",
    "decode_produced",
    "encode_produce",
    "records",
]

RECORD_OVERHEAD_BYTES: Final = 128
"""More than a batch of one record takes beyond its value."""
_PRODUCE_VERSION: Final = 7
_BATCH_START: Final = struct.Struct(">qi")
_HEADER: Final = struct.Struct(">ihhih")
_PRODUCE: Final = struct.Struct(">hhii")


class Code(enum.IntEnum):
    """The error codes that are told apart."""

    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    UNKNOWN_TOPIC = 3
    REQUEST_TIMED_OUT = 7
    MESSAGE_TOO_LARGE = 10
    COORDINATOR_LOADING = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    RECORD_LIST_TOO_LARGE = 18
    ILLEGAL_GENERATION = 22
    UNKNOWN_MEMBER = 25
    REBALANCE = 27
    UNSUPPORTED_SASL_MECHANISM = 33
    ILLEGAL_SASL_STATE = 34
    TOPIC_EXISTS = 36
    NOT_CONTROLLER = 41
    SASL_AUTHENTICATION_FAILED = 58
    MEMBER_ID_REQUIRED = 79


def code_name(code: int) -> str:
    """For people."""
    return f"{for_code(code).__name__.removesuffix('Error')} ({code})"


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString()),
                ("port", Int32),
                ("rack", CompactString()),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString()),
                ("id_high", Int64),
                ("id_low", Int64),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("id_high", Int64), ("id_low", Int64), ("topic", CompactString()), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class MetadataRequest(Request[_MetadataRequest]):  # type: ignore[misc]
    """Metadata as of version 12, which tells the ids of topics: a topic that was deleted and made anew has another."""

    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[Any]) -> Any:
        return request_struct_class([(0, 0, topic, {}) for topic in self._topics], False, False, {})


def encode_produce(
    correlation: int, client: bytes, topic: str, partition: int, body: bytes, *, acks: int, timeout_ms: int
) -> bytes:
    """The frame of a Produce request of one record, without a producer's id: the adapter sends nothing twice."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, len(body) + RECORD_OVERHEAD_BYTES)
    builder.append(0, int(time.time() * 1000), None, body, [])
    batch = builder.build()
    name = topic.encode()
    parts = [
        client,
        _PRODUCE.pack(-1, acks, timeout_ms, 1),
        struct.pack(">h", len(name)),
        name,
        struct.pack(">iii", 1, partition, len(batch)),
        batch,
    ]
    size_bytes = _HEADER.size - 4 + sum(map(len, parts))
    return b"".join([_HEADER.pack(size_bytes, 0, _PRODUCE_VERSION, correlation, len(client)), *parts])


def decode_produced(answer: bytes, topic: str) -> int:
    """The error code of the one record, in the answer to `encode_produce`."""
    try:
        (code,) = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(topic.encode()) + 4 + 4)
    except struct.error as exc:
        raise BrokerUnavailable("an answer that is not Kafka's") from exc
    return int(code)


def records(message_set: bytes) -> Iterator[tuple[int, bytes | None, int]]:
    """The records of a fetched partition as (offset, value, next offset to ask for); an offset without a record has no
    value. A batch that cannot be read is one record, of its last offset: what is written there may be anything, and
    must hold up nothing else."""
    batches = MemoryRecords(message_set)
    for number in itertools.count():
        if not batches.has_next():
            return
        try:
            batch = batches.next_batch()
        except (KafkaError, ValueError) as exc:
            raise BrokerUnavailable(f"an answer that is not Kafka's: {exc!r}") from exc
        last_offset, body = batch.next_offset - 1, None
        if not batch.is_control_batch:
            try:
                found = list(batch)
            except Exception as exc:  # whatever aiokafka and the codecs raise at what they cannot read
                log.warning("batch_unreadable", offset=last_offset, error=repr(exc))
                found, body = [], _raw_batch(message_set, number)
            for record in found:
                yield record.offset, record.value or b"", record.offset + 1
        yield last_offset, body, last_offset + 1


def _raw_batch(message_set: bytes, number: int) -> bytes:
    start = end = 0
    for _ in range(number + 1):
        start = end
        _, size_bytes = _BATCH_START.unpack_from(message_set, start)
        end = start + _BATCH_START.size + size_bytes
    return message_set[start:end]


def decode(request: Any, answer: bytes) -> Any:
    """The answer to an encoded request, as aiokafka's struct."""
    buffer = BytesIO(answer)
    try:
        request.parse_response_header(buffer)
        return request.RESPONSE_TYPE.decode(buffer)
    except (ValueError, struct.error) as exc:
        raise BrokerUnavailable(f"an answer that is not Kafka's: {exc!r}") from exc
