"""Declare the checks of a run: name, question, metrics, threshold with its source, and what to do.

They are made of every probe of a live deployment. Evidence that is missing is said to be missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tune.analysis.run_checks.client_lateness import (
    MAX_BUSY_FRAC,
    MAX_LATENESS_FRAC,
    MIN_LATENESS_S,
    examine_client,
)
from tune.analysis.run_checks.clocks import MAX_SLOWED_FRAC, examine_clocks
from tune.analysis.run_checks.kv_transfers import (
    MIN_BYTES_PER_S,
    MIN_TRANSFER_BYTES,
    examine_kv_transfers,
)
from tune.analysis.run_checks.leftovers import examine_leftovers
from tune.analysis.run_checks.run_evidence import Examined, RunEvidence, read_run_evidence
from tune.analysis.run_checks.worker_speed import (
    MAX_BATCHES,
    MAX_EXCESS_FRAC,
    MIN_REQUESTS,
    SIGMAS,
    examine_worker_speed,
)
from tune.records.requests import RequestLog
from tune.records.run_check import RunCheck
from tune.spec.metrics import TTFT, TTFT_P99
from tune.spec.trial import TrialSpec


@dataclass(frozen=True)
class CheckKind:
    """Declare one check.

    `title` names it in reports, `claim` is what holds where nothing is off. `metrics`, `threshold`, `source`
    (of the threshold) and `remedy` are for readers; `examine` makes the check.
    """

    name: str
    title: str
    claim: str
    metrics: str
    threshold: str
    source: str
    remedy: str
    examine: Callable[[RunEvidence], Examined]


CHECKS = (
    CheckKind(
        name="kv_transfers",
        title="KV transfers",
        claim="KV caches travelled over the fabric that was meant",
        metrics="time and size of each KV transfer and failed transfers, by the engine; the lanes that UCX "
        "writes into the workers' logs with UCX_LOG_LEVEL=info; else UCX_TLS and UCX_IB_GPU_DIRECT_RDMA as "
        "workers find them (evidence.json, processes.json)",
        threshold=f"at least {MIN_BYTES_PER_S / 1e9:g} GB/s for transfers of "
        f"{MIN_TRANSFER_BYTES / 1e6:g} MB and more, none failed, a way from GPU to GPU (NVLink, RDMA)",
        source="measured with NIXL 1.1.0 between two H200: over NVLink 0.75 GB/s in pieces of 8 KiB, 2.9 to "
        "4.2 of 32 KiB, 26 of 256 KiB, 214 of 8 MB; over TCP 0.17 to 0.35; vLLM over NVLink: 2.2 to 3.9",
        remedy="Set UCX_LOG_LEVEL=info in prefill.env and decode.env: then the logs say which way UCX took. "
        "Let UCX_TLS of both pools name cuda_ipc within an NVLink domain and rc between others, or leave it "
        "out. Read UCX's warnings in the workers' logs. Where NVLink spans nodes, IMEX has to run on them.",
        examine=examine_kv_transfers,
    ),
    CheckKind(
        name="leftovers",
        title="earlier requests",
        claim="no request of an earlier run was left",
        metrics="requests in flight of frontends and workers, running and waiting sequences of the engine, "
        "at the last scrape before the first query",
        threshold="none",
        source="a request that is left takes the time of one that counts",
        remedy="Look in the attempt's lines for requests that are still held after a run. "
        "load.response_timeout_s bounds how long the next probe of a capacity search waits for them.",
        examine=examine_leftovers,
    ),
    CheckKind(
        name="worker_speed",
        title="speed of workers",
        claim="no worker was slower than its peers",
        metrics="decode: what a token took by the engine, else how long Dynamo's worker held a request; "
        "prefill: how long Dynamo's worker held a request, its queue included",
        threshold=f"at most {MAX_EXCESS_FRAC * 100:g} % above the median of its peers, {SIGMAS:g} standard "
        f"errors (by means over {MAX_BATCHES} parts of the run) where these are more; from {MIN_REQUESTS} "
        "requests on",
        source="chosen: half of what one slow decode worker of the published run would explain",
        remedy="Compare its node with the others: clocks, what else runs there, memory binding "
        "(cluster.command_prefix). cluster.exclude leaves the node out.",
        examine=examine_worker_speed,
    ),
    CheckKind(
        name="client",
        title="load client",
        claim="the load client was not the bottleneck",
        metrics="when requests were due and when they were sent, CPU time of the thread that streams "
        "(requests.npz)",
        threshold=f"99 % sent within {MIN_LATENESS_S * 1e3:g} ms, or {MAX_LATENESS_FRAC * 100:g} % of the "
        f"{TTFT_P99.label} where that is more; the thread computes at most {MAX_BUSY_FRAC * 100:g} % of the "
        "time",
        source=f"chosen: lateness is a part of every {TTFT.label}; at 80 % an event waits four times as long "
        "as it takes",
        remedy="Give the client cores of its own on the head node. Raise load.client_concurrency where "
        "requests wait for their turn. Let engines send several tokens in a message.",
        examine=examine_client,
    ),
    CheckKind(
        name="clocks",
        title="clocks of GPUs",
        claim="no clock of a GPU was held down",
        metrics="nvidia-smi before and after the probe (gpus.json): clocks_event_reasons_counters, "
        "power.limit, power.default_limit",
        threshold=f"heat or the power brake for at most {MAX_SLOWED_FRAC * 100:g} % of the probe, no power "
        "limit below the default",
        source="chosen: a p99 does not see less. Work at the power limit is by design; its share is stated",
        remedy="Have the node looked at (nvidia-smi -q -d PERFORMANCE); nvidia-smi -pl sets a power limit. "
        "cluster.exclude leaves the node out.",
        examine=examine_clocks,
    ),
)
"""All checks, in the order in which they are shown."""


def run_checks(probe: Path, spec: TrialSpec, log: RequestLog, raw: str) -> tuple[RunCheck, ...]:
    """Return what each check finds in a probe; nothing for a simulated one, which has no such evidence.

    Parameters
    ----------
    probe
        The probe's folder.
    spec
        The trial.
    log
        The requests of the probe.
    raw
        The probe's folder, relative to the trial's.

    Raises
    ------
    ResumableError
        For a torn record.
    """
    evidence = read_run_evidence(probe, spec, log, raw)
    if evidence is None:
        return ()
    found = [(kind, kind.examine(evidence)) for kind in CHECKS]
    return tuple(
        RunCheck(
            name=kind.name,
            result=examined.result,
            found=examined.found,
            threshold=kind.threshold,
            evidence=examined.evidence,
        )
        for kind, examined in found
    )
