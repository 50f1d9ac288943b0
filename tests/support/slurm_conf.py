"""Render what the daemons of the tests' Slurm read: eighteen nodes with four GPUs each on a loopback network.

Node gNN is 127.0.SUBNET.NN, the controller 127.0.SUBNET.200, the accounting 127.0.SUBNET.201; each daemon
listens on its own address only.
"""

from __future__ import annotations

import getpass
from pathlib import Path

COUNT = 18
NODES = tuple(f"g{number:02d}" for number in range(1, COUNT + 1))
CONTROLLER, CONTROLLER_HOST = "gctl", 200
ACCOUNTING, ACCOUNTING_HOST = "gdbd", 201
DAEMON_HOSTS = {CONTROLLER: CONTROLLER_HOST, ACCOUNTING: ACCOUNTING_HOST}
GPUS = 4
DEVICES = "/dev/full", "/dev/null", "/dev/random", "/dev/zero"
"""Stand for the GPUs of a node: gres.conf needs a character device for each, and no task opens them."""

PORT, CONTROLLER_PORT, ACCOUNTING_PORT = 6818, 6817, 6819
PARTITION, URGENT, PAIR = "batch", "urgent", "pair"


def files(folder: Path, subnet: int, *, accounting: bool) -> dict[str, str]:
    """Return texts by file name. They are written to `folder`, where the daemons keep all files of theirs."""
    return {
        "slurm.conf": _slurm_conf(folder, subnet, accounting),
        "slurmdbd.conf": _slurmdbd_conf(folder, subnet),
        "gres.conf": "AutoDetect=off\n" + "".join(f"Name=gpu File={device}\n" for device in DEVICES),
        "cgroup.conf": "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n",
        **{f"hosts/{host}": hosts(host, subnet, listens=False) for host in DAEMON_HOSTS},
    }


def address(node: str, subnet: int) -> str:
    return f"127.0.{subnet}.{DAEMON_HOSTS.get(node) or NODES.index(node) + 1}"


def hosts(host: str, subnet: int, *, listens: bool) -> str:
    """Return /etc/hosts of `host`. Once its daemon listens (`listens`), its own name is that of 127.0.0.1.

    srun in a job listens on the address of its host's name, and is called back on the address of its own
    calls, which the kernel makes 127.0.0.1 whatever loopback address they went to. The controller, which
    calls srun too, maps all names to 127.0.0.1; it has the nodes' addresses from slurm.conf.
    """
    local = {host} if host in NODES and listens else set(NODES) if host == CONTROLLER else set()
    everyone = (*NODES, *DAEMON_HOSTS)
    names = {name: "127.0.0.1" if name in local else address(name, subnet) for name in everyone}
    return "127.0.0.1 localhost\n" + "".join(f"{found} {name}\n" for name, found in names.items())


def _slurmdbd_conf(folder: Path, subnet: int) -> str:
    """Return slurmdbd.conf; MYSQL_UNIX_PORT leads to its database."""
    return f"""AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny
DbdHost={ACCOUNTING}
DbdAddr={address(ACCOUNTING, subnet)}
DbdPort={ACCOUNTING_PORT}
SlurmUser={getpass.getuser()}
LogFile={folder}/logs/{ACCOUNTING}.log
PidFile={folder}/run/{ACCOUNTING}.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageLoc=slurm
StorageUser={getpass.getuser()}
"""


def _slurm_conf(folder: Path, subnet: int, accounting: bool) -> str:
    """Return slurm.conf, with short limits where a test waits for them.

    A node counts as dead some 25 s after its last answer. With accounting, the controller forgets ended jobs
    soon: MinJobAge.
    """
    user = getpass.getuser()
    addresses = f"127.0.{subnet}.[1-{COUNT}]"
    accounts = "AccountingStorageType=accounting_storage/none"
    if accounting:
        accounts = f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={address(ACCOUNTING, subnet)}
AccountingStoragePort={ACCOUNTING_PORT}
AccountingStoragePass={folder}/munge.socket
MinJobAge=2"""
    return f"""ClusterName=tune
SlurmctldHost={CONTROLLER}({address(CONTROLLER, subnet)})
SlurmctldPort={CONTROLLER_PORT}
SlurmdPort={PORT}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
TmpFS={folder}/tmp/%n
SlurmctldPidFile={folder}/run/{CONTROLLER}.pid
SlurmdPidFile={folder}/run/%n.pid
SlurmctldLogFile={folder}/logs/{CONTROLLER}.log
SlurmdLogFile={folder}/logs/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
{accounts}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=5
MessageTimeout=20
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,bf_interval=2
SlurmdParameters=config_overrides
NodeName=g[01-{COUNT}] NodeAddr={addresses} CPUs=8 RealMemory=100000 Gres=gpu:{GPUS} State=UNKNOWN
PartitionName={PARTITION} Nodes=ALL Default=YES MaxTime=4:00:00 PriorityTier=1 GraceTime=10
PartitionName={URGENT} Nodes=ALL MaxTime=4:00:00 PriorityTier=10
PartitionName={PAIR} Nodes=g[01-02] MaxTime=10:00 PriorityTier=1
"""
