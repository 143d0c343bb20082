"""Ports for servers that cannot take a free one by themselves."""

from __future__ import annotations

import itertools
import os
import socket

# Below those that the kernel gives to connections, so that a port stays free until the server takes
# it; apart from those of the Rust tests' servers; and none that browsers refuse.
_FIRST, _COUNT = 7_000, 3_000
_next = itertools.count(os.getpid() * 7919)


def free_port() -> int:
    while True:
        port = _FIRST + next(_next) % _COUNT
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
