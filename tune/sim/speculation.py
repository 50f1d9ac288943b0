"""Let decode steps make several tokens: drafts of multi-token prediction, of which the model accepts some.

The decode loops make one token of a sequence in a step. With drafts a step makes one and those accepted, so
the loops count in another unit, the mean number of tokens that a step makes: in this unit a sequence grows by
one in every step, as without drafts. Prompts, caches, blocks and costs of a token are converted, to whole
units where the loops need them. How many steps an answer takes is drawn, as chance decides what each makes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.errors import ConfigurationError
from tune.sim.decode_pool import DecodeSteps, DecodeWorker
from tune.sim.served import Accepted
from tune.spec.cluster import Calibration
from tune.spec.draft_acceptance import PUBLISHED_ACCEPTANCE
from tune.spec.engine import Engine


class Drafts(NamedTuple):
    """Describe how many tokens of a sequence one step makes: mean and variance over steps, and at most.

    `spread_frac` is the standard deviation of the means of single answers, as a share of the mean.
    """

    mean_tokens: float
    variance: float
    most_tokens: int
    spread_frac: float


def drafts_of(engine: Engine, calibration: Calibration) -> Drafts | None:
    """Return what the steps of a decode engine make, None where it makes no drafts.

    Raises ConfigurationError where the calibration has too few shares.
    """
    depth = engine.draft_tokens
    if depth == 0:
        return None
    shares = calibration.draft_acceptance or PUBLISHED_ACCEPTANCE
    if depth > len(shares):
        raise ConfigurationError(
            f"cluster.calibration.draft_acceptance: found {len(shares)} shares for {depth} draft tokens; "
            "expected one for each depth."
        )
    accepted = np.array(shares[:depth])
    mean = float(accepted.sum())
    second_moment = float((accepted * (2 * np.arange(depth) + 1)).sum())
    return Drafts(1 + mean, second_moment - mean**2, 1 + depth, calibration.draft_spread_frac or 0.0)


def steps_of_answers(answer: IntArray, drafts: Drafts, draws: np.random.RandomState) -> IntArray:
    """Return how many steps each answer takes.

    Parameters
    ----------
    answer
        Tokens of each answer, shape (n,).
    drafts
        How many tokens a step makes.
    draws
        Source of chance: of each answer's mean, then of its steps.

    Returns
    -------
    IntArray
        Steps, at least one and as many as the longest steps need, at most one for each token, shape (n,).

    Notes
    -----
    The steps until a sum of independent tokens reaches the answer are drawn from a normal distribution, with
    the excess of the last step in their mean.
    Source: renewal theory, Feller 1971, An Introduction to Probability Theory II, XI.4.
    """
    own_mean = drafts.mean_tokens * (1 + drafts.spread_frac * draws.standard_normal(len(answer)))
    own_mean = np.clip(own_mean, 1.0, drafts.most_tokens)
    excess = (drafts.variance / drafts.mean_tokens + drafts.mean_tokens - 1) / 2
    mean: FloatArray = (answer + excess) / own_mean
    deviation = np.sqrt(answer * drafts.variance / own_mean**3)
    steps = np.rint(mean + deviation * draws.standard_normal(len(answer))).astype(np.int64)
    return np.clip(steps, -(-answer // drafts.most_tokens), answer)


def requests_in_steps(requests: Accepted, drafts: Drafts, draws: np.random.RandomState) -> Accepted:
    """Return requests in the unit of `drafts`, with the steps of their answers."""
    unit = drafts.mean_tokens
    return replace(
        requests,
        prompt=np.rint(requests.prompt / unit).astype(np.int64),
        answer=steps_of_answers(requests.answer, drafts, draws),
        reserved=np.ceil(requests.reserved / unit).astype(np.int64),
    )


def worker_in_steps(worker: DecodeWorker, drafts: Drafts) -> DecodeWorker:
    """Return a decode worker in the unit of `drafts`; a step needs room for all tokens that it checks."""
    unit = drafts.mean_tokens
    return worker._replace(
        kv_tokens=int(worker.kv_tokens / unit),
        kv_block_tokens=max(1, round((worker.kv_block_tokens + drafts.most_tokens - 1) / unit)),
        stall_token_s=worker.stall_token_s * unit,
        token_budget=max(1, int(worker.token_budget / unit)),
        recompute_token_s=worker.recompute_token_s * unit,
        recompute_pair_s=worker.recompute_pair_s * unit**2,
    )


def times_in_steps(steps: DecodeSteps, drafts: Drafts) -> DecodeSteps:
    """Return step times in the unit of `drafts`."""
    unit = drafts.mean_tokens
    return steps._replace(token_s=steps.token_s * unit, bound_tokens=steps.bound_tokens / unit)
