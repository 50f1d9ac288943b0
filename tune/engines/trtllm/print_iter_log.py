"""Read the time of every step from the log of a TensorRT-LLM worker with print_iter_log.

Source: TensorRT-LLM, tensorrt_llm/_torch/pyexecutor/py_executor.py (`_profiler`) and model_engine.py
(`iter_states`). Older releases print `elapsed_time` in seconds; newer ones `host_step_time`, the time on the
GPU of the iteration before (`prev_device_step_time`), and the tokens in the caches of what a line scheduled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from tune.engines.base import LoggedStep
from tune.spec.step_table import Phase

_FIELD = re.compile(r"'?(\w+)'?(?: =|:) (N/A|[\d.]+)")
"""A name with a number: `iter = 2`, `num_scheduled_requests: 3`, `'num_ctx_tokens': 4`."""


def read_trtllm_steps(lines: Iterable[str]) -> Iterator[LoggedStep]:
    """Yield the steps of a worker's first rank, with their time on the GPU where the log has it.

    A step whose time on the GPU is not in the next line is left out, and a line that scheduled nothing.
    """
    waiting: tuple[int, LoggedStep] | None = None
    for line in lines:
        if "currank_total_requests" not in line or "'num_ctx_tokens'" not in line:
            continue
        values = dict(_FIELD.findall(line))
        if values.get("rank") != "0":
            continue
        number, device_ms = int(values["iter"]), values.get("prev_device_step_time")
        if waiting and device_ms not in (None, "N/A") and waiting[0] == number - 1:
            yield waiting[1]._replace(elapsed_s=float(device_ms) / 1e3)
        waiting, step = None, _step(values)
        if step and device_ms is None:
            yield step
        elif step:
            waiting = number, step


def _step(values: Mapping[str, str]) -> LoggedStep | None:
    """Return the step of a line, with its time on the host; None where nothing was scheduled."""
    prompts, prompt_tokens = int(values["num_ctx_requests"]), int(values["num_ctx_tokens"])
    scheduled, generated = int(values["num_scheduled_requests"]), int(values.get("num_generation_tokens", 0))
    if scheduled == 0 or prompt_tokens + generated == 0:
        return None
    phase: Phase | None = "decode" if prompts == 0 else "prefill" if generated == 0 else None
    context = values.get("cached_kv_tokens")
    elapsed_s = float(values.get("elapsed_time", 0)) or float(values.get("host_step_time", 0)) / 1e3
    return LoggedStep(
        phase, scheduled, prompt_tokens + generated, None if context is None else int(context), elapsed_s
    )
