"""The document of a run: what is written is read again, and what does not fit is refused by name."""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.lab import document
from bench.lab.document import BadDocument, Books, Machine, Run, Setup, WarmUp, Workload

RUN = Run(
    version=document.VERSION,
    experiment="brokers",
    series="brokers",
    sitting="20260101T000000Z-abcd",
    turn=2,
    order=7,
    at=datetime(2026, 1, 1, tzinfo=UTC),
    command="python -m bench experiment brokers",
    commands=["wrk -t 1"],
    fanrate="0.2.0",
    quick=False,
    commit="0123abc+",
    machine=Machine("a processor", 2, 8 * 2**30, "Linux 6", 0.1, {"python": "3.11.2"}),
    service_settings={"MIN_INTERVAL_S": "0.002"},
    setup=Setup("kafka", replicas=3, balancer="nginx-tuned"),
    workload=Workload(offered=(0.1, 1.2), connections=7),
    outcome="measured",
    warm_up=WarmUp([1000.0, 1001.0], agreed=True),
    memory_peak_bytes={"api": 70_000_000},
    ledger=Books(sent=10, confirmed=9, counted=9, loss=0, dup=0),
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    document.write(RUN, path)
    assert document.read(path) == RUN
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": 2}, "version 2"),
        ({"outcome": "fine"}, "outcome"),
        ({"setup": {"broker": "mqtt"}}, "setup.broker"),
        ({"workload": {"offered": [9]}}, "workload.offered"),
        ({"ledger": {"sent": 1}}, "ledger"),
        ({"machine": None}, "machine"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, change: dict[str, object], named: str) -> None:
    path = tmp_path / "run.json"
    document.write(RUN, path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BadDocument, match=named):
        document.read(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'{"version": "one"}'])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(BadDocument, match=r"other\.json"):
        document.read(path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_leaves_neither_half_a_document_nor_the_old_one_harmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    document.write(RUN, path)
    path.with_suffix(".new").symlink_to("/dev/full")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number tells which
        document.write(RUN, path)
    assert caught.value.errno == errno.ENOSPC
    assert document.read(path) == RUN
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]
