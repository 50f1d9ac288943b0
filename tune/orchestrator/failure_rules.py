"""List what lines of logs mean that no engine writes by itself: GPUs, networks, file systems, schedulers.

Rules are tried in order, those of the engine between the two lists: a lost GPU explains every error after it,
while a broken connection is often the consequence of something else. tests/data/failure_lines.txt has a line
for each, of the shape that is found in public reports. Slurm's own words are in
tune/orchestrator/slurm/scheduler_rules.py.
"""

from __future__ import annotations

from tune.orchestrator.slurm.scheduler_rules import (
    CONTAINER_REFUSED,
    CREDENTIALS_REFUSED,
    JOB_ENDED,
    OUT_OF_MEMORY,
    STEP_REFUSED,
)
from tune.records.attempt_limit import LIMIT_RULE
from tune.spec.failure import FailureRule

HARDWARE = (
    FailureRule(
        name="gpu_lost",
        pattern=r"fallen off the bus|CUDA_ERROR_ECC_UNCORRECTABLE|uncorrectable (?:ECC|NVLink) error"
        r"|CUDA_ERROR_SYSTEM_NOT_READY|system not yet initialized"
        r"|NVRM: Xid \([^)]*\): (?:48|63|64|74|79|94|95|119|140|14[4-9]|150),",
        cause="infrastructure",
        meaning="a GPU or its NVLink failed",
        next_step="Have the node drained and its GPUs checked (nvidia-smi -q, dmesg); until then name it in "
        "cluster.exclude.",
        source="NVIDIA, Xid errors (docs.nvidia.com/deploy/xid-errors); NVIDIA/open-gpu-kernel-modules#900 "
        "and #1355; wilicc/gpu-burn#92",
    ),
    FailureRule(
        name="disk_full",
        pattern=r"No space left on device|Disk quota exceeded",
        cause="harness",
        meaning="a file system is full, or a quota is used up",
        next_step="Free space where the line says, or move runs_dir; then run the same command again.",
        source="Linux, errno(3): ENOSPC, EDQUOT",
    ),
    FailureRule(
        name="file_system",
        pattern=r"Stale (?:NFS )?file handle|Cannot send after transport endpoint shutdown"
        r"|Transport endpoint is not connected|Remote I/O error|Input/output error",
        cause="infrastructure",
        meaning="a shared file system was not available",
        next_step="Check its mount on the node (lfs check servers, dmesg).",
        source="Linux, errno(3): ESTALE, ESHUTDOWN, ENOTCONN, EREMOTEIO, EIO; Lustre evicts clients with "
        "ESHUTDOWN (whamcloud/integrated-manager-for-lustre#230)",
    ),
    FailureRule(
        name="credentials",
        pattern=r"\b401 (?:Client Error|Unauthorized)|GatedRepoError|Invalid user token|"
        + CREDENTIALS_REFUSED,
        cause="harness",
        meaning="credentials are missing or refused",
        next_step="Renew them where tune is started, and run the same command again.",
        source="Hugging Face, huggingface_hub/errors.py; Slurm, slurm_errno.c and auth/munge",
    ),
    *CONTAINER_REFUSED,
)
"""Rules before those of the engine."""

SCHEDULER = (
    FailureRule(
        name=LIMIT_RULE,
        pattern=r"its share of study\.max_gpu_hours",
        cause="infrastructure",
        meaning="the GPU-hours of the study are spent",
        next_step="Run the same command with a larger study.max_gpu_hours.",
        source="tune/study/budget.py",
        repeats=False,
    ),
    *JOB_ENDED,
)
"""Rules for what is said of a job that was ended. They are no rules for logs of workers: a step that is
ended after something else broke says the same."""

CONSEQUENCES = (
    *STEP_REFUSED,
    FailureRule(
        name="clock_set",
        pattern=r"LoadGen has not issued query \d+, which|LoadGen issued \d+ of \d+ queries more than",
        cause="infrastructure",
        meaning="the clock of the first node was set while it measured, or the node stood still",
        next_step="Have clocks corrected by slewing, not by steps (chrony: makestep only at its start).",
        source="tune/client/run.py; LoadGen, loadgen/utils.h, PerfClock",
    ),
    FailureRule(
        name="host_memory",
        pattern=r"Out [Oo]f [Mm]emory: Killed process|" + OUT_OF_MEMORY,
        cause="infrastructure",
        meaning="the host ran out of memory and ended a process",
        next_step="Look for other programs on the node; ask for all of its memory (cluster.extra_sbatch).",
        source="Slurm, slurmstepd: Detected 1 oom_kill event in StepId; Linux, mm/oom_kill.c",
    ),
    FailureRule(
        name="port_taken",
        pattern=r"[Aa]ddress already in use|EADDRINUSE|Ports of the deployment are taken",
        cause="infrastructure",
        meaning="another process listens on a port of the deployment",
        next_step="End it (ss -ltnp names it), or change the port that the message names.",
        source="Linux, errno(3): EADDRINUSE",
    ),
    FailureRule(
        name="nccl",
        pattern=r"NCCL WARN .*(?:NET/|[Cc]onnect|socket|[Tt]imeout)|nccl(?:System|Remote|Internal)Error"
        r"|Watchdog caught collective operation timeout",
        cause="infrastructure",
        meaning="ranks of a worker lost the connection to each other",
        next_step="Check the links of the node (ibstat, nvidia-smi nvlink -s). It may follow from another "
        "rank's error: read the logs of all ranks.",
        source="NVIDIA/nccl#1405 and #1814; pytorch/pytorch#81628; sgl-project/sglang#3836",
    ),
    FailureRule(
        name="ucx",
        pattern=r"UCX\s+ERROR|Transport retry count exceeded|transport retry counter exceeded|NIXL_ERR_",
        cause="infrastructure",
        meaning="a KV transfer failed on the network",
        next_step="Check the links between the pools; UCX_TLS and UCX_NET_DEVICES name the devices in use.",
        source="openucx/ucx#1920, #1880 and #9590; NIXL, nixl_types.h",
    ),
    FailureRule(
        name="discovery",
        pattern=r"Failed to connect to (?:etcd|NATS)|(?i:etcd|lease)\b.*\b(?:lost|expired|revoked)\b"
        r"|nats: (?:no servers|timeout)",
        cause="infrastructure",
        meaning="a process lost the service by which workers are found",
        next_step="Read the logs of etcd and NATS; a head node that is too busy answers them late.",
        source="ai-dynamo/dynamo#851, #3493 and #7932",
    ),
    FailureRule(
        name="no_answers",
        pattern=r"all \d+ requests failed, \d+ of them with",
        cause="infrastructure",
        meaning="the deployment answered no request",
        next_step="Read the logs of frontends and workers.",
        source="tune/client/run.py",
    ),
)
"""Rules after those of the engine."""
