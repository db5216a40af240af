"""In what rows differ is found from the rows."""

from __future__ import annotations

from collections.abc import Sequence

from bench.lab.axes import label, varying
from bench.lab.document import Setup, Workload
from bench.lab.rows import rows
from tests.bench.lab.documents import Maker


def _varying(whats: Sequence[tuple[Setup, Workload]]) -> list[str]:
    found = rows(Maker(1).rows("x", "x", whats, 1).made)
    return [axis.name for axis in varying(found)]


def test_only_what_differs_is_an_axis() -> None:
    whats = [(Setup(broker=broker), Workload(connections=n)) for broker in ("nats", "kafka") for n in (1, 64)]
    assert _varying(whats) == ["broker", "connections"]
    assert _varying(whats[:1]) == []


def test_what_comes_along_with_a_number_is_none() -> None:
    balancers = {1: "none", 2: "nginx-tuned", 3: "nginx-tuned"}
    whats = [(Setup(broker="nats", replicas=n, balancer=balancers[n]), Workload(seconds=n)) for n in (1, 2, 3)]  # type: ignore[arg-type]
    assert _varying(whats) == ["replicas"]


def test_what_comes_along_with_a_name_is_one() -> None:
    whats = [
        (Setup(broker="nats", replicas=2, balancer="nginx-tuned"), Workload()),
        (Setup(broker="nats", system="go", replicas=2, balancer="nginx-plain"), Workload()),
    ]
    assert _varying(whats) == ["system", "balancer"]


def test_a_label_tells_numbers_with_what_they_count() -> None:
    found = rows(
        Maker(1)
        .rows("x", "x", [(Setup(broker="nats", replicas=n), Workload(connections=1024 * n)) for n in (1, 3)], 1)
        .made
    )
    assert [label(row, varying(found)) for row in found] == [
        "1 replica, 1\N{NO-BREAK SPACE}024 connections",
        "3 replicas, 3\N{NO-BREAK SPACE}072 connections",
    ]
    assert label(found[0], []) == "NATS JetStream"
