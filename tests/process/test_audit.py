"""The audit: every rate at least once, nothing acknowledged before it is on disk, no torn line left."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from brokers.memory import MemoryBroker
from core.batches import Batch, encode
from core.errors import SettingsError, StoreUnavailable
from core.lifecycle import until
from core.patience import Patience
from core.work import Work
from process.audit import Audit, AuditFile
from process.membership import Membership
from process.reader import Reading

TOPICS = ["rates_1", "rates_2"]
GROUPS = ["counters", "audit"]


class Setting:
    """A broker, and memberships of the group `audit` that write one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broker = MemoryBroker(redeliver_after_s=0.5)
        self._open: list[tuple[Membership, Audit]] = []

    def member(self) -> Membership:
        patience = Patience()
        audit = Audit(self.path, patience)
        reading = Reading(TOPICS, GROUPS, "audit")
        membership = Membership(self.broker, audit, reading, patience, oldest_allowed_s=60, work=Work(0.0, 1))
        self._open.append((membership, audit))
        return membership

    async def close(self) -> None:
        for membership, audit in self._open:
            await membership.close()
            audit.close()
        self._open.clear()

    async def publish(self, *bodies: bytes, topic: str = "rates_1") -> None:
        for each in TOPICS:
            await self.broker.ensure(each, GROUPS)
        for body in bodies:
            await self.broker.publish(topic, body, 1)

    def all_read(self) -> bool:
        return not any(self.broker.unread(topic, "audit") for topic in TOPICS)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting(tmp_path / "audit.ndjson")
    yield made
    await made.close()
    await made.broker.close()


def batch(*rates: int, sequence: int = 0) -> Batch:
    at = float(int(time.time()))
    return Batch(1, 0, uuid4().hex, sequence, len(rates), at, [(f"film-{rate}", rate) for rate in rates])


def lines_of(batch: Batch) -> list[dict[str, object]]:
    of = {"producer": batch.producer, "sequence": batch.sequence}
    return [
        {**of, "index": index, "subject": subject, "rate": rate, "at": batch.at}
        for index, (subject, rate) in enumerate(batch.rates)
    ]


async def test_a_line_for_each_rate(setting: Setting) -> None:
    first, second = batch(5, 6, 7), batch(8, sequence=3)
    await setting.publish(encode(first))
    await setting.publish(encode(second), topic="rates_2")
    member = setting.member()
    await member.start()
    assert await until(lambda: all(setting.broker.unread(topic, "audit") == 0 for topic in TOPICS), 5)
    assert sorted(map(str, setting.lines())) == sorted(map(str, lines_of(first) + lines_of(second)))
    assert setting.broker.unread("rates_1", "counters") == 1, "the counting group has its own"
    assert {family.name: family.samples[0].value for family in member.metrics()}["fanrate_audited_rates"] == 4
    assert member.check().ok


async def test_nothing_is_acknowledged_before_it_is_on_disk(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails for a while: the process waits, red, and nothing stands half-written or twice."""
    failing = True
    fsync = os.fsync

    def moody(descriptor: int) -> None:
        if failing:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    made = batch(1, 2)
    await setting.publish(encode(made))
    member = setting.member()
    monkeypatch.setattr("process.audit.os.fsync", moody)
    await member.start()
    assert await until(lambda: "No space left" in str(member.check()), 5)
    assert str(member.check()).startswith("waits for the audit file")
    assert setting.broker.unread("rates_1", "audit") == 1
    failing = False
    assert await until(setting.all_read, 5)
    assert setting.lines() == lines_of(made)


async def test_killed_between_write_and_acknowledgement(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there twice, whole: at least once."""
    made = batch(1, 2)
    await setting.publish(encode(made))
    member = setting.member()

    async def killed(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("brokers.memory.MemorySubscription.acknowledge", killed)
    await member.start()
    assert await until(lambda: len(setting.lines()) == 2, 5)
    await setting.close()
    monkeypatch.undo()
    await setting.member().start()
    assert await until(setting.all_read, 5)
    assert setting.lines() == lines_of(made) * 2


@pytest.mark.parametrize("kept_bytes", [1, 12, 60, 115])
async def test_a_torn_line_is_cut(setting: Setting, kept_bytes: int) -> None:
    made = batch(1, 2, 3)
    whole = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines_of(made))
    assert kept_bytes < len(whole.splitlines()[0])
    setting.path.write_bytes(whole + whole[:kept_bytes])
    setting.member()
    assert setting.path.read_bytes() == whole


async def test_a_file_with_nothing_but_a_torn_line(setting: Setting) -> None:
    setting.path.write_bytes(b'{"producer":"0123')
    setting.member()
    assert setting.path.read_bytes() == b""


@pytest.mark.parametrize("torn", [b"", b'{"producer":"01'])
@pytest.mark.parametrize("zeros", [1, 4096, 200_000])
async def test_zeros_that_a_power_failure_left_are_cut(setting: Setting, torn: bytes, zeros: int) -> None:
    whole = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines_of(batch(1, 2)))
    setting.path.write_bytes(whole + torn + bytes(zeros))
    setting.member()
    assert setting.path.read_bytes() == whole


@pytest.mark.parametrize(
    "content", [b"precious\0\0", b"precious", b"line\nprecious", b'{"other":1}', b"\n{" + b"x" * 5000]
)
async def test_a_file_that_is_no_audit_is_left_alone(setting: Setting, content: bytes) -> None:
    setting.path.write_bytes(content)
    with pytest.raises(SettingsError, match="does not end as an audit does"):
        setting.member()
    assert setting.path.read_bytes() == content


async def test_a_file_has_one_writer(setting: Setting) -> None:
    setting.member()
    with pytest.raises(SettingsError, match="another process writes it"):
        setting.member()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file or directory"):
        AuditFile(tmp_path / "nowhere" / "audit.ndjson")


def test_what_was_half_written_is_cut_before_the_next_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AuditFile(tmp_path / "audit.ndjson")
    file.append([b"whole\n"])
    write = os.write

    def short(descriptor: int, data: bytes) -> int:
        if len(data) > 3:
            return write(descriptor, bytes(data)[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("process.audit.os.write", short)
    with pytest.raises(StoreUnavailable, match="No space left"):
        file.append([b"second\n"])
    monkeypatch.undo()
    file.append([b"second\n"])
    file.close()
    assert (tmp_path / "audit.ndjson").read_bytes() == b"whole\nsecond\n"


async def test_a_malformed_message_is_passed_over(setting: Setting) -> None:
    made = batch(1)
    await setting.publish(b"not a batch", encode(made))
    await setting.member().start()
    assert await until(setting.all_read, 5)
    assert setting.lines() == lines_of(made)
    assert setting.broker.unread("rates_1", "counters") == 2, "the counting group writes its dead letter"


async def test_a_newer_message_stops_it_red(setting: Setting) -> None:
    await setting.publish(b'{"version":2}')
    member = setting.member()
    await member.start()
    assert await until(lambda: "upgrade" in str(member.check()), 5)
    assert setting.broker.unread("rates_1", "audit") == 1
    assert setting.lines() == []
