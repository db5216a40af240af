"""Every kind of broker moves messages as the port says."""

from brokers.conformance.messages import *  # noqa: F403  # the cases
