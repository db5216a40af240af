"""The suite that certifies a broker adapter against its real server; docs/write-a-broker.md shows how to use it.

A test module takes the cases over with `from brokers.conformance.messages import *` (and `outages`), a conftest.py the
fixtures with `from brokers.conformance.fixtures import *`, and defines the fixture `kind`. Needs pytest, pytest-asyncio
in auto mode, and `pytest.register_assert_rewrite("brokers.conformance")` before the first import.
"""
