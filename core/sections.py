"""How a section of settings is read from the environment, and how it is told to people."""

from __future__ import annotations

from typing import Literal, TypeVar, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import SettingsError


class Section(BaseSettings):
    """Fields are set by the environment variable of their name in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)


_S = TypeVar("_S", bound=Section)


def load(section: type[_S]) -> _S:
    """Read `section` from the environment; raises SettingsError with one line per wrong setting."""
    try:
        return section()
    except ValidationError as exc:
        lines = []
        for error in exc.errors():
            name = str(error["loc"][0]).upper() + ": " if error["loc"] else ""
            got = f", not {error['input']!r}" if error["loc"] and not _is_secret(section, error["loc"][0]) else ""
            lines.append(f"{name}{error['msg'].removeprefix('Value error, ')}{got}")
        raise SettingsError("\n".join(lines)) from None


def describe(section: type[Section]) -> str:
    """The settings of `section` as lines for `--help`: name, default, description."""
    fields = section.model_fields.items()
    width = max(len(name) for name, _ in fields)
    return "\n".join(
        f"  {name.upper():<{width}}  {field.description}{_in_brackets(values(field))} [{default(field)}]"
        for name, field in fields
    )


def default(field: FieldInfo) -> str:
    """Of `field`, as one would write it in the environment; empty if it is empty."""
    return str(field.default).lower() if field.annotation is bool else _plain(field.default)


def values(field: FieldInfo) -> str:
    """The values that `field` takes, if they are few or bounded."""
    if field.annotation is bool:
        return "true | false"
    if get_origin(field.annotation) is Literal:
        return " | ".join(get_args(field.annotation))
    least, most = "", ""
    for bound in field.metadata:
        if isinstance(bound, Ge):
            least = _plain(bound.ge)
        elif isinstance(bound, Gt):
            least = f"above {_plain(bound.gt)}"
        elif isinstance(bound, Le):
            most = _plain(bound.le)
    if most:
        return f"{least} to {most}"
    return f"at least {least}" if least else ""


def _is_secret(section: type[Section], name: int | str) -> bool:
    """Whether what a setting was given must not be shown."""
    field = section.model_fields.get(str(name))
    return field is None or not field.repr or field.annotation is SecretStr


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _plain(number: object) -> str:
    return str(number).removesuffix(".0")
