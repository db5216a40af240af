"""RabbitMQ as a part of a stack: started without the wrapper of Debian's package, which changes the user, and with an
epmd, the name server that Erlang needs and would leave running: its own, or one for all nodes of a cluster, which find
each other by it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from core.settings import Durability
from stack.locks import OPEN, Locks
from stack.parts import Part, Tier
from stack.ports import HOST, free_port
from stack.probes import AMQP, LISTENS
from stack.programs import find

_CONFIGURATION: Final = """\
log.console = true
log.console.level = warning
log.file = false
disk_free_limit.absolute = 50MB
raft.wal_max_size_bytes = 67108864
"""
"""The write-ahead log of quorum queues is also held in memory: an eighth of what the server would let it grow to."""

_CLUSTERED: Final = """\
cluster_name = fanrate
cluster_formation.peer_discovery_backend = classic_config
cluster_partition_handling = pause_minority
"""
_COMMAND: Final = 'epmd=$1 server=$2; "$epmd" -port "$ERL_EPMD_PORT" -address "$ERL_EPMD_ADDRESS" & exec "$server"'
_NODE_COMMAND: Final = """
test -e "$HOME/.erlang.cookie" || (umask 277 && printf %s "$FANRATE_COOKIE" >"$HOME/.erlang.cookie")
exec "$1"
"""
"""The nodes of a cluster trust each other by a cookie, a file that only its owner may read."""


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
    argv = ["/bin/sh", "-c", _COMMAND, "sh", str(epmd), str(server)]
    return _part(directory, name, port or free_port(), argv, {"ERL_EPMD_PORT": str(free_port())}, locks=locks)


def rabbit_node(directory: Path, name: str, nodes: Mapping[str, int], epmd: Part, cookie: str) -> Part:
    """The node `name` of a cluster of `nodes`, their names and ports. `epmd` must run before any of them."""
    peers = [f"cluster_formation.classic_config.nodes.{k} = {each}@localhost" for k, each in enumerate(nodes, 1)]
    clustered = _CLUSTERED + "".join(f"{line}\n" for line in peers)
    argv = ["/bin/sh", "-c", _NODE_COMMAND, "sh", str(_server())]
    env = {"ERL_EPMD_PORT": str(epmd.port), "FANRATE_COOKIE": cookie}
    return _part(directory, name, nodes[name], argv, env, clustered=clustered)


def epmd_part(directory: Path, name: str) -> Part:
    """The name server of several nodes."""
    port = free_port()
    argv = [str(find("epmd")), "-port", str(port), "-address", HOST]
    log = directory.absolute() / "logs" / f"{name}.log"
    return Part(name, Tier.SERVER, argv, port, f"epmd://{HOST}:{port}", log, LISTENS)


def rabbitmqctl() -> Path:
    """The tool that asks a node, in that node's own environment; raises MissingProgram."""
    return _server().with_name("rabbitmqctl")


def _part(
    directory: Path,
    name: str,
    port: int,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    clustered: str = "",
    locks: Locks = OPEN,
) -> Part:
    data = directory.absolute() / "data" / name
    configuration, plugins, users = data / "rabbitmq.conf", data / "enabled_plugins", data / "definitions.json"
    environment = {
        "HOME": data,
        "ERL_EPMD_ADDRESS": HOST,
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
        **env,
    }
    return Part(
        name,
        Tier.SERVER,
        argv,
        port,
        locks.url("amqp", port, "/"),
        directory.absolute() / "logs" / f"{name}.log",
        replace(AMQP, tls=locks.tls),
        env={setting: str(value) for setting, value in environment.items()},
        folders=[data],
        files={
            configuration: _CONFIGURATION + clustered + _locked(port, users, locks),
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
