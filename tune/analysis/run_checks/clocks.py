"""Check that no GPU's clocks were held down."""

from __future__ import annotations

from collections.abc import Iterator

from tune.analysis.run_checks.run_evidence import Examined, RunEvidence, not_counted
from tune.records.gpu_samples import GPUS_FILE, SLOWDOWNS, GpuSample, GpuSamples

MAX_SLOWED_FRAC = 0.01
"""Share of the probe for which heat or the power brake may hold clocks down. Chosen here: a p99 over all
requests does not see less."""

BY_DESIGN = "sw_power_cap"
"""Reason that is no fault: under dense load a GPU works at its power limit. An H200 in dense products did so
all the time, at 1,410 to 1,560 of 1,980 MHz (driver 580.159.04, 700 W)."""


def examine_clocks(run: RunEvidence) -> Examined:
    """Return which GPUs' clocks were held down, for how long, and whose power limit was lowered."""
    if run.gpus is None:
        why = "workers have no GPUs" if not run.engine.computes_tokens else "no GPU was sampled"
        return not_counted(why)
    path = run.file(GPUS_FILE)
    lasted_s = float(max(run.log.scheduled_ns.max(), run.log.done_ns.max())) * 1e-9
    wrong = list(dict.fromkeys(_faults(run.gpus, lasted_s)))
    if wrong:
        return Examined("off", "; ".join(wrong), (path,))
    gpus = [gpu for pair in _pairs(run.gpus) for gpu in pair[1:2]]
    if not gpus:
        return not_counted("; ".join(f"{host}: {why}" for host, why in run.gpus.missing.items()), path)
    capped_s = max(_slowed_s(before, after, BY_DESIGN) for _, before, after in _pairs(run.gpus))
    text = (
        f"{len(gpus)} GPUs: no clock was held down by heat or the power brake; at the power limit for up to "
        f"{min(100.0, 100 * capped_s / lasted_s):.0f} % of the time"
    )
    if run.gpus.missing:
        return not_counted(f"{text}; not counted: {', '.join(run.gpus.missing)}", path)
    return Examined("as_meant", text, (path,))


def _pairs(gpus: GpuSamples) -> Iterator[tuple[str, GpuSample, GpuSample]]:
    """Yield the host of every GPU that was sampled twice, with both samples."""
    for host, samples in gpus.after.items():
        before = {sample.index: sample for sample in gpus.before.get(host, ())}
        yield from ((host, before[sample.index], sample) for sample in samples if sample.index in before)


def _slowed_s(before: GpuSample, after: GpuSample, reason: str) -> float:
    """Return for how many seconds between the samples a reason held clocks down."""
    return after.slowed_s[reason] - before.slowed_s[reason]


def _faults(gpus: GpuSamples, lasted_s: float) -> Iterator[str]:
    """Yield every GPU whose clocks were held down, and by what."""
    for host, before, after in _pairs(gpus):
        name = f"GPU {after.index} of {host}"
        for reason, words in SLOWDOWNS.items():
            slowed_s = _slowed_s(before, after, reason)
            if reason != BY_DESIGN and slowed_s > MAX_SLOWED_FRAC * lasted_s:
                yield f"{name} was held down by {words} for {slowed_s:.3g} of {lasted_s:.3g} s"
        if after.power_limit_w < after.default_power_limit_w:
            limits = f"{after.power_limit_w:g} W, by default {after.default_power_limit_w:g} W"
            yield f"{name} has a power limit of {limits}"
