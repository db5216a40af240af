"""Locks for servers of a stack: a certificate from an authority of its own, and one user with a password.

Made with the program openssl, by the commands that docs/security.md shows.
"""

from __future__ import annotations

import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.errors import FanrateError
from stack.ports import HOST
from stack.programs import find

USER: Final = "fanrate"
NAMES: Final = f"DNS:localhost,IP:{HOST}"
"""What the certificate of a server here must be made for."""
DAYS: Final = 30

_OPENSSL_S: Final = 20.0
_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
_EXTENSIONS: Final = """\
subjectAltName=%s
basicConstraints=CA:FALSE
extendedKeyUsage=serverAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""


class NoCertificate(FanrateError):
    """openssl did not make what it was asked for."""


@dataclass(frozen=True, slots=True)
class Locks:
    """What a server and its clients need to know of each other; files lie in `folder`. Either half may be missing: TLS,
    or the user."""

    folder: Path
    tls: bool
    user: str

    @property
    def authority(self) -> Path:
        """The certificate to trust."""
        return self.folder / "ca.pem"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        """Of the certificate, not encrypted."""
        return self.folder / "server.key"

    def key_and_certificate(self) -> Path:
        """Both in one file, as Kafka wants them."""
        path = self.folder / "server-with-key.pem"
        path.write_text(self.key.read_text() + self.certificate.read_text())
        return path

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    @property
    def password(self) -> str:
        return self.password_file.read_text().strip()

    def url(self, scheme: str, port: int, path: str = "") -> str:
        """Where a server with these locks is; no secret is in it."""
        return f"{scheme}{'+tls' * self.tls}://{HOST}:{port}{path}"

    def settings(self, setting: str) -> dict[str, str]:
        """What services are told beside the URL; `setting` is BROKER or STORE."""
        access = {f"{setting}_CA_FILE": str(self.authority)} if self.tls else {}
        if self.user:
            access |= {f"{setting}_USER": self.user, f"{setting}_PASSWORD_FILE": str(self.password_file)}
        return access


OPEN: Final = Locks(Path(), tls=False, user="")
"""No locks."""


def make_locks(folder: Path, *, tls: bool = True, user: str = USER) -> Locks:
    """New ones, with files in `folder`. Raises MissingProgram and NoCertificate."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    locks = Locks(folder, tls, user)
    if tls:
        make_authority(locks)
        make_certificate(locks)
    if user:
        change_password(locks)
    return locks


def change_password(locks: Locks) -> None:
    """Another one, in the file; the server still has to be told."""
    locks.password_file.touch(0o600)
    locks.password_file.write_text(secrets.token_hex(16) + "\n")


def make_authority(locks: Locks) -> None:
    """Another one: certificates made before are not its own."""
    subject = ("-subj", "/CN=Fanrate test authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    files = ("-keyout", _authority_key(locks), "-out", locks.authority)
    _openssl(locks, "req", "-x509", *_NEW_KEY, "-days", str(DAYS), *subject, *files)


def make_certificate(locks: Locks, *, names: str = NAMES, days: int = DAYS) -> None:
    """Another one of the same authority, for `names`; with `days` below 0 it has expired."""
    request, extensions = locks.folder / "server.csr", locks.folder / "server.ext"
    extensions.write_text(_EXTENSIONS % names)
    _openssl(locks, "req", *_NEW_KEY, "-subj", "/CN=Fanrate test server", "-keyout", locks.key, "-out", request)
    authority = ("-CA", locks.authority, "-CAkey", _authority_key(locks), "-CAcreateserial")
    made = ("-days", str(days), "-extfile", extensions, "-out", locks.certificate)
    _openssl(locks, "x509", "-req", "-in", request, *authority, *made)


def _authority_key(locks: Locks) -> Path:
    return locks.folder / "ca.key"


def _openssl(locks: Locks, *arguments: str | Path) -> None:
    command = [str(find("openssl")), *map(str, arguments)]
    done = subprocess.run(command, cwd=locks.folder, capture_output=True, text=True, timeout=_OPENSSL_S, check=False)
    if done.returncode:
        raise NoCertificate(done.stderr.strip())
