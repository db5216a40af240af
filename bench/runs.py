"""One JSON file per run: what was measured, with what, on what, and how to measure it again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench import machine

OUT = Path("bench") / "out"
SCENE = "scene-"
"""How the folders begin in which runs go on, beside what they write; who is killed leaves one."""


def write(
    name: str, settings: Mapping[str, object], results: object, *, commands: list[str], folder: Path = OUT
) -> Path:
    """Write the run `name` into `folder` and return the file; `results` is anything that msgspec encodes."""
    now = datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y%m%dT%H%M%S.%fZ}-{name}.json"
    document = {
        "run": name,
        "at": now,
        "command": shlex.join(sys.orig_argv),
        "commands": commands,
        "machine": machine.describe(),
        "settings": settings,
        "results": results,
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    return path
