"""Reduce request logs of the simulator to what tests compare."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np

from tune.core.arrays import FloatArray
from tune.records.requests import RequestLog


def ttft_s(log: RequestLog) -> FloatArray:
    """Return the time to first token of every request."""
    return (log.first_token_ns - log.scheduled_ns) / 1e9


def tpot_s(log: RequestLog) -> FloatArray:
    """Return the time per output token of every request with several tokens."""
    several = log.output_tokens > 1
    return (log.done_ns - log.first_token_ns)[several] / (log.output_tokens[several] - 1) / 1e9


def digest(log: RequestLog) -> str:
    """Return the SHA-256 of every bit of a log with stages and pools."""
    assert log.stages is not None
    assert log.pools is not None
    sha = hashlib.sha256()
    for part in (log, log.stages, log.pools):
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, np.ndarray):
                sha.update(value.tobytes())
    return sha.hexdigest()
