"""deploy/nginx.conf is nginx-tuned as containers need it: `python -m tests.deploy.test_nginx` writes it anew."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from stack.configuration import CONTAINER, nginx_configuration
from stack.programs import find
from tests.deploy.files import ROOT, image_version, services
from tests.servers import needs

FILE = ROOT / "deploy" / "nginx.conf"
HEAD = "# Made from nginx/nginx-tuned.conf.template: `python -m tests.deploy.test_nginx` writes it anew.\n"
RESOLVES_FROM = (1, 27, 3)
"""The first nginx that takes `resolve` in an upstream block."""


def text() -> str:
    return HEAD + nginx_configuration("nginx-tuned", CONTAINER)


def test_it_is_the_template_filled_in() -> None:
    assert FILE.read_text(encoding="utf-8") == text()


def test_the_image_can_follow_the_scale() -> None:
    assert image_version(services("nats")["nginx"]["image"]) >= RESOLVES_FROM


def test_it_writes_only_below_its_tmpfs() -> None:
    paths = re.findall(r"(?:pid|_path) (\S+);", FILE.read_text(encoding="utf-8"))
    assert len(paths) == 6
    assert {Path(path).parent for path in paths} == {CONTAINER.folder}
    assert [mount.partition(":")[0] for mount in services("nats")["nginx"]["tmpfs"]] == [str(CONTAINER.folder)]


def test_nginx_takes_it() -> None:
    needs("nginx")
    told = subprocess.run([find("nginx"), "-v"], capture_output=True, text=True, timeout=20, check=True).stderr
    if image_version(told.replace("/", ":").strip()) < RESOLVES_FROM:
        pytest.skip(f"{told.strip()} does not know resolve")
    tried = subprocess.run(
        [find("nginx"), "-t", "-e", "stderr", "-c", FILE], capture_output=True, text=True, timeout=20, check=False
    )
    assert tried.returncode == 0, tried.stderr


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
