"""Other ways to take a rate over HTTP and to answer once the broker has confirmed it, each as small as its own
documentation shows, on the same road as Fanrate: same broker, topic, durability, machine and load."""

from __future__ import annotations

from typing import Final

from bench.peers.aiohttp_publish import AiohttpPublish
from bench.peers.fastapi import FastApi
from bench.peers.go_net_http import GoNetHttp
from bench.peers.mq_bridge import MqBridge
from bench.peers.peer import NotBuilt as NotBuilt
from bench.peers.peer import Peer as Peer

PEERS: Final[dict[str, Peer]] = {
    peer.name: peer for peer in (FastApi(), AiohttpPublish(), GoNetHttp(), MqBridge(128, 1), MqBridge(1, 128))
}
