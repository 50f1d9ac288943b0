"""Compute the step times of a trial by the simulator, for engines that take theirs from a table."""

from __future__ import annotations

from tune.engines.base import StepTiming
from tune.sim.worker_models import decode_worker, prefill_worker
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec


def time_steps(spec: TrialSpec, calibration: Calibration) -> StepTiming:
    """Return the seconds of the steps of a worker of each pool of `spec`; `calibration` has no tables."""
    prefill = prefill_worker(spec, calibration, window_s=0.0)
    decode, steps = decode_worker(spec, calibration, window_s=0.0)
    return StepTiming(
        prefill_step_s=prefill.step_s,
        prefill_token_s=prefill.token_s,
        prefill_pair_s=prefill.pair_s,
        recompute_step_s=decode.recompute_step_s,
        recompute_token_s=decode.recompute_token_s,
        recompute_pair_s=decode.recompute_pair_s,
        decode_batch_s=steps.batch_s[:, 0],
        decode_context_token_s=float(steps.token_s[0, 0]),
    )
