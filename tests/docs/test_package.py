"""The wheel holds the rooms of the house: all that is code or is read at run time, and nothing else."""

from __future__ import annotations

import tomllib
from typing import Any

from tests.docs.pages import ROOT

NOT_INSTALLED = {"deploy", "docs", "requirements", "tests"}


def test_the_wheel_holds_every_room() -> None:
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert set(_pyproject()["hatch"]["build"]["targets"]["wheel"]["packages"]) == rooms - NOT_INSTALLED - {"dist"}


def test_every_room_with_code_is_checked() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    tools = _pyproject()
    assert set(tools["mypy"]["packages"]) == rooms
    assert set(tools["importlinter"]["root_packages"]) == rooms


def _pyproject() -> dict[str, Any]:
    tools: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    return tools
