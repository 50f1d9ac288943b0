"""Whether the ports of a plan are free, before anything is started."""

from __future__ import annotations

import errno
import socket

from tune.deploy.launch import Launch
from tune.errors import FixCommand


def require_free_ports(launch: Launch, node_indices: frozenset[int]) -> None:
    """Raises FixCommand where a process of these nodes, which are this host, would find its port taken.

    Every such port is named with its setting, also one that two processes of the plan share.
    """
    asked = [
        (port, process.name)
        for process in launch.processes
        if process.node_index in node_indices
        for port in process.listens
    ]
    owners: dict[int, str] = {}
    taken = []
    for port, name in asked:
        if port.number in owners:
            taken.append(f"{port.setting}={port.number} for {name}, which is that of {owners[port.number]}")
        elif not _free(port.number):
            taken.append(f"{port.setting}={port.number} for {name}, on which something listens already")
        owners.setdefault(port.number, name)
    if taken:
        listed = "\n".join(f"  {line}" for line in taken)
        raise FixCommand(
            f"Ports of the deployment are taken; nothing was started. Found\n{listed}\nExpected free ports: "
            "give these settings others, or end what listens there (ss -ltnp shows it)."
        )


def _free(number: int) -> bool:
    """Whether a server could listen there on every address; a closed connection's wait does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", number))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
