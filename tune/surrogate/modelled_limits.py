"""Decide which limits of an SLO the surrogate models."""

from __future__ import annotations

from tune.errors import ConfigurationError
from tune.spec.load import Slo
from tune.spec.metrics import LOADGEN_LIMITS

MODELLED_LIMITS = LOADGEN_LIMITS
"""Settings of the limits whose effect on the capacity the emulator computes.

Pool capacities are those at which the p99 of TTFT, respectively TPOT, reaches its limit. The emulator has no
curve of another statistic, and none of the end-to-end latency, in which both pools share one limit.
"""


def require_modelled(slo: Slo) -> None:
    """Raise ConfigurationError where the surrogate does not model a limit of `slo`."""
    others = [limit.key for limit, _ in slo.limits if limit.key not in MODELLED_LIMITS]
    if others:
        raise ConfigurationError(
            f"search.name: found surrogate with a limit on {', '.join(f'slo.{key}' for key in others)}; the "
            f"surrogate models {' and '.join(f'slo.{key}' for key in MODELLED_LIMITS)} alone. Use "
            f"search=tpe, which learns from what is measured, or lift the limit (slo.{others[0]}=null)."
        )
