"""What one member has of its partitions: what arrived, what it handed out and was not told to be done, and how far each
partition may be committed. No input or output, and no clock."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from brokers.base import Message
from brokers.kafka_share import Share


class Partition:
    """One partition while this member reads it; given back and received again, it is another."""

    __slots__ = ("alive", "committed", "draining", "held", "next_offset", "number", "open", "out_offset")

    def __init__(self, number: int, offset: int) -> None:
        self.number = number
        self.next_offset = offset
        """The first that has not arrived."""
        self.out_offset = offset
        """The first that was never handed out."""
        self.open: set[int] = set()
        """Handed out and not acknowledged."""
        self.held: set[int] = set()
        """Those of `open` that are with the application, and not waiting to be handed out again."""
        self.committed = offset
        self.draining = False
        self.alive = True

    def begin_at(self, offset: int) -> None:
        """Go on further: what should come next is not there any more."""
        self.next_offset = self.out_offset = offset

    def misses(self, offset: int) -> bool:
        """Whether it is neither acknowledged nor with the application."""
        return offset not in self.held and (offset >= self.out_offset or offset in self.open)

    @property
    def done_offset(self) -> int:
        """The first that is not acknowledged: a commit says that all before it are."""
        return min(self.open) if self.open else self.out_offset


class Delivery:
    """One message on its way through this member: the receipt of a `Message`."""

    __slots__ = ("body", "offset", "partition")

    def __init__(self, partition: Partition, offset: int, body: bytes) -> None:
        self.partition = partition
        self.offset = offset
        self.body = body


class Holdings:
    """All partitions of one member."""

    def __init__(self) -> None:
        self.partitions: dict[int, Partition] = {}
        self._ready: deque[Delivery] = deque()
        self._held: OrderedDict[Delivery, float] = OrderedDict()
        """-> when it is handed out again, earliest first."""
        self._dirty: set[Partition] = set()
        """Those that may be committed further than they are."""

    def __bool__(self) -> bool:
        return bool(self._ready)

    @property
    def due(self) -> float | None:
        """When the next message is to be handed out again."""
        return next(iter(self._held.values()), None)

    @property
    def drained(self) -> bool:
        """Whether something was to be drained and nothing of it is held any more."""
        draining = [partition for partition in self.partitions.values() if partition.draining]
        return bool(draining) and not any(partition.held for partition in draining)

    def claim(self) -> list[int]:
        """The partitions that nobody else may have now."""
        return [p.number for p in self.partitions.values() if p.held or p in self._dirty]

    def new_in(self, share: Share) -> list[int]:
        """The partitions of `share` that are not here already; offsets are needed for them."""
        return [number for number in share.partitions if not self._keeps(number)]

    def take_over(self, share: Share, offsets: Mapping[int, int]) -> None:
        """Have what `share` says, going on at `offsets` in what is new, and drop the rest."""
        for number in list(self.partitions):
            if not self._keeps(number) or number not in {*share.partitions, *share.draining}:
                self._drop(self.partitions.pop(number))
        for number in share.partitions:
            if number in self.partitions:
                self.partitions[number].draining = False
            else:
                self.partitions[number] = Partition(number, offsets[number])
        for number in share.draining:
            if number in self.partitions:
                self._drain(self.partitions[number])

    def clear(self) -> None:
        """Drop everything: all receipts are stale from now on."""
        self.take_over(Share([]), {})

    def begin_again(self, partition: Partition, offset: int) -> None:
        """Read it once more from `offset`, as its log ends before what was read of it and other messages will come
        under the same offsets: all its receipts are stale, and the lower offset is to be committed at once."""
        self._drop(partition)
        again = Partition(partition.number, offset)
        again.committed = offset - 1
        self.partitions[partition.number] = again
        self._dirty.add(again)

    def receive(self, partition: Partition, records: Iterable[tuple[int, bytes | None, int]]) -> None:
        """What was fetched of `partition`: offset, value and next offset. What came before is passed over."""
        for offset, body, next_offset in records:
            if body is not None and offset >= partition.next_offset and partition.misses(offset):
                self._ready.append(Delivery(partition, offset, body))
            partition.next_offset = max(partition.next_offset, next_offset)

    def take(self, max_messages: int, max_bytes: int, due: float) -> list[Message]:
        """Hand out what is there; what is not acknowledged by `due` is handed out again."""
        messages: list[Message] = []
        size_bytes = 0
        while self._ready and len(messages) < max_messages and size_bytes < max_bytes:
            delivery = self._ready.popleft()
            partition = delivery.partition
            offset = delivery.offset
            self._held[delivery] = due
            partition.held.add(offset)
            partition.open.add(offset)
            if offset >= partition.out_offset:
                partition.out_offset = offset + 1
            messages.append(Message(delivery.body, delivery))
            size_bytes += len(delivery.body)
        return messages

    def acknowledge(self, messages: Sequence[Message]) -> None:
        for message in messages:
            delivery = message.receipt
            if self._held.pop(delivery, None) is not None:
                partition = delivery.partition
                partition.held.discard(delivery.offset)
                partition.open.discard(delivery.offset)
                self._dirty.add(partition)

    def extend(self, messages: Sequence[Message], due: float) -> None:
        for message in messages:
            if message.receipt in self._held:
                self._held[message.receipt] = due
                self._held.move_to_end(message.receipt)

    def expire(self, now: float) -> None:
        """What was held too long is handed out again, under another receipt; the first to arrive comes first. Of what
        is drained it is thrown away, and fetched again should the partition be ours again before it is drained."""
        overdue: list[Delivery] = []
        while self._held and next(iter(self._held.values())) <= now:
            delivery, _ = self._held.popitem(last=False)
            partition = delivery.partition
            partition.held.discard(delivery.offset)
            if not partition.draining:
                overdue.append(Delivery(partition, delivery.offset, delivery.body))
            else:
                partition.next_offset = min(partition.next_offset, delivery.offset)
        self._ready.extendleft(reversed(overdue))

    def to_commit(self) -> dict[Partition, int]:
        """Partition -> offset, of those that can be committed further."""
        offsets = {partition: partition.done_offset for partition in self._dirty}
        self._dirty.clear()
        return {partition: offset for partition, offset in offsets.items() if offset > partition.committed}

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        for partition, offset in offsets.items():
            partition.committed = offset

    def not_committed(self, partitions: Iterable[Partition]) -> None:
        """They are to be committed yet."""
        self._dirty.update(partition for partition in partitions if partition.alive)

    def readable(self) -> Iterator[Partition]:
        return (partition for partition in self.partitions.values() if not partition.draining)

    def _keeps(self, number: int) -> bool:
        """Whether the partition is here and may go on as it is; of one that was drained, much was thrown away."""
        partition = self.partitions.get(number)
        return partition is not None and (not partition.draining or bool(partition.held))

    def _drain(self, partition: Partition) -> None:
        """Should it be ours again before it is drained, it goes on with what is thrown away here."""
        partition.draining = True
        ahead = self._remove_ready(partition)
        if ahead:
            partition.next_offset = min(ahead)

    def _drop(self, partition: Partition) -> None:
        partition.alive = False
        self._dirty.discard(partition)
        self._remove_ready(partition)
        for delivery in [delivery for delivery in self._held if delivery.partition is partition]:
            del self._held[delivery]

    def _remove_ready(self, partition: Partition) -> list[int]:
        """The offsets of what was removed."""
        removed = [delivery.offset for delivery in self._ready if delivery.partition is partition]
        self._ready = deque(delivery for delivery in self._ready if delivery.partition is not partition)
        return removed
