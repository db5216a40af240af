"""`python -m stack services`: installs the servers that a topology needs and that are missing, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from core.commands import remedy
from stack import packages
from stack.kafka import KAFKA_VERSION, kafka_jars
from stack.programs import MISSING_PROGRAM, MissingProgram, find, own_folder
from stack.rabbit import rabbit
from stack.topology import SERVERS, Broker

FAILED: Final = 1
NATS_MODULE: Final = "github.com/nats-io/nats-server/v2@v2.15.2"
NATS_SIZE: Final = "downloads about 8 MB of source, builds a program of 24 MB"
KAFKA_SIZE: Final = "downloads about 54 MB of jars from Maven Central"
MAVEN: Final = ("mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime")
KAFKA_POM: Final = Path(__file__).with_name("kafka-pom.xml")
BUILD_S: Final = 900.0

KAFKA: Final = "kafka"
"""What `kafka_jars` calls them."""
VERSION_OPTIONS: Final = {"redis-server": "--version", "nats-server": "--version", "nginx": "-v", "java": "-version"}
"""Of programs that tell their version when asked. rabbitmq-server would start; its folder has it in its name."""


def main(brokers: Sequence[Broker]) -> int:
    """Install what is missing for any of `brokers`; the exit code."""
    wanted = needed(brokers)
    missing = [name for name in wanted if not is_there(name)]
    if "nats-server" in missing and shutil.which("go") and _go_install():
        missing.remove("nats-server")
    if KAFKA in missing and not is_there("mvn"):
        missing.append("mvn")
    by_package = [name for name in missing if name != KAFKA]
    if by_package and not packages.install(by_package):
        _hint(missing)
        return MISSING_PROGRAM
    if KAFKA in missing:
        install_jars(own_folder().parent / f"kafka-{KAFKA_VERSION}")
    absent = [name for name in wanted if not is_there(name)]
    if absent:
        print(f"still missing: {', '.join(absent)}")
        return FAILED
    print("all there:")
    for name in wanted:
        print(f"  {version(name)}  ({_place(name)})")
    return 0


def needed(brokers: Sequence[Broker]) -> list[str]:
    """The server programs of topologies on `brokers`; Kafka's is a folder of jars beside `java`."""
    programs = ["redis-server", *(SERVERS[broker].program for broker in brokers), "nginx"]
    return list(dict.fromkeys([*programs, *([KAFKA] if "kafka" in brokers else [])]))


def is_there(name: str) -> bool:
    try:
        _place(name)
    except MissingProgram:
        return False
    return True


def version(name: str) -> str:
    """Name and version, as far as can be told."""
    if name == KAFKA:
        return f"kafka {KAFKA_VERSION}"
    if name == "rabbitmq-server":
        told = rabbit(Path()).argv[-1]
    else:
        command = [str(find(name)), VERSION_OPTIONS[name]]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        told = answer.stdout + answer.stderr
    found = re.search(r"\d+\.\d+\.\d+", told)
    return f"{name} {found[0] if found else '?'}"


def install_jars(folder: Path) -> bool:
    """Let Maven copy Kafka's jars to `folder`, which appears whole or not at all; whether that worked."""
    print(f"Kafka {KAFKA_VERSION} into {folder}: {KAFKA_SIZE}", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as work:
        jars = Path(work) / "jars"
        # Maven would make its own folder beside the file that it reads.
        pom = shutil.copy(KAFKA_POM, work)
        command = [str(find(MAVEN[0])), *MAVEN[1:], "-f", pom, f"-DoutputDirectory={jars}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=BUILD_S, check=False)
        if done.returncode:
            return False
        shutil.rmtree(folder, ignore_errors=True)
        jars.rename(folder)
    return True


def _place(name: str) -> Path:
    """Where `name` is; raises MissingProgram."""
    return kafka_jars() if name == KAFKA else find(name)


def _go_install() -> bool:
    print(f"go install {NATS_MODULE} into {own_folder()}: {NATS_SIZE}", flush=True)
    own_folder().mkdir(parents=True, exist_ok=True)
    command = ["go", "install", NATS_MODULE]
    done = subprocess.run(command, env={**os.environ, "GOBIN": str(own_folder())}, timeout=BUILD_S, check=False)
    if done.returncode:
        print("that failed; Debian's nats-server is older and does as well", flush=True)
    return done.returncode == 0


def _hint(missing: Sequence[str]) -> None:
    again = remedy("`make services`", "`fanrate services`")
    if "nats-server" in missing:
        print(f"nats-server can also be built, without root, where Go is ({again} then does it): {NATS_MODULE}")
    if KAFKA in missing:
        print(f"Kafka's jars come by Maven ({again} then does it), without root where java and mvn are")
