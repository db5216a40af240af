"""The Dockerfile: what goes in, and how the image is started and asked how it is."""

from __future__ import annotations

import re
import tomllib

from tests.deploy.files import ROOT, dockerfile, image_version

_PINNED = re.compile(r"^([a-z0-9-]+)==(\S+) ", re.MULTILINE)


def let_through() -> set[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    return {line.removeprefix("!") for line in lines if line.startswith("!")}


def test_all_that_the_wheel_is_built_from_is_let_through_and_no_more() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = [project["project"]["readme"], *project["project"]["license-files"]]
    assert let_through() == {*packages, *files, "pyproject.toml", "requirements"}


def test_the_wheel_is_built_with_what_is_locked() -> None:
    """The same versions as everywhere else, each with hashes."""
    built = dict(_PINNED.findall((ROOT / "requirements" / "build.txt").read_text(encoding="utf-8")))
    others = dict(_PINNED.findall((ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")))
    assert "hatchling" in built
    assert built.items() <= others.items()


def test_nothing_is_installed_but_what_is_locked() -> None:
    """What comes from a registry has its hash; what was built here comes from none. Nothing is for tests."""
    text = dockerfile().replace("\\\n", " ")
    installs = re.findall(r"pip(?: --python \S+)? install (.*?)(?: &&|$)", text, re.MULTILINE)
    from_registry = [options.split() for options in installs if "--no-index" not in options]
    assert [options[-2:] for options in from_registry] == [
        ["-r", "requirements/build.txt"],
        ["-r", "requirements/runtime.txt"],
    ]
    assert all({"--require-hashes", "--only-binary"} <= set(options) for options in from_registry)
    assert [options.split() for options in installs if "--no-index" in options] == [
        ["--no-deps", "--no-index", "/wheels/*.whl"]
    ]
    assert len(re.findall(r"/pip\b", text)) == len(installs) + 1, "pip is asked for something else"
    assert "-m pip" not in text
    (wheel,) = re.findall(r"pip wheel (.*?) &&", text)
    assert {"--no-deps", "--no-build-isolation"} <= set(wheel.split())
    assert "requirements/dev.txt" not in text
    assert "python -m venv --without-pip /opt/fanrate " in text
    assert re.findall(r"^COPY --from=build (.*)$", text, re.MULTILINE) == ["/opt/fanrate /opt/fanrate"]


def test_it_needs_no_frontend_from_a_registry() -> None:
    assert "# syntax=" not in dockerfile()
    assert dockerfile().count("FROM python:${PYTHON}") == dockerfile().count("FROM ") == 2


def test_its_python_is_one_that_the_project_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (tag,) = re.findall(r"^ARG PYTHON=(\S+)$", dockerfile(), re.MULTILINE)
    assert image_version(f"python:{tag}")[:2] >= tuple(map(int, project["requires-python"][2:].split(".")))


def test_an_orchestrator_does_not_restart_it_because_a_broker_is_away() -> None:
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (.*)$", dockerfile(), re.MULTILINE)
    assert check == '["fanrate", "healthy"]'
