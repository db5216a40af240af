"""What a rate is: an integer given to a subject, and the rules that text from outside must meet to become one."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple, TypeAlias

import msgspec

Rate: TypeAlias = tuple[str, int]
"""`(subject, rate)`. A bare tuple: the fold counts them by the hundred thousand a second and wants C speed."""

DEFAULT_SUBJECT = "default"
MAX_SUBJECT_CHARACTERS = 128
LARGEST_RATE = 10**9
"""RATE_MIN and RATE_MAX may not go beyond +-LARGEST_RATE: sums then stay far from the 64 bits of the store."""

SUBJECT_PATTERN = rf"[A-Za-z0-9][A-Za-z0-9._:-]{{0,{MAX_SUBJECT_CHARACTERS - 1}}}"
_subject = re.compile(SUBJECT_PATTERN)
_integer = re.compile(r"-?[0-9]{1,10}")


class InvalidRate(ValueError):
    """A rate or subject that breaks a rule; the message is fit for the person who sent it."""


class RateRange(NamedTuple):
    """The smallest and the largest rate taken in, both included."""

    least: int
    most: int

    def parse(self, text: str) -> int:
        """The rate that `text` writes in ASCII digits; raises InvalidRate."""
        if not _integer.fullmatch(text):
            raise InvalidRate(f"rate must be an integer from {self.least} to {self.most}, not {_shown(text)}")
        return self.check(int(text))

    def check(self, rate: object) -> int:
        """`rate` itself if it is an integer (not a boolean) within the range; raises InvalidRate."""
        if type(rate) is not int:
            raise InvalidRate(f"rate must be an integer, not {_named(rate)}")
        if not self.least <= rate <= self.most:
            raise InvalidRate(f"rate must be from {self.least} to {self.most}, not {_shown(str(rate))}")
        return rate


def check_subject(subject: object) -> str:
    """`subject` itself if it is a well-formed name; raises InvalidRate."""
    if not isinstance(subject, str):
        raise InvalidRate(f"subject must be a string, not {_named(subject)}")
    if not _subject.fullmatch(subject):
        raise InvalidRate(
            "subject must start with a letter or digit and have 1 to 128 characters of A-Z a-z 0-9 . _ : -, "
            f"not {_shown(subject)}"
        )
    return subject


def identity(caller: str, route: str, key: str, rates: list[Rate]) -> str:
    """What an Idempotency-Key stands for: 32 hexadecimal digits (128-bit BLAKE2b, RFC 7693) over who asks, where, the
    key and the decoded rates. The same key with other rates is another identity."""
    return blake2b(msgspec.json.encode((caller, route, key, rates)), digest_size=16).hexdigest()


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= 40 else f"{ascii(text[:40])[:-1]}...'"


def _named(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a fraction", str: "a string", list: "an array"}
    return names.get(type(value), "an object")
