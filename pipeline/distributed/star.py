"""Connections of the heartbeat: every rank to rank 0, one short JSON object a line.

Notable:
- A star costs 2 (N - 1) short lines a beat, whatever watches whom: at 512 ranks some 340 a second.
- A process that is killed has its connections closed by the kernel, so its death is seen at once;
  only one that is frozen, or whose node lost its power, has to be missed.
- Plain sockets and not torch's store: a call to the store of a frozen process can block for ever,
  and one to the store of a dead process writes a page to the terminal.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from contextlib import suppress
from typing import Any

from pipeline.distributed.collectives import broadcast_object, gather_objects
from pipeline.distributed.world import World

CONNECT_SECONDS = 60.0
_LONGEST_LINE = 65536


class Peer:
    """The other end of a connection.

    Args:
        rank, node: who it is.
        connection: connected; closed by `close`.
    """

    def __init__(self, rank: int, node: str, connection: socket.socket) -> None:
        self.rank = rank
        self.node = node
        self.socket = connection
        self.heard = 0.0
        """When a line came last, by the clock of who listens."""
        self.left = False
        """It said that it leaves, or was found to be gone; nothing is expected of it."""
        self._received = b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)

    @property
    def name(self) -> str:
        """As sentences call it."""
        return f"rank {self.rank} on {self.node}"

    def send(self, message: dict[str, Any]) -> None:
        """Send a line. What cannot be sent, because it is frozen or gone, is dropped."""
        with suppress(OSError):
            self.socket.send(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """What has come since the last call; None at the end of the connection."""
        try:
            data = self.socket.recv(_LONGEST_LINE)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close the connection; what was sent still arrives."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        self.socket.close()


def connect(world: World, node: str) -> list[Peer]:
    """Connect this rank to rank 0, or rank 0 to all. A collective.

    Rank 0 is where MASTER_ADDR points, under every launcher.

    Returns:
        The ranks that this one watches: all others on rank 0, and rank 0 on the others.

    Raises:
        OSError: no connection within `CONNECT_SECONDS`.
    """
    nodes = gather_objects(node)
    if world.is_main:
        with _listen() as listener:
            # Whoever finds the port cannot speak for a rank without the token.
            token = secrets.token_hex(16)
            broadcast_object((listener.getsockname()[1], token))
            listener.settimeout(CONNECT_SECONDS)
            connections: dict[int, socket.socket] = {}
            while len(connections) < world.size - 1:
                connection, _ = listener.accept()
                rank = _introduced(connection, token)
                if rank is not None:
                    connections[rank] = connection
        return [Peer(rank, nodes[rank], connections[rank]) for rank in sorted(connections)]
    port, token = broadcast_object(None)
    address = (os.environ["MASTER_ADDR"], port)
    connection = socket.create_connection(address, CONNECT_SECONDS)
    connection.sendall(f"{token} {world.rank:08d}".encode())
    return [Peer(0, nodes[0], connection)]


def _listen() -> socket.socket:
    """A listening socket on a free port of every interface, for as many ranks as there may be."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    return socket.create_server(("", 0), family=family, backlog=1024, dualstack_ipv6=dual)


def _introduced(connection: socket.socket, token: str) -> int | None:
    """The rank that a new connection is of; None, and it is closed, if it is of no rank."""
    connection.settimeout(CONNECT_SECONDS)
    with suppress(OSError):
        length = len(token) + 9
        hello = connection.recv(length, socket.MSG_WAITALL).decode(errors="replace")
        if len(hello) == length and secrets.compare_digest(hello[:-9], token):
            return int(hello[-8:])
    connection.close()
    return None
