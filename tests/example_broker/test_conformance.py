from brokers.conformance.messages import *  # noqa: F403
from brokers.conformance.outages import *  # noqa: F403
