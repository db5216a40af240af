"""docs/operations.md holds: its table of settings is that of core/settings.py."""

from __future__ import annotations

from core.settings import ApiSettings, EmbeddedSettings, ProcessSettings, Section
from tests.docs.pages import page, table

SERVICES: dict[str, type[Section]] = {"api": ApiSettings, "process": ProcessSettings, "embedded": EmbeddedSettings}


def test_the_settings_are_those_of_the_code() -> None:
    expected: dict[tuple[str, str, str], list[str]] = {}
    for service, section in SERVICES.items():
        for name, field in section.model_fields.items():
            if field.description is not None:
                row = name.upper(), str(field.default), field.description
                expected.setdefault(row, []).append(service)
    listed = table(page("operations.md"), "Settings")
    assert sorted(listed) == sorted([*row, ", ".join(services)] for row, services in expected.items())
