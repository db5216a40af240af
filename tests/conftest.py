"""Options of the whole test suite."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("brokers.conformance")

collect_ignore = ["example_broker"]
"""A package of its own, which tests/conformance/test_third_party.py installs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="run each trouble in full instead of a smoke of it")
    parser.addoption(
        "--broker",
        type=lambda names: names.split(","),
        metavar="KIND[,KIND]",
        help="make trouble for these brokers only, such as memory, nats, nats+core, kafka, rabbit, redis",
    )
