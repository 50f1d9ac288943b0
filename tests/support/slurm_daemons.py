"""Run the daemons of the tests' Slurm: slurm_daemons.py FOLDER SUBNET PARENT [accounting], until PARENT ends.

Each has an own host name and an own /etc/hosts (namespaces: root only), so the processes of a node, jobs
included, are those in its UTS namespace. A slurmd that ends is started again, unless FOLDER/down names its
node. Nothing outlives this process, and FOLDER is removed.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # as a program it is not started where `support` is found
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.slurm_conf import (
    ACCOUNTING,
    ACCOUNTING_PORT,
    CONTROLLER,
    NODES,
    PORT,
    address,
    files,
    hosts,
)
from tune.orchestrator.supervision.process_tree import kill_descendants, signal_on_parent_death
from tune.orchestrator.supervision.supervisor import run_supervised

SBIN = "/usr/sbin"
SYSTEM_TABLES = Path("/usr/share/mysql/mysql_system_tables.sql")
_POLL_S = 0.1
_ALONE = (
    *("unshare", "--uts", "--mount", "--propagation", "private", "sh", "-c"),
    'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"',
    "sh",
)
"""NAME HOSTS COMMAND: run COMMAND as a host of that name. Source: unshare(1)."""


def prepare(folder: Path, subnet: int, *, accounting: bool) -> None:
    """Write everything in `folder` that the daemons need to start."""
    folder.chmod(0o755)  # MUNGE wants its socket reachable
    for name in ("state", "run", "logs", "hosts", "down", "up", "spool", "tmp"):
        (folder / name).mkdir()
    for node in NODES:
        (folder / "tmp" / node).mkdir()
    for name, text in files(folder, subnet, accounting=accounting).items():
        (folder / name).write_text(text)
    (folder / "slurmdbd.conf").chmod(0o600)  # slurmdbd wants it so
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))


def main(folder: Path, subnet: int, parent: int, *, accounting: bool) -> int:
    def work(_scratch: Path) -> int:
        try:
            return _serve(folder, subnet, accounting=accounting)
        finally:
            kill_descendants()

    prepare(folder, subnet, accounting=accounting)
    try:
        return run_supervised(work, parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(folder: Path, subnet: int, *, accounting: bool) -> int:
    """Run all daemons until munged or slurmctld ends. FOLDER/up names the nodes that accept jobs.

    A slurmctld that ends while there is FOLDER/restart is started again, with the state that it saved; a
    slurmdbd as a slurmd is.
    """
    munged = _start(folder, "munged", _munged(folder))
    _await(munged, (folder / "munge.socket").exists)
    slurmdbd = _account(folder, subnet) if accounting else None
    command = (f"{SBIN}/slurmctld", "-D", "-i", "-f", str(folder / "slurm.conf"))
    controller = _start(folder, CONTROLLER, _on(folder, CONTROLLER, command))
    nodes: dict[str, subprocess.Popen[bytes]] = {}
    while munged.poll() is None and (controller.poll() is None or (folder / "restart").exists()):
        if controller.poll() is not None:
            (folder / "restart").unlink()
            controller = _start(folder, CONTROLLER, _on(folder, CONTROLLER, command))
        if slurmdbd and slurmdbd.poll() is not None and not (folder / "down" / ACCOUNTING).exists():
            slurmdbd = _start_slurmdbd(folder, subnet)
        for node in NODES:
            up, own_hosts = folder / "up" / node, folder / "hosts" / node
            if node not in nodes or nodes[node].poll() is not None:
                up.unlink(missing_ok=True)
                if not (folder / "down" / node).exists():
                    own_hosts.write_text(hosts(node, subnet, listens=False))
                    nodes[node] = _start(folder, node, _on(folder, node, _slurmd(folder, node)))
            elif not up.exists() and _listens(address(node, subnet)):
                own_hosts.write_text(hosts(node, subnet, listens=True))
                up.touch()
        time.sleep(_POLL_S)
    print(f"munged ended with {munged.poll()}, slurmctld with {controller.poll()}", file=sys.stderr)
    return 1


def _await(daemon: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    """Return once `daemon` is `ready` or has ended."""
    while not ready() and daemon.poll() is None:
        time.sleep(_POLL_S / 10)


def _account(folder: Path, subnet: int) -> subprocess.Popen[bytes]:
    """Start slurmdbd with an own database, which only a socket in FOLDER reaches."""
    (folder / "database").mkdir(mode=0o700)
    (folder / "database" / "data").mkdir()
    tables = f"create database mysql;\nuse mysql;\n{SYSTEM_TABLES.read_text()}"
    database = _mariadbd(folder)
    subprocess.run((*database, "--bootstrap"), input=tables, text=True, capture_output=True, check=True)
    mariadbd = _start(folder, "mariadbd", (*database, "--skip-networking", "--skip-grant-tables"))
    _await(mariadbd, (folder / "database" / "socket").exists)
    return _start_slurmdbd(folder, subnet)


def _start_slurmdbd(folder: Path, subnet: int) -> subprocess.Popen[bytes]:
    slurmdbd = _start(folder, ACCOUNTING, _on(folder, ACCOUNTING, (f"{SBIN}/slurmdbd", "-D")))
    _await(slurmdbd, lambda: _listens(address(ACCOUNTING, subnet), ACCOUNTING_PORT))
    return slurmdbd


def _listens(host: str, port: int = PORT) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex((host, port)) == 0


def _mariadbd(folder: Path) -> tuple[str, ...]:
    own = folder / "database"
    return (
        *(f"{SBIN}/mariadbd", "--no-defaults", f"--user={getpass.getuser()}", f"--datadir={own}/data"),
        *(f"--socket={own}/socket", f"--pid-file={own}/pid", "--innodb-log-file-size=4M"),
    )


def _munged(folder: Path) -> tuple[str, ...]:
    return (
        *(f"{SBIN}/munged", "--foreground", "--num-threads=2", f"--socket={folder}/munge.socket"),
        *(f"--key-file={folder}/munge.key", f"--pid-file={folder}/run/munged.pid"),
        *(f"--log-file={folder}/logs/munged.log", f"--seed-file={folder}/state/munged.seed"),
    )


def _slurmd(folder: Path, node: str) -> tuple[str, ...]:
    return (f"{SBIN}/slurmd", "-D", "-N", node, "-f", str(folder / "slurm.conf"))


def _on(folder: Path, node: str, command: tuple[str, ...]) -> tuple[str, ...]:
    return (*_ALONE, node, str(folder / "hosts" / node), *command)


def _start(folder: Path, name: str, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    with (folder / "logs" / f"{name}.out").open("ab") as out:
        return subprocess.Popen(
            command,
            env=os.environ
            | {
                "SLURM_CONF": str(folder / "slurm.conf"),
                "MYSQL_UNIX_PORT": str(folder / "database" / "socket"),
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(signal_on_parent_death, signal.SIGKILL, os.getpid()),  # noqa: PLW1509
        )


if __name__ == "__main__":
    sys.exit(
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), accounting="accounting" in sys.argv[4:])
    )
