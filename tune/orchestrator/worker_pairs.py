"""Send requests to chosen pairs of a prefill and a decode worker, and read which pair served an answer.

An aggregated worker prefills and decodes: it is a pair by itself.

The first KV cache that crosses between two workers sets up a connection: on two H200 the first answer took
3.3 s, the second 0.18 s. A warm-up that leaves pairs out leaves these seconds to the first queries of a run.
Source of `nvext.prefill_worker_id`, `decode_worker_id`, `backend_instance_id` and `extra_fields`: Dynamo 1.x,
docs/components/frontend/nvext.md; seen in 1.6.1. Older frontends answer 400 to these fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from tune.client.sse_response import StreamedResponse

_SERVED_BY = re.compile(rb'"prefill_worker_id":\s*(\d+).*?"decode_worker_id":\s*(\d+)')

REFUSED_ROUTING = "http 400"
"""Beginning of the error of a request whose routing fields the frontend does not know."""


@dataclass(frozen=True, order=True)
class WorkerPair:
    """Name a prefill and a decode worker by their registered instance ids, equal for an aggregated one."""

    prefill: int
    decode: int


@dataclass
class RoutedResponse(StreamedResponse):
    """Hold a streamed answer and the pair that served it, None where the frontend does not say."""

    served_by: WorkerPair | None = None

    def feed(self, data: bytes, read_ns: int) -> None:
        """Read the bytes of one read of the socket; each event names the pair, so one read holds it whole."""
        if self.served_by is None and (found := _SERVED_BY.search(data)):
            self.served_by = WorkerPair(int(found[1]), int(found[2]))
        super().feed(data, read_ns)


def planned_rounds(instances: Sequence[Sequence[int]], pools: Sequence[int]) -> list[list[WorkerPair]]:
    """Return the rounds of all pairs of `instances`, the ids of the workers of each pool.

    Returns none where their numbers are not those of `pools`: an id too many may be that of a worker that
    ended, and a request for it has no answer.
    """
    if [len(ids) for ids in instances] != list(pools):
        return []
    if len(instances) == 1:
        return [[WorkerPair(worker, worker) for worker in instances[0]]]
    return list(rounds_of_pairs(*instances))


def next_round(
    rounds: Sequence[Sequence[WorkerPair]], number: int, unanswered: Set[WorkerPair]
) -> Sequence[WorkerPair] | None:
    """Return the round at `number`, in a circle, or the first behind it that has an unanswered pair.

    Returns the round at `number` where no pair is unanswered, None without rounds.
    """
    if not rounds:
        return None
    circle = [rounds[(number + ahead) % len(rounds)] for ahead in range(len(rounds))]
    return next((pairs for pairs in circle if not unanswered.isdisjoint(pairs)), circle[0])


def rounds_of_pairs(prefill: Sequence[int], decode: Sequence[int]) -> Iterator[list[WorkerPair]]:
    """Yield rounds that together hold every pair once; a round holds each worker of the larger pool once."""
    for shift in range(min(len(prefill), len(decode))):
        if len(prefill) >= len(decode):
            yield [WorkerPair(p, decode[(i + shift) % len(decode)]) for i, p in enumerate(prefill)]
        else:
            yield [WorkerPair(prefill[(i + shift) % len(prefill)], d) for i, d in enumerate(decode)]


def route(body: bytes, pair: WorkerPair) -> bytes:
    """Return the request `body` with the fields that send it to `pair` and ask who served it."""
    request = json.loads(body)
    target = {"prefill_worker_id": pair.prefill, "decode_worker_id": pair.decode}
    if pair.prefill == pair.decode:
        target = {"backend_instance_id": pair.decode}
    request["nvext"] = request.get("nvext", {}) | target | {"extra_fields": ["worker_id"]}
    return json.dumps(request).encode()
