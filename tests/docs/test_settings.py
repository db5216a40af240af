"""Tables of docs/settings.md are those of the code: `python -m tests.docs.test_settings` writes them anew."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from core.sections import Section, default, values
from core.settings import ApiSettings, EmbeddedSettings, ProcessSettings
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "settings.md"
SERVICES: dict[str, type[Section]] = {"api": ApiSettings, "process": ProcessSettings, "run": EmbeddedSettings}

_HEAD = ["name", "default", "takes", "what", "read by"]
_TABLES = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- /settings -->)", re.DOTALL)
_KINDS = {int: "a number", float: "a number", str: "text", SecretStr: "text"}


def tables() -> str:
    """One for each section that has fields of its own, under its name and what it says of itself."""
    return "\n".join(f"## {_heading(each)}\n\n{each.__doc__}\n\n{_table(each)}" for each in _sections())


def _sections() -> list[type[Section]]:
    """Those with fields of their own, in the order of the module."""
    classes = {each for service in SERVICES.values() for each in service.__mro__ if issubclass(each, Section)}
    return sorted(filter(_own_fields, classes), key=lambda section: inspect.getsourcelines(section)[1])


def _own_fields(section: type[Section]) -> dict[str, FieldInfo]:
    own = inspect.get_annotations(section)
    return {name: field for name, field in section.model_fields.items() if name in own}


def _heading(section: type[Section]) -> str:
    return section.__name__.removesuffix("Settings")


def _table(section: type[Section]) -> str:
    rows = [_HEAD, ["---"] * len(_HEAD), *(_row(name, field) for name, field in _own_fields(section).items())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(name: str, field: FieldInfo) -> list[str]:
    unset = f"`{default(field)}`" if default(field) else ""
    return [f"`{name.upper()}`", unset, _takes(field), field.description or "", ", ".join(_readers(name, field))]


def _takes(field: FieldInfo) -> str:
    assert field.annotation is not None
    bounds = values(field)
    if " | " in bounds:
        return ", ".join(f"`{value}`" for value in bounds.split(" | "))
    if pattern := next((rule.pattern for rule in field.metadata if hasattr(rule, "pattern")), ""):
        assert "|" not in pattern, "it would end a cell"
        return f"`{pattern}`"
    return bounds or _KINDS[field.annotation]


def _readers(name: str, field: FieldInfo) -> Iterator[str]:
    for service, settings in SERVICES.items():
        if name in settings.model_fields and settings.model_fields[name].description == field.description:
            yield service


def test_the_tables_are_those_of_the_code() -> None:
    shown = _TABLES.search(PAGE.read_text(encoding="utf-8"))
    assert shown, f"{PAGE.name} has no place for the tables"
    assert shown[0] == tables()


def test_each_setting_of_each_service_is_in_one_table() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|.*\| ([a-z, ]+) \|$", tables(), re.MULTILINE)
    listed = sorted((service, name.lower()) for name, services in rows for service in services.split(", "))
    assert listed == sorted((service, name) for service, section in SERVICES.items() for name in section.model_fields)


if __name__ == "__main__":
    PAGE.write_text(_TABLES.sub(lambda _: tables(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
