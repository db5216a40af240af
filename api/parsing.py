"""From a request to rates. Raises Problem for all that is wrong; what is right comes out in one form."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

from core.errors import Problem
from core.http import Request, read_body
from core.rates import DEFAULT_SUBJECT, SUBJECT_PATTERN, InvalidRate, Rate, RateRange, check_subject

FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
NDJSON: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")

SIMPLE: Final = rf"/rate\?rate=([0-9]{{1,10}})(?:&subject=({SUBJECT_PATTERN}))?"
"""A request target of the commonest form, which needs no decoding; its groups are digits and subject."""

_simple = re.compile(SIMPLE)
_key = re.compile(r"[!-~]{1,255}")

Fields = list[tuple[str, Any]]


def simple_rate(target: str, within: RateRange) -> Rate | None:
    """The rate in a request target of the commonest form, without any decoding; None if it is of another form, or wrong
    in a way that `read_rate` will tell."""
    if (match := _simple.fullmatch(target)) is None:
        return None
    return matched_rate(match[1], match[2], within)


def matched_rate(digits: str | bytes, subject: str | None, within: RateRange) -> Rate | None:
    """The same, of what the groups of SIMPLE matched."""
    rate = int(digits)
    return (subject or DEFAULT_SUBJECT, rate) if within.least <= rate <= within.most else None


def form_rate(text: str, place: str, within: RateRange) -> Rate:
    """The one rate of a query or form; `place` names it in what Problem says."""
    return _one_rate(_numbered(_form_fields(text, place), within), within)


async def read_rate(request: Request, within: RateRange) -> Rate:
    """The one rate of `POST /rate`, from its query and body taken together: each field in exactly one place."""
    fields = _numbered(_form_fields(request.rel_url.raw_query_string, "the query"), within)
    body = await read_body(request) if request.body_exists else b""
    if body:
        fields += _body_fields(request, body, within)
    return _one_rate(fields, within)


async def read_rates(request: Request, within: RateRange) -> list[Rate]:
    """The rates of `POST /rates`: a JSON array or NDJSON, each a number or an object."""
    if request.rel_url.raw_query_string:
        raise _bad("POST /rates takes no query")
    body = await read_body(request) if request.body_exists else b""
    if request.content_type in NDJSON:
        return _each("line", enumerate(_lines(body), 1), within)
    if request.content_type != JSON:
        raise _unsupported(request, JSON, *NDJSON[:1])
    content = _json(text_of(body))
    if not isinstance(content, list):
        raise _bad("the body must be a JSON array")
    return _each("index", enumerate(content), within)


def read_key(request: Request) -> str | None:
    """The Idempotency-Key, if there is one."""
    keys = request.headers.getall("Idempotency-Key", [])
    return check_key(keys) if keys else None


def check_key(keys: list[str]) -> str:
    """The one Idempotency-Key among those that were sent."""
    if len(keys) > 1 or not _key.fullmatch(keys[0]):
        raise _bad("Idempotency-Key must be given once, with 1 to 255 visible ASCII characters")
    return keys[0]


def read_query(request: Request, names: set[str]) -> dict[str, str]:
    """The query of a GET, each of `names` at most once and no other."""
    try:
        return _only(_form_fields(request.rel_url.raw_query_string, "the query"), names)
    except Problem as exc:
        raise _bad_query(exc.detail) from None


def read_integer(values: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    """The value of `name` as an integer within bounds, both included."""
    try:
        return RateRange(least, most).parse(values[name]) if name in values else default
    except InvalidRate:
        raise _bad_query(f"{name} must be an integer from {least} to {most}") from None


def check_name(name: str) -> str:
    """`name` from a path or query if it is a well-formed subject."""
    try:
        return check_subject(name)
    except InvalidRate as exc:
        raise _bad(str(exc)) from None


def _one_rate(fields: Fields, within: RateRange) -> Rate:
    try:
        return _checked(_only(fields, {"rate", "subject"}), within)
    except InvalidRate as exc:
        raise _bad(str(exc)) from None


def _each(place: str, items: Iterable[tuple[int, Any]], within: RateRange) -> list[Rate]:
    rates = []
    for number, item in items:
        try:
            rates.append(_item(item, within))
        except (InvalidRate, Problem) as exc:
            raise _bad(f"{place} {number}: {exc}", **{place: number}) from None
    return rates


def _item(item: Any, within: RateRange) -> Rate:
    if isinstance(item, bytes):
        item = _json(text_of(item))
    if isinstance(item, _Object):
        return _checked(_only(item.fields, {"rate", "subject"}), within)
    return DEFAULT_SUBJECT, within.check(item)


def _lines(body: bytes) -> Iterable[bytes]:
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise _bad("the body is empty")
    return (line.removesuffix(b"\r") for line in lines)


def _body_fields(request: Request, body: bytes, within: RateRange) -> Fields:
    if request.content_type == FORM:
        return _numbered(_form_fields(text_of(body), "the form"), within)
    if request.content_type != JSON:
        raise _unsupported(request, JSON, FORM)
    content = _json(text_of(body))
    if not isinstance(content, _Object):
        raise _bad("the body must be a JSON object")
    return content.fields


def _form_fields(text: str, place: str) -> Fields:
    if not text:
        return []
    try:
        return list(parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict"))
    except ValueError:
        raise _bad(f"{place} is not well-formed") from None


def _only(fields: Fields, names: set[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in fields:
        if name not in names:
            known = f"known: {', '.join(sorted(names))}" if names else "none is taken here"
            raise _bad(f"there is no field {name[:40]!a}; {known}")
        if name in values:
            raise _bad(f"{name} is given twice")
        values[name] = value
    return values


def _numbered(fields: Fields, within: RateRange) -> Fields:
    """Fields of text, with the rate turned from digits into a number, as JSON has it."""
    try:
        return [(name, within.parse(value) if name == "rate" else value) for name, value in fields]
    except InvalidRate as exc:
        raise _bad(str(exc)) from None


def _checked(values: dict[str, Any], within: RateRange) -> Rate:
    if "rate" not in values:
        raise InvalidRate("rate is missing")
    return check_subject(values.get("subject", DEFAULT_SUBJECT)), within.check(values["rate"])


def text_of(body: bytes) -> str:
    """A body, which must be UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise _bad("the body is not UTF-8") from None


class _Object:
    """A JSON object as it was sent, doubled names included."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_Object, parse_constant=_no_constant)


def _json(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except RecursionError:
        raise _bad("the JSON is nested too deeply") from None
    except json.JSONDecodeError as exc:
        raise _bad(f"not JSON: {exc.msg} at character {exc.pos + 1}") from None
    except ValueError as exc:
        raise _bad(f"not JSON: {exc}") from None


def _bad(detail: str, **members: object) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "invalid-rate", detail, members=members)


def _bad_query(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "invalid-query", detail)


def _unsupported(request: Request, *accepted: str) -> Problem:
    got = request.headers.get("Content-Type", "none")[:80]
    detail = f"Content-Type must be one of {', '.join(accepted)}, not {ascii(got)[1:-1]}"
    return Problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-type", detail, headers={"Accept-Post": ", ".join(accepted)}
    )
