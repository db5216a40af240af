"""The broker port: the whole contract between Fanrate and a message broker.

Bytes in, bytes out. A broker moves opaque messages from publishers to consumer groups, at least once, and tells the
truth about what it has stored; batching, retries, counting and metrics are wrapped around it and never inside. What
one broker does differently from another is declared in its `Features`, as data.

A *topic* is a named queue of messages. A *group* is a named reader of a topic: every group gets every message, and
within a group each message goes to one member at a time. An *adapter* implements this port for one kind of server, in
one file. `tests/conformance` certifies it against the real server; every sentence below has a test there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Features:
    """What a broker can and cannot do. A conformance test is left out only because of a field of this class."""

    max_message_bytes: int
    """The largest body `publish` takes; one byte more is MessageTooLarge."""
    server: bool = True
    """There is a server that can be away, restarted or killed, and it keeps what it confirmed."""
    refuses_when_full: bool = True
    """A full queue answers BrokerFull. Where it is false, docs/operations.md says what a full broker does."""
    at_most_once: bool = False
    """What is confirmed was only sent: it may be lost, and nothing comes again. All that this contract says of storing,
    acknowledging and redelivery is then void."""
    replays: bool = False
    """A group that `ensure` adds to a topic also gets the messages that the topic still holds."""


@dataclass(frozen=True, slots=True)
class Message:
    """A delivered message. `receipt` belongs to the adapter and to the very delivery it came with."""

    body: bytes
    receipt: Any


class Subscription(Protocol):
    """One member of a group. Used by one task at a time, except `close`."""

    async def fetch(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        """Wait until there are messages or `timeout_s` has passed, and take what is there: up to `max_messages`, and no
        further one once `max_bytes` are reached. An empty list is no error.

        Order: roughly that of publishing; nothing may depend on it. A fetched message is invisible to other members
        until it is acknowledged, or until its member closed, died or was silent for the adapter's redelivery time;
        then it is delivered again, without limit.
        Raises BrokerUnavailable while there is no connection; later calls go on by themselves once there is one. One
        that has to join the group again may take some seconds longer than `timeout_s`.
        Cancellation loses nothing: what had arrived is handed to the next call or redelivered.
        """

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the broker that this group is done with `messages`. Returns when that is sent, not when it is stored: an
        acknowledgement may be lost, and the message then comes again.

        A receipt from before a reconnect, a rebalance or a close is stale: acknowledging it does no harm, and
        the message may come again. Raises BrokerUnavailable while there is no connection.
        """

    async def extend(self, messages: Sequence[Message]) -> None:
        """Begin the redelivery time of `messages` anew: they are still being worked on.

        Stale receipts are passed over. Raises BrokerUnavailable while there is no connection.
        """

    async def close(self) -> None:
        """Leave the group; what was fetched and not acknowledged is returned for redelivery where the broker can be
        told so, and otherwise after the redelivery time. Idempotent."""


class Broker(Protocol):
    """A connection to one broker. All methods may be called concurrently from one event loop."""

    @property
    def features(self) -> Features:
        """Known before `start`; `max_message_bytes` may become smaller once the server has told its own limit."""

    @property
    def connected(self) -> bool:
        """Whether a publish would reach the server, as far as is known without asking."""

    async def start(self) -> None:
        """Begin to connect, and to reconnect for ever. Returns at once whether or not the server is there."""

    async def ensure(self, topic: str, groups: Sequence[str]) -> None:
        """Make the topic and its groups exist, durably. A message confirmed after this returned is delivered to all
        `groups`, whenever their first member comes. Groups that exist and are not named stay.

        An existing topic whose settings could lose messages, and a server that cannot give the durability asked for,
        are refused with BrokerError, naming the setting. Raises BrokerUnavailable.
        """

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        """Return when the broker has confirmed that it stored the message for every group, as firmly as the durability
        that the adapter was made with says (docs/delivery.md).

        Ends in that or in an error, always: BrokerUnavailable at once when there is no connection or it is lost,
        BrokerFull and MessageTooLarge when the broker refuses, PublishTimeout after `timeout_s` on a live connection.
        After BrokerUnavailable and PublishTimeout the message may or may not be stored. Nothing is re-sent by the
        adapter. Cancelling abandons the wait, not the message.
        """

    async def subscribe(self, topic: str, group: str) -> Subscription:
        """Join `group`, which `ensure` made. Raises BrokerUnavailable."""

    async def close(self) -> None:
        """Close every subscription, then the connection; pending publishes end in BrokerUnavailable. Idempotent, and
        safe while other calls are under way."""
