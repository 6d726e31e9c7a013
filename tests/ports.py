"""Ports for servers that the tests start."""

from __future__ import annotations

import random
import socket
from contextlib import suppress


def free_ports(count: int) -> list[int]:
    """That nothing listens on, and that the kernel gives to nobody who does not ask for them.

    It takes those from 32768 up, as a Ray does that starts while a server waits to bind its own.
    """
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.add(port)
    return list(found)


def free_port() -> int:
    (port,) = free_ports(1)
    return port
