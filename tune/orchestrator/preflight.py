"""What has to hold before anything is started: programs are there, ports are free."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from tune.errors import ConfigurationError
from tune.manifest.process_manifest import ProcessManifest


def program_path() -> str:
    """Where processes on this host look for programs: `python3` is the interpreter that runs tune."""
    return f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"


def require_programs(launch: ProcessManifest) -> None:
    """Raises ConfigurationError where a process could not be started on this host, naming every missing program."""
    path = program_path()
    needed = dict.fromkeys(process.argv[0] for process in launch.processes)
    missing = [program for program in needed if shutil.which(program, path=path) is None]
    if missing:
        raise ConfigurationError(
            f"Programs of the deployment are missing; nothing was started. Found no {', '.join(missing)}. "
            "Expected them on the PATH, or where cluster.dynamo_venv says: make dynamo installs what mock "
            "engines need."
        )


def require_free_ports(launch: ProcessManifest, addresses: Mapping[int, str]) -> None:
    """Raises ConfigurationError where a process of these nodes, which are this host, would find its port taken.

    `addresses`: by node index, the address that the ports belong to.
    Every such port is named with its setting, also one that two processes of the plan share.
    """
    asked = [
        (addresses[process.node_index], port, process.name)
        for process in launch.processes
        if process.node_index in addresses
        for port in process.listens
    ]
    owners: dict[tuple[str, int], str] = {}
    taken = []
    for address, port, name in asked:
        backend = (address, port.number)
        if backend in owners:
            taken.append(f"{port.setting}={port.number} for {name}, which is that of {owners[backend]}")
        elif not _free(backend):
            taken.append(f"{port.setting}={port.number} for {name}, on which something listens already")
        owners.setdefault(backend, name)
    if taken:
        listed = "\n".join(f"  {line}" for line in taken)
        raise ConfigurationError(
            f"Ports of the deployment are taken; nothing was started. Found\n{listed}\nExpected free ports: "
            "give these settings others, or end what listens there (ss -ltnp shows it)."
        )


def _free(backend: tuple[str, int]) -> bool:
    """Whether a server could listen there; a closed connection's wait does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(backend)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
