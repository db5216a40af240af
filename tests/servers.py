"""Tests run against real servers. This is the one rule about those that are not installed."""

from __future__ import annotations

import os

import pytest

from stack.kafka import kafka_jars
from stack.programs import MissingProgram, find


def needs(*programs: str) -> None:
    """Skip where one of `programs` is missing, or fail if that is in CI. `kafka` stands for its jars. To be called in a
    test or a fixture, or at the top of a module for all its tests."""
    for program in programs:
        try:
            kafka_jars() if program == "kafka" else find(program)
        except MissingProgram as exc:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(exc), allow_module_level=True)
