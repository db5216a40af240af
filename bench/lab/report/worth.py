"""What a 200 is worth: figures of brokers that promise different things are no figures of the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bench.lab.axes import BROKER_NAMES
from bench.lab.report.text import listed
from bench.lab.rows import Row

_WORTH: Final = {
    ("nats", "relaxed"): "held in the server's memory: gone when it is killed",
    ("nats", "confirmed"): "written to the stream's file, synced every 2 minutes: survives a kill of the server",
    ("nats", "fsync"): "synced to disk: survives a loss of power",
    ("kafka", "relaxed"): "written by the partition's leader alone, not synced",
    ("kafka", "confirmed"): "written by all in-sync replicas, not synced: survives a kill of the server",
    ("kafka", "fsync"): "synced to disk: survives a loss of power",
    ("rabbit", "relaxed"): "held in a classic queue: gone when the server is killed",
    ("rabbit", "confirmed"): "synced to disk by a quorum queue: survives a loss of power",
    ("rabbit", "fsync"): "synced to disk by a quorum queue: survives a loss of power",
    ("redis", "relaxed"): "held in memory, whatever the server persists",
    ("redis", "confirmed"): "appended to a file, not synced: survives a kill of the server",
    ("redis", "fsync"): "synced to disk: survives a loss of power",
    ("nats+core", "relaxed"): "sent, and may be lost",
}
"""What a 200 is worth: docs/delivery.md has the whole table."""
_SAFE: Final = "survives a loss of power"


def worth(rows: Iterable[Row]) -> list[str]:
    """What a 200 is worth on each broker that was measured, and whether that differs."""
    kinds = {(row.setup.broker, row.setup.durability): None for row in rows if row.measured}
    told = {
        f"{BROKER_NAMES[broker]}, {durability}": _WORTH[broker, durability]
        for broker, durability in kinds
        if (broker, durability) in _WORTH
    }
    lines = [f"{name}: {text}" for name, text in told.items()]
    safe = [name for name, text in told.items() if text.endswith(_SAFE)]
    if safe and len(safe) < len(told):
        lines.append(f"So a 200 is not worth the same: {listed(safe)} alone keeps it through a loss of power.")
    return lines
