"""The wheel's top-level names are ordinary words: no library that comes along may have one of them, now or after an
upgrade of the locks."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pytest

from tests.fanrate.conftest import ROOT
from tests.fanrate.test_contents import ROOMS

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
_CODE = {".py", ".pyi", ".so", ".pyd"}


def locked() -> list[str]:
    """The distributions that the locks name, for whatever platform."""
    return sorted(
        {name for lock in LOCKS for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(), re.MULTILINE)}
    )


def installed() -> Iterator[Distribution]:
    for name in locked():
        with suppress(PackageNotFoundError):  # it is for another platform
            yield distribution(name)


def top_level_names(found: Distribution) -> set[str]:
    """What can be imported of `found`."""
    return {
        path.parts[0].partition(".")[0] for path in found.files or [] if path.suffix in _CODE and path.parts[0] != ".."
    }


@pytest.mark.parametrize("name", ROOMS)
def test_no_library_has_the_name_of_a_room(name: str) -> None:
    assert [found.metadata["Name"] for found in installed() if name in top_level_names(found)] == []
    assert name not in sys.stdlib_module_names


def test_names_are_found() -> None:
    names = {name for found in installed() for name in top_level_names(found)}
    assert {"aiohttp", "pydantic", "redis", "structlog", "uvloop", "yarl"} <= names
    assert len(list(installed())) > len(locked()) / 2
