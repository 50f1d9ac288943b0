"""Check that KV caches went from prefill to decode over the fabric that was meant."""

from __future__ import annotations

from tune.analysis.run_checks.run_evidence import Examined, RunEvidence, not_counted
from tune.analysis.run_checks.ucx_ways import FROM_GPU_TO_GPU, allowed_ways, read_lanes
from tune.records.scrapes import METRICS_FILE

MIN_BYTES_PER_S = 0.5e9
"""Rate of a KV transfer, in bytes/s, below which TCP is the explanation.

Measured with NIXL 1.1.0 and UCX 1.21.0 between two H200 of one host, caches of 133 MB in pieces of 8 KiB,
32 KiB, 256 KiB and 8 MB: over NVLink 0.75 to 0.86, 2.9 to 4.2, 26 and 214 GB/s; over TCP 0.17, 0.26, 0.32 and
0.35. vLLM 0.23.0 there, over NVLink and with other work: 2.2 to 3.9. See docs/notes/kv-transfer-rates.md.
"""

MIN_TRANSFER_BYTES = 10.0e6
"""Mean size from which a rate says something: 10 MB at MIN_BYTES_PER_S take 20 ms, more than a step of the
engine that notices the end. Chosen here."""


def examine_kv_transfers(run: RunEvidence) -> Examined:
    """Return over which ways KV caches travelled, or may have, and how fast they did."""
    if not run.engine.computes_tokens:
        return not_counted("mock engines send no KV cache")
    if len(run.spec.pools) == 1:
        return not_counted("aggregated workers send no KV cache")
    wrong: list[str] = []
    transport, sources = _lanes(run, wrong) or _settings(run, wrong)
    rates, is_rated = _rates(run, wrong)
    evidence = (run.file(METRICS_FILE), *sources)
    if wrong:
        return Examined("off", "; ".join(wrong), evidence)
    return Examined("as_meant" if is_rated else "not_counted", f"{transport}; {rates}", evidence)


def _lanes(run: RunEvidence, wrong: list[str]) -> tuple[str, list[str]] | None:
    """Return the ways that UCX took by the workers' logs, and where they say so; None where none does.

    Enter in `wrong` a worker that took no way from GPU to GPU.
    """
    found, sources = {}, []
    for name in run.all_workers():
        for log in sorted(run.attempt.glob(f"logs/*_{name}.out")):
            if lanes := read_lanes(log):
                found[name] = lanes
                sources.append(f"{run.raw.rpartition('/')[0]}/logs/{log.name}:{lanes.line}")
    for name, lanes in found.items():
        if not FROM_GPU_TO_GPU & set(lanes.ways):
            wrong.append(f"UCX of {run.place(name)} took {' and '.join(lanes.ways) or 'the host'} alone")
            break
    if not found:
        return None
    taken = dict.fromkeys(way for lanes in found.values() for way in lanes.ways)
    return f"UCX took {', '.join(taken)} at {len(found)} of {len(run.all_workers())} workers", sources


def _settings(run: RunEvidence, wrong: list[str]) -> tuple[str, list[str]]:
    """Return the ways that UCX_TLS of the workers allows, and where it stands.

    Enter in `wrong` a worker whose value leaves no way from GPU to GPU. Evidence of the nodes is what a
    prefill worker finds, so it says nothing of another pool where the plan gives that worker a value.
    """
    found = run.nodes.transport if run.nodes else None
    given = {name: run.servers[name].env.get("UCX_TLS") for name in run.all_workers() if name in run.servers}
    of_prefill = any(given[name] for name in run.workers("prefill") if name in given)
    shared = None if of_prefill else (found or {}).get("UCX_TLS")
    values = {name: value or shared for name, value in given.items()}
    sources = [f"{run.raw.rpartition('/')[0]}/evidence.json", "plan/processes.json"]
    if found is None and not any(values.values()):
        return "which ways UCX may take is not known", sources
    if shared and " on " in shared:
        wrong.append(f"UCX_TLS differs between nodes: {shared}")
        return "UCX_TLS differs between nodes", sources
    through_host = (found or {}).get("UCX_IB_GPU_DIRECT_RDMA", "").lower() in ("n", "no", "0", "off")
    for name, value in values.items():
        direct = FROM_GPU_TO_GPU & set(allowed_ways(value))
        if not direct:
            wrong.append(f"UCX_TLS={value} at {run.place(name)} allows no way from GPU to GPU")
            break
        if through_host and direct == {"RDMA"}:
            wrong.append(
                "UCX_IB_GPU_DIRECT_RDMA=n and no NVLink: KV caches go through the memory of the host"
            )
            break
    first = next((value for value in values.values() if value), None)
    setting = f"UCX_TLS={first}" if first else "UCX_TLS is not set, which"
    return f"{setting} allows {', '.join(allowed_ways(first))}", sources


def _rates(run: RunEvidence, wrong: list[str]) -> tuple[str, bool]:
    """Return number, size and rate of the transfers, and whether the rate is known.

    Enter in `wrong` what failed or was too slow.
    """
    metrics, transfers = run.engine.metrics, []
    failed = 0.0
    for name in run.all_workers():
        failed += sum(run.grown(name, counter, {}) or 0.0 for counter in metrics.failed_transfers)
        times = run.observed(name, metrics.transfer_s)
        sizes = run.observed(name, metrics.transfer_bytes)
        if times and sizes and times[0] > 0 and sizes[1] > 0:
            transfers.append((sizes[0] / times[0], name, *sizes))
    if failed:
        wrong.append(f"{failed:.0f} KV transfers failed")
    if not transfers:
        return "times and sizes of the transfers are in no metric", False
    count = sum(number for *_, number in transfers)
    mean_bytes = sum(size for _, _, size, _ in transfers) / count
    slowest, name, *_ = min(transfers)
    text = f"{count:,.0f} transfers of {mean_bytes / 1e6:,.3g} MB"
    rate = f"{slowest / 1e9:.2g} GB/s each, least at {run.place(name)}"
    if mean_bytes < MIN_TRANSFER_BYTES:
        return f"{text}, too small for a rate", False
    if slowest < MIN_BYTES_PER_S:
        wrong.append(f"{text} at {rate}: as slow as TCP")
    return f"{text} at {rate}", True
