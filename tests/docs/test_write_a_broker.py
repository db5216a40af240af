"""docs/write-a-broker.md shows the example as it is."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT, page

FILES = "\n".join(path.read_text() for path in (ROOT / "tests" / "example_broker").glob("*.*") if path.is_file())
SHOWN = re.findall(r"^```(?:python|toml|ini)\n(.*?)^```$", page("write-a-broker.md"), re.MULTILINE | re.DOTALL)


def test_there_is_something_shown() -> None:
    assert len(SHOWN) == 5


@pytest.mark.parametrize("shown", SHOWN)
def test_what_is_shown_is_in_the_example(shown: str) -> None:
    assert shown in FILES
