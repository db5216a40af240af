"""Where 4.91 requests a second come from: one message for each request, and a client that waits a second for more.

`python -m bench.lesson.lingering PORT KAFKA_URL`

It is `bench.publish_per_request` but for `linger_ms`, the time for which a producer holds a message back so that others
may share its batch. Clients that collect for a second exist, and to a program that sends a thousand messages without
waiting they do good. A request that awaits its own message waits for the second.
"""

from __future__ import annotations

import sys

from bench.publish_per_request import serve, to_kafka

LINGER_MS = 1000


def main(port: int, url: str) -> None:
    serve(port, to_kafka(url, "confirmed", linger_ms=LINGER_MS))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
