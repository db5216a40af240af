"""The explanations. Where a figure stands in one, it is the run's own; where a row is missing, so is what needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from bench.lesson.plan import CONNECTIONS, HANDLER, KAFKA, NAMES, NATS, TOPICS, WORK_S, Section
from bench.lesson.results import Results

INTRODUCTION: Final = """\
A lesson on message brokers pointed `wrk -c5 -t5 -d10s`, with a Lua script that posts ratings, at a service that
publishes each of them, and found 4.91 requests/s on Kafka, with one server and with three, and 3 713 on NATS; 475
with a handler per message and 1 972 with three topics. `make bench-lesson` makes that experiment again with Fanrate
and writes this page. It takes about five minutes."""

CLOSED_LOOP: Final = """\
**Read it with care.** Five connections each wait for an answer before they ask again. So requests/s = 5 / the time
that an answer takes, and nothing else: 4.91 a second says that an answer took 1.02 s, 3 713 that it took 1.35 ms.
How much a service *can* take in, it does not say. Nor are the latencies a result: a load that waits while the
server is slow leaves out whoever would have come meanwhile. wrk adds made-up answers for those, to its own mean
too, where one took more than twice the usual time. Therefore 1.96 ms could stand beside 3 713 requests/s."""

METHOD: Final = """\
One topology at a time, each warmed by a moment of the same load, then {seconds} s of wrk for each row (a fifth of
that for the work behind a broker, which is counted long after). One run each: single rows differ by a tenth and
more from run to run. wrk, servers, broker, process and Redis share the machine. DURABILITY=confirmed: a request is
answered 200 when the broker has stored it (without a broker: when it is counted). MIN_INTERVAL_S=0, for three
servers too, which `make up` lets wait up to 2 ms between publishes. After each row all that was answered 200 was found
counted in Redis. wrk's own lines are as it printed them; its `--timeout` only keeps it from
calling a slow answer an error."""

STOLEN: Final = """\
Of the processors' time the machine's host gave {mean:.0%} to others while wrk ran, {most:.0%} in the row that had
it worst."""


def number(value: float) -> str:
    """With two decimals where they matter, else with spaces between the thousands."""
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}".replace(",", " ")


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def times(ratio: float) -> str:
    """A ratio; one run of each does not tell a tenth more from a tenth less."""
    if 0.9 <= ratio <= 1.1:
        return "about as many"
    return f"{ratio:.1f} times as many" if ratio >= 0.1 else f"{ratio:.1g} times as many"


def _one(results: Results) -> Iterator[str]:
    nats, kafka = results.per_s("nats-one"), results.per_s("kafka-one")
    if nats and kafka:
        yield (
            f"Between the lesson's NATS and its Kafka lay a factor of {NATS.per_s / KAFKA.per_s:.0f}. Here it is "
            f"{max(nats / kafka, kafka / nats):.1f}: NATS {number(nats)} requests/s, Kafka {number(kafka)}, which is "
            f"{number(kafka / KAFKA.per_s)} times the lesson's. It had compared what two client libraries do unasked."
        )
    yield (
        "Fanrate publishes what has come in by the end of a turn of the event loop. Beside a publish that is under way "
        "it lets a smaller batch grow, until that is confirmed or for 5 ms. So an answer takes as long as a confirm of "
        "the broker's, or as two. Five connections make batches of five rates at most: it is where publishing in "
        "groups gains least. What it does at 64 is in the README."
    )


def _request(results: Results) -> Iterator[str]:
    nats, kafka = results.per_s("nats-request"), results.per_s("kafka-request")
    if nats:
        yield (
            f"The plain way, and presumably how the lesson came to {number(NATS.per_s)} on NATS: one message for each "
            "request, which waits for its confirm. `bench/publish_per_request.py`, an aiohttp application, has "
            f"{number(nats)} here. Machine, language and framework are others: only the order of size can agree."
        )
    if kafka:
        yield (
            f"The same on Kafka, with a client that sends at once: {number(kafka)}, not {number(KAFKA.per_s)}. "
            "Kafka was not what was slow."
        )
    if told := _ratios(results, "{}-one", "{}-request"):
        yield f"Against these, Fanrate's one server above confirms, on {told}."


def _linger(results: Results) -> Iterator[str]:
    one, three = results.per_s("kafka-linger"), results.per_s("kafka-linger-three")
    yield (
        "`bench/lesson/lingering.py` is the application of the last section with one setting changed: its Kafka client "
        "holds each message back for a second, so that others may share its batch (`linger_ms=1000`). There are "
        "clients that do so unasked: kafka-go, whose BatchTimeout is one second. Each request waits for its own "
        "message: five connections, one second, five requests a second."
    )
    if one and three:
        yield (
            f"So it has {number(one)} requests/s, and with three servers {number(three)}: a second is as long at any "
            "of them, as it was in the lesson. (wrk ends in the middle of one, hence the decimals.) More connections "
            "would have shown it, each brings one more request a second; so would a faster broker, for it changes "
            "nothing."
        )


def _three(results: Results) -> Iterator[str]:
    if told := _ratios(results, "{}-three", "{}-one"):
        yield f"Three servers instead of one, on {told}."
    yield (
        "Five connections have at most five requests under way, for one server as for three: more servers answer none "
        "of them sooner. What is added is nginx, which with its defaults opens a new connection to a server for each "
        "request, and two servers more on the same cores. And each server has fewer requests to put into one message. "
        "More servers pay where one is busy, on cores of their own, behind `nginx-tuned`: README. In the lesson "
        f"Kafka's {number(KAFKA.per_s)} did not move, because a wait was all there was."
    )


def _handler(results: Results) -> Iterator[str]:
    yield (
        f"{number(HANDLER.per_s)} requests/s are an answer of {duration(CONNECTIONS / HANDLER.per_s)}, or a handler of "
        f"{duration(1 / HANDLER.per_s)} that takes one message at a time. What the lesson's did in that time it does "
        "not say. Its counterpart here is DISPATCH=inline: there is no broker; the server that took a request handles "
        "its rate in a task of its own, and answers when it is counted."
    )
    plain, relaxed, working = (results.per_s(key) for key in ("inline", "inline-relaxed", "inline-work"))
    if plain and relaxed:
        yield (
            f"That has {number(plain)} requests/s: an answer waits until Redis has the rate on its disk, "
            f"{duration(CONNECTIONS / plain)} on this one. With DURABILITY=relaxed, answered as soon as it is taken "
            f"in, the same handler has {number(relaxed)}. How soon a broker answers is the same question: NATS and "
            "Kafka leave the disk to the system, RabbitMQ's quorum queues and this Redis do not (docs/delivery.md)."
        )
    if working:
        yield (
            f"With WORK_S={WORK_S:g} each rate takes {duration(WORK_S)}, one at a time: {number(working)}, and it "
            f"cannot be more than {1 / WORK_S:.0f}. So {number(HANDLER.per_s)} is what a handler's work, or its write, "
            "costs while somebody waits for it. It is not the price of a way to dispatch."
        )
    behind = next((taken for key, taken in results.taken.items() if key.endswith("-work") and taken.row.broker), None)
    if behind is not None:
        yield (
            f"The same work behind a broker: {number(behind.peak.per_s)} requests/s are answered, for an answer waits "
            f"for the broker only. The work is not less for that: one process, which handles {1 / WORK_S:.0f} a "
            f"second, had counted all {number(behind.verdict.counted)} of it {behind.counted_s:.0f} s after the last "
            "answer."
        )


def _topics(results: Results) -> Iterator[str]:
    yield (
        f"{number(TOPICS.per_s)} requests/s are an answer of {duration(CONNECTIONS / TOPICS.per_s)}, "
        f"{TOPICS.per_s / NATS.per_s:.1f} times the lesson's figure with one topic on NATS."
    )
    if told := _ratios(results, "{}-topics", "{}-one"):
        yield f"Here, DISPATCH=topics with TOPICS=3, each request to the next in turn, against one topic: on {told}."
    yield (
        "Each topic has batches of its own. Five requests under way are spread over three of them, so more messages "
        "are confirmed for as many rates. Topics are there to share out readers; they make no confirm faster."
    )


def _ratios(results: Results, key: str, other: str) -> str:
    """How two rows of each broker compare: `NATS 1.3 times as many, Kafka about as many`."""
    told = [
        f"{name} {times(ratio)}"
        for broker, name in NAMES.items()
        if (ratio := results.ratio(key.format(broker), other.format(broker))) is not None
    ]
    return ", ".join(told)


EXPLAINED: Final[dict[Section, Callable[[Results], Iterator[str]]]] = {
    "one": _one,
    "request": _request,
    "linger": _linger,
    "three": _three,
    "handler": _handler,
    "topics": _topics,
}
