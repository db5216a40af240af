"""RabbitMQ as a part of a stack: started without the wrapper of Debian's package, which changes the user, and with an
epmd of its own, the name server that Erlang needs and would leave running."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from core.settings import Durability
from stack.locks import OPEN, Locks
from stack.parts import Part, Tier
from stack.ports import HOST, free_port
from stack.probes import AMQP
from stack.programs import find

_CONFIGURATION: Final = """\
log.console = true
log.console.level = warning
log.file = false
disk_free_limit.absolute = 50MB
raft.wal_max_size_bytes = 67108864
"""
"""The write-ahead log of quorum queues is also held in memory: an eighth of what the server would let it grow to."""

_COMMAND: Final = 'epmd=$1 server=$2; "$epmd" -port "$ERL_EPMD_PORT" -address "$ERL_EPMD_ADDRESS" & exec "$server"'


def rabbit(
    directory: Path,
    *,
    name: str = "rabbit",
    port: int | None = None,
    durability: Durability = "confirmed",
    locks: Locks = OPEN,
) -> Part:
    """RabbitMQ without plugins. The server is the same for every `durability`: each queue and message has its own."""
    server, epmd = _server(), find("epmd")
    port = port or free_port()
    data = directory.absolute() / "data" / name
    configuration, plugins, users = data / "rabbitmq.conf", data / "enabled_plugins", data / "definitions.json"
    environment = {
        "HOME": data,
        "ERL_EPMD_ADDRESS": HOST,
        "ERL_EPMD_PORT": free_port(),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_NODENAME": f"{name}@localhost",
        "RABBITMQ_DIST_PORT": free_port(),
        "RABBITMQ_CONFIG_FILE": configuration,
        "RABBITMQ_ENABLED_PLUGINS_FILE": plugins,
        "RABBITMQ_MNESIA_BASE": data / "mnesia",
        "RABBITMQ_LOG_BASE": data / "log",
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": data / "pid",
        "RABBITMQ_GENERATED_CONFIG_DIR": data / "config",
        "RABBITMQ_SCHEMA_DIR": data / "schema",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
        "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes the server instead of waiting for it
    }
    return Part(
        name,
        Tier.SERVER,
        ["/bin/sh", "-c", _COMMAND, "sh", str(epmd), str(server)],
        port,
        locks.url("amqp", port, "/"),
        directory.absolute() / "logs" / f"{name}.log",
        replace(AMQP, tls=locks.tls),
        env={setting: str(value) for setting, value in environment.items()},
        folders=[data],
        files={
            configuration: _CONFIGURATION + _locked(port, users, locks),
            plugins: "[].\n",
            users: json.dumps(_definitions(locks)),
        },
    )


def _locked(port: int, users: Path, locks: Locks) -> str:
    """Where clients come in and how."""
    if locks.tls:
        files = {"cacertfile": locks.authority, "certfile": locks.certificate, "keyfile": locks.key}
        lines = ["listeners.tcp = none", f"listeners.ssl.1 = {HOST}:{port}", "ssl_options.verify = verify_none"]
        lines += [f"ssl_options.{option} = {path}" for option, path in files.items()]
    else:
        lines = [f"listeners.tcp.1 = {HOST}:{port}"]
    if locks.user:
        lines.append(f"load_definitions = {users}")
    return "\n".join([*lines, ""])


def _definitions(locks: Locks) -> dict[str, Any]:
    """Read at each start; without a user there is `guest`, whom the server makes at its first."""
    if not locks.user:
        return {}
    permissions = dict.fromkeys(("configure", "write", "read"), ".*")
    return {
        "users": [{"name": locks.user, "password": locks.password, "tags": ["administrator"]}],
        "vhosts": [{"name": "/"}],
        "permissions": [{"user": locks.user, "vhost": "/", **permissions}],
    }


def _server() -> Path:
    """The server's own script; raises MissingProgram."""
    found = find("rabbitmq-server").resolve()
    behind_wrapper = sorted(found.parent.parent.glob("lib/rabbitmq_server-*/sbin/rabbitmq-server"))
    return behind_wrapper[-1] if behind_wrapper else found
