"""Options of the whole test suite."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("brokers.conformance")

collect_ignore = ["example_broker"]
"""A package of its own, which tests/conformance/test_third_party.py installs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share servers are run by one worker: those of a folder on one kind of broker, else those of a file."""
    for item in items:
        calls = getattr(item, "callspec", None)
        kind = getattr(calls.params.get("kind"), "name", None) if calls else None
        group = f"{item.path.parent.name} {kind}" if kind else item.path.relative_to(item.config.rootpath).as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="run each trouble in full instead of a smoke of it")
    parser.addoption(
        "--broker",
        type=lambda names: names.split(","),
        metavar="KIND[,KIND]",
        help="make trouble for these brokers only, such as memory, nats, nats+core, kafka, rabbit, redis",
    )
