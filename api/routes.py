"""The calls of the HTTP interface; docs/http.md shows each with an example.

`post_rate` is what `api.hot` leaves to aiohttp: one regular expression, one future and the answer, mostly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.resources import files
from urllib.parse import unquote

from aiohttp import web

from api.parsing import check_name, read_integer, read_key, read_query, read_rate, read_rates, simple_rate
from api.publisher import Publisher
from core.answers import EMPTY_OK, json_response, problem_response
from core.errors import Problem, StoreError
from core.fold import MINUTE_S
from core.http import Handler, Request, Routes
from core.rates import identity
from core.settings import Intake
from core.store import Ranked, Store, Summary

MOST_LISTED = 1000
DEFAULT_TOP = 10


class Api:
    """Answers from a publisher and a store."""

    def __init__(self, publisher: Publisher, store: Store, intake: Intake) -> None:
        self._publisher = publisher
        self._store = store
        self._within = intake.rate_range
        self._page = files("api").joinpath("page.html").read_bytes()

    def routes(self, health: Mapping[str, Mapping[str, Handler]]) -> Routes:
        exact: dict[str, Mapping[str, Handler]] = {
            "/": {"GET": self.page},
            "/rate": {"POST": self.post_rate},
            "/rates": {"GET": self.totals, "POST": self.post_rates},
            "/subjects": {"GET": self.subjects},
            "/top": {"GET": self.top},
            "/opened": {"GET": self.opened},
            **health,
        }
        return Routes(exact=exact, under={"/rates/": {"GET": self.subject}})

    async def post_rate(self, request: Request) -> web.StreamResponse:
        key = None
        if "Idempotency-Key" in request.headers:
            key = read_key(request)
        rate = None if request.body_exists else simple_rate(request.raw_path, self._within)
        rates = [rate or await read_rate(request, self._within)]
        waiter = self._publisher.join(rates, identity("", "/rate", key, rates) if key else None)
        if (problem := await waiter) is not None:
            return problem_response(problem)
        return EMPTY_OK

    async def post_rates(self, request: Request) -> web.StreamResponse:
        key = read_key(request)
        rates = await read_rates(request, self._within)
        if rates:
            waiter = self._publisher.join(rates, identity("", "/rates", key, rates) if key else None)
            if (problem := await waiter) is not None:
                return problem_response(problem)
        return json_response({"accepted": len(rates)})

    async def totals(self, request: Request) -> web.Response:
        read_query(request, set())
        with _reading():
            return json_response(_summary(await self._store.totals()))

    async def subject(self, request: Request) -> web.Response:
        read_query(request, set())
        name = check_name(unquote(request.rel_url.raw_path.removeprefix("/rates/")))
        with _reading():
            summary = await self._store.subject(name)
        if summary is None:
            raise Problem(HTTPStatus.NOT_FOUND, "unknown-subject", f"nothing was counted for {name}")
        return json_response({"subject": name, **_summary(summary)})

    async def subjects(self, request: Request) -> web.Response:
        query = read_query(request, {"after", "limit"})
        limit = read_integer(query, "limit", MOST_LISTED, 1, MOST_LISTED)
        after = check_name(query["after"]) if query.get("after") else ""
        with _reading():
            rows = await self._store.subjects(after, limit)
        following = rows[-1].subject if len(rows) == limit else None
        return json_response({"subjects": [_ranked(row) for row in rows], "after": following})

    async def top(self, request: Request) -> web.Response:
        query = read_query(request, {"n", "by"})
        n = read_integer(query, "n", DEFAULT_TOP, 1, MOST_LISTED)
        by = query.get("by", "count")
        if by not in ("count", "mean"):
            raise Problem(HTTPStatus.BAD_REQUEST, "invalid-query", "by must be count or mean")
        with _reading():
            rows = await self._store.top(n, "mean" if by == "mean" else "count")
        return json_response({"by": by, "subjects": [_ranked(row) for row in rows]})

    async def opened(self, request: Request) -> web.Response:
        """Reports this replica's own producers first, so that a client sees what it was itself answered."""
        read_query(request, set())
        await self._publisher.report(1.0)
        with _reading():
            opened = await self._store.opened()
        return json_response({"opened": opened.opened, "abandoned": opened.abandoned})

    async def page(self, request: Request) -> web.Response:
        return web.Response(body=self._page, content_type="text/html", charset="utf-8")


@contextmanager
def _reading() -> Iterator[None]:
    """A store that is away is a 503."""
    try:
        yield
    except StoreError as exc:
        detail = f"the store does not answer: {exc}"
        headers = {"Retry-After": "1"}
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "store-away", detail, headers=headers) from exc


def _summary(summary: Summary) -> dict[str, object]:
    rates = summary.distribution
    return {
        "count": summary.count,
        "sum": summary.sum,
        "mean": summary.sum / summary.count if summary.count else None,
        "min": min(rates, default=None),
        "max": max(rates, default=None),
        "distribution": {str(rate): count for rate, count in rates.items()},
        "minutes": {
            datetime.fromtimestamp(minute * MINUTE_S, UTC).strftime("%Y-%m-%dT%H:%MZ"): count
            for minute, count in summary.minutes.items()
        },
    }


def _ranked(row: Ranked) -> dict[str, object]:
    return {"subject": row.subject, "count": row.count, "mean": row.mean}
