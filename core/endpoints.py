"""Where a server is and how to come in: what BROKER_URL or STORE_URL says, with the settings beside it.

An `Endpoint` shows its hosts to people and nothing else, however it is printed. What lies in files, the password and
the certificates, is read anew for each connection: what was changed there is put right without a restart.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeVar
from urllib.parse import unquote

from core.errors import EntryRefused, SettingsError

Address = tuple[str, int]
"""Host and port; port 0 stands for the usual one."""
Sasl = Literal["plain", "scram-sha-256", "scram-sha-512"]

_SYNONYMS: Final = {"tls": "nats+tls", "amqps": "amqp+tls", "rediss": "redis+tls"}
"""What others call a scheme with TLS."""
_TLS: Final = "+tls"
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_REST: Final = re.compile(r"(?P<place>[^/?#]*)(?P<behind>/?(?P<path>[^?#]*)(\?(?P<query>[^#]*))?(?P<fragment>#.*)?)")
_HOST: Final = re.compile(r"(\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^:\[\]\s]+))(:(?P<port>[0-9]{1,5}))?", re.IGNORECASE)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Access:
    """The settings beside a URL, whose names begin with `setting`; what is empty is not set."""

    setting: str = "BROKER"
    user: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    ca_file: str = ""
    sasl: Sasl = "scram-sha-512"


_NO_ACCESS: Final = Access()


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint:
    """One server, or the nodes of a cluster. `path` is what stands behind the hosts, without its first slash;
    `credentials` are the settings that name user and password, for people."""

    scheme: str
    hosts: tuple[Address, ...] = ()
    path: str = ""
    query: str = ""
    tls: bool = False
    access: Access = _NO_ACCESS
    credentials: tuple[str, ...] = ()

    @classmethod
    def of(cls, url: str, access: Access = _NO_ACCESS) -> Endpoint:
        """Of `SCHEME[+tls]://[USER:PASSWORD@][HOST[:PORT][,HOST[:PORT]...]][/PATH][?QUERY]`.

        Raises SettingsError, which names the setting and never says what a URL held that cannot be read: it may have
        been a password.
        """
        place, entry = cls._parsed(url, access.setting)
        user, _, password = entry.partition(":")
        access, credentials = _merged(access, unquote(user), unquote(password))
        endpoint = replace(place, access=access, credentials=credentials)
        _check(endpoint)
        return endpoint

    @classmethod
    def place(cls, url: str, setting: str = "BROKER") -> Endpoint:
        """What `of` tells of a URL, but for how to come in. Raises SettingsError."""
        return cls._parsed(url, setting)[0]

    @classmethod
    def _parsed(cls, url: str, setting: str) -> tuple[Endpoint, str]:
        """With what stands before the hosts."""
        told, found, rest = url.partition("://")
        scheme, parts = _SYNONYMS.get(told.lower(), told.lower()), _REST.fullmatch(rest)
        if not found or not _SCHEME.fullmatch(scheme) or parts is None:
            raise SettingsError(f"{setting}_URL: not of the form SCHEME://HOST[:PORT]")
        entry, at, place = parts["place"].rpartition("@")
        if "@" in entry:
            raise SettingsError(f"{_form(setting, scheme)}; they stand once, before the first host")
        if (parts["place"] and "@" in parts["behind"]) or parts["fragment"] or (at and not place):
            raise SettingsError(_form(setting, scheme))
        endpoint = cls(
            scheme=scheme.removesuffix(_TLS),
            hosts=tuple(_address(part, setting, scheme) for part in place.split(",")) if place else (),
            path=unquote(parts["path"]),
            query=parts["query"] or "",
            tls=scheme.endswith(_TLS),
            access=Access(setting),
        )
        return endpoint, entry

    def __str__(self) -> str:
        return ",".join(map(address_text, self.hosts)) or f"{self.scheme}://"

    def __repr__(self) -> str:
        return f"<{self.scheme}{_TLS * self.tls} {self}>"

    @property
    def url_setting(self) -> str:
        return f"{self.access.setting}_URL"

    @property
    def user(self) -> str:
        return self.access.user

    @property
    def has_password(self) -> bool:
        return bool(self.access.password or self.access.password_file)

    def with_port(self, port: int) -> Endpoint:
        """The same, with `port` where the URL names none. Raises SettingsError if it names no host."""
        if not self.hosts:
            raise SettingsError(f"{self.url_setting}: names no host")
        return replace(self, hosts=tuple((host, own or port) for host, own in self.hosts))

    def plain(self, *, path: bool = False, several: bool = True, user: bool = True) -> Endpoint:
        """Itself, or SettingsError if it has what an adapter would overlook: a query, and what is False here."""
        if self.query:
            raise SettingsError(f"{self.url_setting}: takes no options behind a question mark")
        if self.path and not path:
            raise SettingsError(f"{self.url_setting}: takes nothing behind the host")
        if len(self.hosts) > 1 and not several:
            raise SettingsError(f"{self.url_setting}: takes one host")
        if self.has_password and not self.user and not user:
            raise SettingsError(f"{' and '.join(self.credentials)}: a password without a user")
        return self

    def database(self) -> int:
        """The number behind the host, 0 without one; raises SettingsError."""
        if not re.fullmatch("[0-9]{0,9}", self.path):
            raise SettingsError(f"{self.url_setting}: takes the number of a database behind the host")
        return int(self.path or 0)

    def password(self) -> str:
        """As it is now; empty if there is none. Raises EntryRefused, naming the file."""
        path = self.access.password_file
        if not path:
            return self.access.password
        name = f"{self.access.setting}_PASSWORD_FILE {path}"
        try:
            password = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as exc:
            raise EntryRefused(f"{name}: {exc.strerror}") from exc
        except UnicodeDecodeError:
            raise EntryRefused(f"{name}: is not text") from None  # the error would show a piece of it
        if not password:
            raise EntryRefused(f"{name}: is empty")
        return password

    def ssl_context(self) -> ssl.SSLContext | None:
        """For one connection, None without TLS: 1.2 or newer, host names checked, trusting the authorities in the
        setting's file or else the system's. Raises EntryRefused, naming the file."""
        if not self.tls:
            return None
        path = self.access.ca_file
        try:
            context = ssl.create_default_context(cafile=path or None)
        except OSError as exc:  # ssl.SSLError is one
            reason = "holds no certificate in PEM" if isinstance(exc, ssl.SSLError) else exc.strerror
            raise EntryRefused(f"{self.access.setting}_CA_FILE {path}: {reason}") from exc
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def without_secrets(self, said: str) -> str:
        """What a server said: some repeat what they were told."""
        try:
            password = self.password()
        except EntryRefused:
            password = ""
        return said.replace(password, "***") if password else said

    def warn_if_overheard(self) -> None:
        """Log once at the start if the password, or what takes its place, goes to another machine unencrypted."""
        import structlog  # here, because brokers of other projects import this module

        if self.has_password and not self.tls and not all(map(_is_here, self.hosts)):
            structlog.get_logger().warning(
                "password_unprotected",
                setting=self.url_setting,
                server=str(self),
                meaning=f"whoever listens on the way can learn it; {self.scheme}{_TLS}:// encrypts the connection",
            )


def address_text(address: Address) -> str:
    host, port = address
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port else shown


def _merged(access: Access, user: str, password: str) -> tuple[Access, tuple[str, ...]]:
    """`access` with what the URL says of it, and the settings that say it; SettingsError for what is said twice."""
    url, setting = f"{access.setting}_URL", access.setting
    users = {url: user, f"{setting}_USER": access.user}
    passwords = {
        url: password,
        f"{setting}_PASSWORD": access.password,
        f"{setting}_PASSWORD_FILE": access.password_file,
    }
    names: list[str] = []
    for what, told in (("user", users), ("password", passwords)):
        told_by = [name for name, value in told.items() if value]
        if len(told_by) > 1:
            raise SettingsError(f"{' and '.join(told_by)} each give a {what}: leave all but one out")
        names += told_by
    merged = replace(access, user=user or access.user, password=password or access.password)
    return merged, tuple(dict.fromkeys(names))


def _address(part: str, setting: str, scheme: str) -> Address:
    """Of `HOST[:PORT]`."""
    found = _HOST.fullmatch(part)
    if found is None or int(found["port"] or 0) > 65_535:
        raise SettingsError(_form(setting, scheme))
    host = (found["v6"] or found["name"]).lower()
    try:
        host.encode("idna")  # as a look-up of the name does
    except UnicodeError:
        raise SettingsError(_form(setting, scheme)) from None
    return host, int(found["port"] or 0)


def _form(setting: str, scheme: str) -> str:
    return (
        f"{setting}_URL: not of the form {scheme}://[USER:PASSWORD@]HOST[:PORT]; in a user or password, write what is "
        "no letter or digit in percent code (@ as %40)"
    )


def _is_here(address: Address) -> bool:
    """Whether it is on this machine."""
    host, _ = address
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_text(value: str) -> bool:
    """What the environment holds need not be."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_setting(read: Callable[[], _T]) -> _T:
    try:
        return read()
    except EntryRefused as exc:
        raise SettingsError(str(exc)) from exc


def _check(endpoint: Endpoint) -> None:
    """Raises SettingsError for what contradicts itself, and for files that cannot be used now."""
    setting = endpoint.access.setting
    if not (_is_text(endpoint.user) and _is_text(endpoint.access.password)):
        raise SettingsError(f"{' and '.join(endpoint.credentials)}: not text in UTF-8")
    if endpoint.tls and not endpoint.hosts:
        raise SettingsError(f"{endpoint.url_setting}: names no host")
    if endpoint.access.ca_file and not endpoint.tls:
        raise SettingsError(
            f"{setting}_CA_FILE: {endpoint.url_setting} asks for no TLS; {endpoint.scheme}{_TLS}:// does"
        )
    if endpoint.user and not endpoint.has_password:
        raise SettingsError(
            f"{' and '.join(endpoint.credentials)}: a user without a password; {setting}_PASSWORD or "
            f"{setting}_PASSWORD_FILE gives it"
        )
    _as_setting(endpoint.password)
    _as_setting(endpoint.ssl_context)
