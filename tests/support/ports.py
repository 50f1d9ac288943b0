"""Draw ports that no other process takes before a server of a test binds them.

The kernel gives the ports of `net.ipv4.ip_local_port_range` to outgoing connections: one of them that was
free when it was drawn may be taken a second later. Ports here are below that range, and each process of
tests draws from a block that it alone holds.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterator
from pathlib import Path

FIRST_PORT, BLOCK_PORTS, DISTANCE = 12_000, 200, 400
"""First port, ports of a block, and ports from one block to the next. vLLM workers also listen 1,000 ports
above those that they are given: these lie between two blocks."""


def port_overrides() -> tuple[str, ...]:
    """Return overrides that give a deployment free ports, with two frontends and 18 workers at most."""
    frontend, _second, client, peer, nats, system, *_workers = free_ports(5 + 18)
    return (
        *(f"stack.frontend_port={frontend}", f"stack.etcd_client_port={client}"),
        *(f"stack.etcd_peer_port={peer}", f"stack.nats_port={nats}", f"stack.system_port={system}"),
    )


def free_ports(count: int) -> list[int]:
    """Return `count` consecutive ports that are free."""
    drawn = _block()
    for _ in range(BLOCK_PORTS):
        ports = [next(drawn) for _ in range(count)]
        if ports == list(range(ports[0], ports[0] + count)) and all(map(_is_free, ports)):
            return ports
    raise RuntimeError(f"found no {count} free ports in a row in a block of {BLOCK_PORTS}")


@functools.cache
def _block() -> Iterator[int]:
    """Return the ports of a block again and again; the lock on the block ends with this process."""
    kernel = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    for first in range(FIRST_PORT, int(kernel.split()[0]) - BLOCK_PORTS, DISTANCE):
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0tune-tests-ports-{first}")
        except OSError:
            lock.close()
        else:
            return _cycle(first, lock)
    raise RuntimeError("every block of ports is held by another process of tests")


def _cycle(first: int, lock: socket.socket) -> Iterator[int]:
    with lock:
        while True:
            yield from range(first, first + BLOCK_PORTS)


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
