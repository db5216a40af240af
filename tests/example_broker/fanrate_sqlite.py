"""A broker in one SQLite file, shared by the processes of one machine: an example of an adapter from elsewhere.

`BROKER_URL=sqlite:////var/lib/rates.db`. Every statement runs on the event loop, which it holds up as long as the disk
takes. One row per message and group says until when it is with a member; acknowledging deletes it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from uuid import uuid4

from fanrate import (
    BrokerError,
    BrokerFull,
    BrokerUnavailable,
    Durability,
    Endpoint,
    Features,
    Message,
    MessageTooLarge,
    SettingsError,
)

_POLL_S = 0.005
_BUSY_S = 5.0
_SYNCHRONOUS = {"relaxed": "OFF", "confirmed": "NORMAL", "fsync": "FULL"}
_SCHEMA = """
create table if not exists topics (name text primary key, bytes integer not null);
create table if not exists groups (topic text, name text, primary key (topic, name));
create table if not exists messages (id integer primary key autoincrement, topic text, body blob);
create table if not exists waiting (
    topic text, name text, message integer, due real, receipt text, primary key (topic, name, message)
) without rowid;
create index if not exists waiting_message on waiting (message);
"""


class SqliteBroker:
    """The port, in a file."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str,
        durability: Durability = "confirmed",
        redeliver_after_s: float = 10.0,
        max_topic_bytes: int = 2**30,
    ) -> None:
        self._path = endpoint.path
        if not self._path:
            raise SettingsError("BROKER_URL: sqlite:///FILE names no file")
        self.features = Features(max_message_bytes=2**20, server=False)
        self._durability = durability
        self._redeliver_after_s = redeliver_after_s
        self._max_topic_bytes = max_topic_bytes
        self._database: sqlite3.Connection | None = None
        self._subscriptions: set[SqliteSubscription] = set()
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._database is not None

    @property
    def database(self) -> sqlite3.Connection:
        if self._database is None:
            raise BrokerUnavailable("closed" if self._closed else "not started")
        return self._database

    async def start(self) -> None:
        if self._database is None and not self._closed:
            self._database = sqlite3.connect(self._path, isolation_level="IMMEDIATE", timeout=_BUSY_S)
            self._database.execute("pragma journal_mode = wal")
            self._database.execute(f"pragma synchronous = {_SYNCHRONOUS[self._durability]}")
            self._database.executescript(_SCHEMA)

    async def ensure(self, topic: str, groups: Sequence[str]) -> None:
        with self.database as database:
            database.execute("insert or ignore into topics values (?, 0)", [topic])
            database.executemany("insert or ignore into groups values (?, ?)", [(topic, group) for group in groups])

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        if len(body) > self.features.max_message_bytes:
            raise MessageTooLarge(f"{len(body)} bytes, at most {self.features.max_message_bytes}")
        with self.database as database:
            stored = database.execute("update topics set bytes = bytes + ? where name = ?", [len(body), topic])
            if not stored.rowcount:
                raise BrokerError(f"no topic {topic!r}: ensure() makes it")
            (size_bytes,) = database.execute("select bytes from topics where name = ?", [topic]).fetchone()
            if size_bytes > self._max_topic_bytes:
                raise BrokerFull(f"{self._max_topic_bytes} bytes are waiting")
            message = database.execute("insert into messages (topic, body) values (?, ?)", [topic, body]).lastrowid
            database.execute(
                "insert into waiting select topic, name, ?, 0, '' from groups where topic = ?", [message, topic]
            )

    async def subscribe(self, topic: str, group: str) -> SqliteSubscription:
        if not self.database.execute("select 1 from groups where topic = ? and name = ?", [topic, group]).fetchone():
            raise BrokerError(f"no group {group!r} on topic {topic!r}: ensure() makes them")
        subscription = SqliteSubscription(self, topic, group, self._redeliver_after_s)
        self._subscriptions.add(subscription)
        return subscription

    async def close(self) -> None:
        self._closed = True
        for subscription in self._subscriptions:
            await subscription.close()
        if self._database is not None:
            self._database.close()
            self._database = None


class SqliteSubscription:
    """One member of a group. A receipt is the message's number and a word that belongs to this delivery."""

    def __init__(self, broker: SqliteBroker, topic: str, group: str, redeliver_after_s: float) -> None:
        self._broker = broker
        self._topic = topic
        self._group = group
        self._redeliver_after_s = redeliver_after_s
        self._mine: deque[tuple[int, str]] = deque()
        self._closed = False

    async def fetch(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        while True:
            messages = self._take(max_messages, max_bytes)
            if messages or clock() >= deadline:
                return messages
            await asyncio.sleep(_POLL_S)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        with self._database() as database:
            for message in messages:
                number, word = message.receipt
                database.execute(
                    "delete from waiting where topic = ? and name = ? and message = ? and receipt = ?",
                    [self._topic, self._group, number, word],
                )
                left = database.execute("select 1 from waiting where message = ? limit 1", [number]).fetchone()
                if not left and database.execute("delete from messages where id = ?", [number]).rowcount:
                    database.execute(
                        "update topics set bytes = bytes - ? where name = ?", [len(message.body), self._topic]
                    )
        done = {message.receipt for message in messages}
        self._mine = deque(receipt for receipt in self._mine if receipt not in done)

    async def extend(self, messages: Sequence[Message]) -> None:
        self._set_due(time.time() + self._redeliver_after_s, [message.receipt for message in messages])

    async def close(self) -> None:
        if not self._closed and self._broker.connected:
            self._set_due(0.0, self._mine)
        self._closed = True

    def _take(self, max_messages: int, max_bytes: int) -> list[Message]:
        now, word = time.time(), uuid4().hex
        messages: list[Message] = []
        size_bytes = 0
        due = "select 1 from waiting where topic = ? and name = ? and due <= ? limit 1"
        if not self._database().execute(due, [self._topic, self._group, now]).fetchone():
            return []
        with self._database() as database:
            database.execute("begin immediate")
            rows = database.execute(
                "select id, body from waiting join messages on id = message"
                " where waiting.topic = ? and name = ? and due <= ? order by message limit ?",
                [self._topic, self._group, now, max_messages],
            )
            for number, body in rows:
                messages.append(Message(body, (number, word)))
                size_bytes += len(body)
                if size_bytes >= max_bytes:
                    break
            rows.close()
            database.executemany(
                "update waiting set due = ?, receipt = ? where topic = ? and name = ? and message = ?",
                [(now + self._redeliver_after_s, word, self._topic, self._group, each.receipt[0]) for each in messages],
            )
        self._mine += [message.receipt for message in messages]
        return messages

    def _set_due(self, due: float, receipts: Sequence[tuple[int, str]]) -> None:
        with self._database() as database:
            database.executemany(
                "update waiting set due = ? where topic = ? and name = ? and message = ? and receipt = ?",
                [(due, self._topic, self._group, number, word) for number, word in receipts],
            )

    def _database(self) -> sqlite3.Connection:
        if self._closed:
            raise BrokerUnavailable("closed")
        return self._broker.database
