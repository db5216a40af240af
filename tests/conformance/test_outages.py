"""Every kind of broker with a server gets over what happens to it."""

from brokers.conformance.outages import *  # noqa: F403  # the cases
