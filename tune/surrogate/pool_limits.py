"""Turn the limits of an SLO into what each pool has to hold.

A limit on TTFT is the prefill pool's, one on TPOT limits the steps of the decode pool. With a limit on the
end-to-end latency, steps of a given time leave the rest to the first token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.binomial_test import max_late
from tune.spec.load import Slo
from tune.spec.metrics import TTFT_P99, LatencyLimit

_STEP_FRACS = (0.3, 0.45, 0.6, 0.7, 0.8, 0.88, 0.94, 0.98)
"""Shares of a limit on the latency that the steps of an answer may take; a deployment is judged by the best
of them. Chosen here."""


@dataclass(frozen=True)
class FirstTokenLimit:
    """Hold a limit that first tokens have to keep.

    It is on the quantile `share` of the requests, on their mean where that is None. `step_tokens` is the
    number of decode steps that `limit_s` includes: 0 of a limit on TTFT.
    """

    share: float | None
    limit_s: float
    step_tokens: float = 0.0

    def on_time_frac(self, requests: int) -> float:
        """Return the share of `requests` that a verdict demands on time, half of them for a mean."""
        return 0.5 if self.share is None else _on_time_frac(self.share, requests)

    def statistic_s(self, ttft_s: FloatArray, answer: IntArray) -> float:
        """Return the limited statistic of the requests, without the decode steps that it includes.

        Parameters
        ----------
        ttft_s
            Time to first token of the first m requests of a run, shape (m,).
        answer
            Tokens of the answer of every request, shape (n,). Where they differ, the late requests are mostly
            those with the longest answers, not those with the slowest first tokens; steps that would take all
            of `limit_s` are assumed.

        Returns
        -------
        float
        """
        if self.share is None:
            return float(ttft_s.mean())
        on_time_frac = self.on_time_frac(len(answer))
        if not self.step_tokens:
            return float(np.quantile(ttft_s, on_time_frac))
        steps_s = self.limit_s / self.step_tokens * (answer[: len(ttft_s)] - 1)
        return float(np.quantile(ttft_s + steps_s, on_time_frac) - np.quantile(steps_s, on_time_frac))


@dataclass(frozen=True)
class PoolLimits:
    """Hold the limits on first tokens, and the lowest one on the time of a decode step, infinite without."""

    first_token: tuple[FirstTokenLimit, ...]
    step_s: float

    @classmethod
    def from_slo(cls, slo: Slo, answer: IntArray) -> PoolLimits:
        """Return what `slo` demands of the pools for answers of `answer` (n,) tokens."""
        first_token = tuple(
            FirstTokenLimit(
                limit.statistic.share,
                limit_s,
                _answer_tokens(limit, answer) - 1 if limit.latency.spent_in == "both" else 0.0,
            )
            for limit, limit_s in slo.limits
            if limit.latency.spent_in != "decode"
        )
        steps_s = (limit_s for limit, limit_s in slo.limits if limit.latency.spent_in == "decode")
        return cls(first_token, min(steps_s, default=np.inf))

    @property
    def curves(self) -> tuple[FirstTokenLimit, ...]:
        """Return the limits for which the latency of prefill pools is simulated: at least one."""
        return self.first_token or (FirstTokenLimit(TTFT_P99.statistic.share, np.inf),)

    def choices(self) -> tuple[tuple[float, tuple[float, ...]], ...]:
        """Return pairs of limits, in seconds: on the decode step, and what it leaves of each on first tokens.

        A deployment holds the SLO where its pools hold one of the pairs.
        """
        longest_s = min(
            (limit.limit_s / limit.step_tokens for limit in self.first_token if limit.step_tokens),
            default=np.inf,
        )
        fracs = _STEP_FRACS if np.isfinite(longest_s) else (1.0,)
        steps_s = sorted({min(frac * longest_s, self.step_s) for frac in fracs})
        return tuple((step_s, self._first_token_s(step_s)) for step_s in steps_s)

    def _first_token_s(self, step_s: float) -> tuple[float, ...]:
        """Return what steps of `step_s` leave of each limit on first tokens, seconds."""
        return tuple(
            limit.limit_s - limit.step_tokens * step_s if limit.step_tokens else limit.limit_s
            for limit in self.first_token
        )


def _answer_tokens(limit: LatencyLimit, answer: IntArray) -> float:
    """Return the statistic of `answer` (n,) that `limit` is on."""
    share = limit.statistic.share
    if share is None:
        return float(answer.mean())
    return float(np.quantile(answer, _on_time_frac(share, len(answer))))


def _on_time_frac(share: float, requests: int) -> float:
    """Return the share of `requests` that have to be on time for the quantile `share` to hold."""
    return 1 - max(max_late(requests, share), 0) / requests
