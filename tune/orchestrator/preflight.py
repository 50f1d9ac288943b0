"""Check before anything starts that programs exist, ports are free and the checkpoint is whole."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from tune.checkpoint.checkpoint_files import check_checkpoint
from tune.errors import ConfigurationError
from tune.manifest.expected_checkpoint import ExpectedCheckpoint
from tune.manifest.process import programs
from tune.manifest.process_manifest import ProcessManifest
from tune.spec.environment import inherited_names
from tune.spec.findings import only_errors, render_findings


def program_path() -> str:
    """Return the PATH of processes on this host: `python3` is the interpreter that runs tune."""
    return f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"


def require_programs(manifest: ProcessManifest) -> None:
    """Raise ConfigurationError, naming every missing program, if a process could not start."""
    path = program_path()
    needed = dict.fromkeys(program for process in manifest.processes for program in programs(process))
    missing = [program for program in needed if shutil.which(program, path=path) is None]
    if missing:
        raise ConfigurationError(
            f"Programs of the deployment are missing; nothing was started. Found no {', '.join(missing)}. "
            "Expected them on the PATH, or where cluster.dynamo_venv says: make dynamo installs what mock "
            "engines need."
        )


def require_variables(environments: Mapping[str, Mapping[str, str | None]], shell: Mapping[str, str]) -> None:
    """Raise ConfigurationError where `shell` lacks a variable that one of `environments` passes on.

    `environments` holds variables by the path of their setting, `shell` those of this process.
    """
    missing = [
        f"{path}.{name}"
        for path, variables in environments.items()
        for name in inherited_names(variables)
        if name not in shell
    ]
    if missing:
        raise ConfigurationError(
            f"{', '.join(missing)}: found null, and no such variable in the shell that starts tune; expected "
            "it there, as null passes its value on. Set and export it. Nothing was started."
        )


def require_checkpoint(expected: ExpectedCheckpoint | None) -> None:
    """Raise ConfigurationError where the checkpoint of the workers is not whole, or of another model."""
    broken = only_errors(check_checkpoint(expected)) if expected else ()
    if broken:
        raise ConfigurationError(f"{render_findings(broken)}No worker was started.")


def require_free_ports(manifest: ProcessManifest, addresses: Mapping[int, str]) -> None:
    """Raise ConfigurationError where a process on this host would find its port taken.

    `addresses`: by index of the nodes that are this host, the address that the ports belong to. The message
    names every such port with its setting, also one that two processes of the plan share.
    """
    wanted = [
        (addresses[process.node_index], port, process.name)
        for process in manifest.processes
        if process.node_index in addresses
        for port in process.listens
    ]
    owners: dict[tuple[str, int], str] = {}
    occupied = []
    for address, port, name in wanted:
        socket_address = (address, port.number)
        if socket_address in owners:
            occupied.append(
                f"{port.setting}={port.number} for {name}, which is that of {owners[socket_address]}"
            )
        elif not _is_free(socket_address):
            occupied.append(f"{port.setting}={port.number} for {name}, on which something listens already")
        owners.setdefault(socket_address, name)
    if occupied:
        listed = "\n".join(f"  {line}" for line in occupied)
        raise ConfigurationError(
            f"Ports of the deployment are taken; nothing was started. Found\n{listed}\nExpected free ports: "
            "give these settings others, or end what listens there (ss -ltnp shows it)."
        )


def _is_free(socket_address: tuple[str, int]) -> bool:
    """Return whether a server could listen there; a closed connection's wait does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(socket_address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
