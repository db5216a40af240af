"""docs/security.md holds: its commands make certificates that serve, and what it says that Fanrate says is said."""

from __future__ import annotations

import re
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from core.doors import Door
from core.endpoints import Access, Endpoint
from core.settings import ApiSettings
from tests.docs.pages import page, table
from tests.servers import needs

PAGE = page("security.md")
HANDSHAKE_STEPS = 8


def test_the_commands_make_certificates_that_serve(tmp_path: Path) -> None:
    """Also to clients that are strict, as Python's are from 3.13 on."""
    needs("openssl")
    shown = re.search(r"<!-- certificates -->\n```sh\n(.*?)```\n<!-- /certificates -->", PAGE, re.DOTALL)
    assert shown
    subprocess.run(["/bin/sh", "-ec", shown[1]], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    client = Endpoint.of("nats+tls://broker.example", Access(ca_file=str(tmp_path / "ca.pem"))).ssl_context()
    assert client is not None
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    shake_hands(client, server, "broker.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(client, server, "other.example")


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """In memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(HANDSHAKE_STEPS):
        waiting = 0
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
        if not waiting:
            return
    raise AssertionError("the handshake did not end")


def test_what_it_says_is_what_is_said() -> None:
    access = Access(user="u", password_file=__file__)
    endpoint = Endpoint.of("nats+tls://host:1", access)
    with_tls = Door(replace(endpoint, access=replace(endpoint.access, ca_file="FILE")))
    without = Door(Endpoint.of("nats://host:1"))
    at = ("host", 1)
    errors = [
        with_tls.login_refused(at, "..."),
        without.login_refused(at, "..."),
        with_tls.tls_missing(at),
        without.tls_wanted(at),
        without.cut_off(at),
        *(with_tls._of_tls(at, certificate_error(code)) for code in (10, 20, 62)),
    ]
    listed = [row[0].removesuffix("...").rstrip() for row in table(PAGE, "What it says when it is not let in")]
    for error in errors:
        said = str(error).replace("host:1", "HOST:PORT")
        assert any(said.startswith(row) for row in listed if row), said


def certificate_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "..."
    return error


def test_every_setting_of_access_is_named() -> None:
    for name in ApiSettings.model_fields:
        if name.startswith(("broker_", "store_")) and not name.endswith(("_url", "_replicas")):
            assert f"`{name.upper()}`" in PAGE
