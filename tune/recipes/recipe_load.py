"""Read what the benchmark of a recipe sends, for users of a closed loop or at a rate, as settings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tune.recipes.document import Section
from tune.recipes.recipe import ClosedLoop, OfferedRate, Recipe
from tune.spec.base import MAX_COUNT
from tune.spec.load import QUERIES_PER_USER

_BETWEEN = re.compile(r"\s*[x,\s]\s*")
_EXPECTED = f"numbers of users from 1 to {MAX_COUNT}, such as [4, 8] or 4x8"

REASONS: Mapping[str, str] = {
    "benchmark.concurrencies": "a closed loop needs lengths, and a run at a rate has one limit of requests "
    "in flight, load.client_concurrency",
    "benchmark.req_rate": "no rate in queries/s, and no load at all without lengths",
}
"""Why what a benchmark of srt-slurm sends is not taken over, by its path."""

_FEWER_QUERIES = f"a closed loop of tune has {QUERIES_PER_USER} queries of each user at least"
_FOR_EACH = "it differs with the number of users; give load.min_queries with the number that you run"


def read_closed_loop(section: Section, key: str, *, rounds: str, servers: int = 1) -> ClosedLoop | None:
    """Return the closed loop of a benchmark, None where it states no users.

    Parameters
    ----------
    section
        The benchmark.
    key
        Holds the numbers of users: a list, or a text with x, comma or space between them.
    rounds
        Key of the queries of one user.
    servers
        What every number is multiplied by.

    Returns
    -------
    ClosedLoop | None
        Every number once, in the recipe's order.

    Raises
    ------
    ConfigurationError
        Where a number of users is none.
    """
    users = tuple(number * servers for number in _numbers(section, key))
    if not users:
        return None
    queries = section.count(rounds)
    if queries and queries < QUERIES_PER_USER:
        section.leave(rounds, _FEWER_QUERIES)
    elif queries and queries > QUERIES_PER_USER and len(users) > 1:
        section.leave(rounds, _FOR_EACH)
        queries = None
    return ClosedLoop(users, queries)


def _numbers(section: Section, key: str) -> tuple[int, ...]:
    value = section.anything(key)
    words = _BETWEEN.split(value.strip()) if isinstance(value, str) else value
    found = words if isinstance(words, list) else [] if words is None else [words]
    numbers = [_number(word) for word in found]
    if None in numbers or (not numbers and value is not None):
        raise section.wrong(key, _EXPECTED)
    return tuple(dict.fromkeys(number for number in numbers if number))


def _number(word: Any) -> int | None:
    """Return a number of users, also from a text of digits; None for anything else."""
    is_text = isinstance(word, str) and word.isdecimal() and len(word) <= len(str(MAX_COUNT))
    number = int(word) if is_text else word
    return number if type(number) is int and 1 <= number <= MAX_COUNT else None


def read_srt_arrivals(benchmark: Section) -> OfferedRate | ClosedLoop | None:
    """Return what a benchmark of srt-slurm with lengths sends: at a rate, or for users who wait.

    Raises ConfigurationError for a rate that is no number, and users that are none.
    """
    stated, concurrencies = benchmark.content.get("req_rate"), benchmark.content.get("concurrencies")
    try:
        qps = float(stated) if isinstance(stated, str | int | float) else math.inf
    except ValueError:
        raise benchmark.wrong("req_rate", "queries/s, or inf") from None
    if 0 < qps < math.inf and not isinstance(stated, bool):
        benchmark.anything("req_rate")
        if isinstance(concurrencies, list) and len(concurrencies) == 1 and type(concurrencies[0]) is int:
            benchmark.anything("concurrencies")
            return OfferedRate(qps, concurrencies[0])
        return OfferedRate(qps)
    if qps == math.inf and not isinstance(stated, bool):
        benchmark.anything("req_rate")
    return read_closed_loop(benchmark, "concurrencies", rounds="num_prompts_mult")


def arrival_settings(arrivals: OfferedRate | ClosedLoop) -> dict[str, Any]:
    """Return the settings of the group `load` that say what is sent; of several numbers of users the most."""
    if isinstance(arrivals, OfferedRate):
        limit = {"client_concurrency": arrivals.most_at_once} if arrivals.most_at_once else {}
        return {"target_qps": arrivals.qps, **limit}
    users, queries = arrivals.most, arrivals.queries_per_user or 0
    return {
        "mode": "concurrency",
        "target_qps": None,
        "concurrency": users,
        "client_concurrency": users,
        **({"min_queries": queries * users} if queries > QUERIES_PER_USER else {}),
    }


def has_sweep(recipe: Recipe) -> bool:
    """Return whether a recipe measures several numbers of users, which are a sweep of their own."""
    return isinstance(recipe.arrivals, ClosedLoop) and len(recipe.arrivals.users) > 1


def users_sweep(recipe: Recipe) -> dict[str, Any]:
    """Return the sweep of a recipe with several numbers of users: the baseline, and each without a limit."""
    assert isinstance(recipe.arrivals, ClosedLoop)
    users = sorted(recipe.arrivals.users)
    return {
        "defaults": [{"override /search": "grid"}],
        "slo": {"ttft_p99_s": None, "tpot_p99_s": None},
        "sweep": {
            "question": f"What does the speed that a user of {recipe.name} sees cost in tokens/s per GPU?",
            "n_trials": len(users) + 1,
            "space": {"concurrency": {"kind": "ordered", "path": "load.concurrency", "values": users}},
        },
    }
