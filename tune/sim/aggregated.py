"""Simulate a pool of aggregated workers, which prefill and decode."""

from __future__ import annotations

import numpy as np

from tune.records.requests import PoolUse
from tune.sim.aggregated_loop import serve_aggregated
from tune.sim.aggregated_pool import (
    AggregatedRequests,
    AggregatedSteps,
    AggregatedWorker,
    empty_aggregated_result,
)
from tune.sim.prefill_pool import NO_PREFILL_TABLE
from tune.sim.routing import route_by_frontend
from tune.sim.served import Accepted, Served, mean_over_window
from tune.sim.step_tables import prefill_table, warn_of_extrapolation
from tune.sim.worker_models import decode_worker, prefill_worker, worker_slowdowns
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec


def serve_by_one_pool(spec: TrialSpec, calibration: Calibration, accepted: Accepted) -> Served:
    """Simulate the aggregated workers of `spec`; nothing is sent from worker to worker.

    Parameters
    ----------
    spec
        Trial with aggregated workers.
    calibration
        Scales and overheads of the hardware. Steps with prompts take the prefill scale, or the table of
        prefill steps; the caches of answers are read at the decode scale, or as the table of decode steps
        grows with the context. The gap between steps of a table follows steps of both kinds.
    accepted
        The requests.

    Returns
    -------
    Served
        A worker is busy with prompts while it makes steps that read some.
    """
    calibration = calibration.model_copy(update={"kv_stall_token_s": None})
    slowdown = worker_slowdowns(spec, calibration, "aggregated")
    answers, answer_steps = decode_worker(spec, calibration, accepted.window_s)
    prompts = prefill_worker(spec, calibration, accepted.window_s)
    rows = calibration.prefill_steps
    if rows:  # one worker makes both kinds of steps: the same passes after each
        prompts = prompts._replace(step_s=calibration.decode_step_gap_s or 0.0)
    limits = AggregatedWorker(prompts, answers)
    steps = AggregatedSteps(answer_steps, prefill_table(rows) if rows else NO_PREFILL_TABLE)
    requests = AggregatedRequests(accepted.arrival_s, accepted.prompt, accepted.answer, accepted.reserved)
    worker = route_by_frontend(spec, "aggregated", np.arange(len(accepted.prompt)))
    result = empty_aggregated_result(worker, len(slowdown))
    serve_aggregated(limits, slowdown, steps, requests, result)
    warn_of_extrapolation(calibration, {"prefill": result.steps, "decode": result.answers.steps})
    served, window_s = result.answers, accepted.window_s
    return Served(
        prefill_worker=served.worker,
        decode_worker=served.worker,
        prefill_start_s=served.start_s,
        prefill_done_s=served.first_s,
        kv_arrived_s=served.first_s,
        decode_start_s=served.first_s,
        first_s=served.first_s,
        done_s=served.done_s,
        pools=PoolUse(
            mean_over_window(result.busy_s, window_s),
            mean_over_window(served.usage[:, 0], window_s),
            mean_over_window(served.usage[:, 1], window_s) / max(answers.kv_tokens, 1),
        ),
    )
