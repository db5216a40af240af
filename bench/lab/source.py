"""The source that was measured, where it lies in a repository: two builds may have one version."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]


@cache
def commit() -> str:
    """Of the clone, with `+` where files were changed since; empty without git, and of an installed wheel."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"],  # noqa: S607 - the user's own
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.strip()
