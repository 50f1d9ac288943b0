from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.orchestrator.worker_pairs import RoutedResponse, WorkerPair, planned_rounds, rounds_of_pairs, route

IDS = st.lists(st.integers(0, 1 << 64), min_size=1, max_size=9, unique=True)


@given(IDS, IDS)
def test_rounds_hold_every_pair_once_and_load_workers_evenly(prefill: list[int], decode: list[int]) -> None:
    rounds = list(rounds_of_pairs(prefill, decode))
    pairs = [pair for pairs in rounds for pair in pairs]
    assert sorted(pairs) == sorted(WorkerPair(p, d) for p in prefill for d in decode)
    larger, ids = ("prefill", prefill) if len(prefill) >= len(decode) else ("decode", decode)
    for pairs in rounds:
        assert sorted(getattr(pair, larger) for pair in pairs) == sorted(ids)


@pytest.mark.parametrize("instances", [([], []), ([7], [1]), ([7, 8, 9], [1])])
def test_other_workers_than_planned_are_asked_by_no_name(instances: tuple[list[int], list[int]]) -> None:
    """None is named by an older frontend; one too many may have ended."""
    assert planned_rounds(instances, [2, 1]) == []
    assert len(planned_rounds(([7, 8], [1]), [2, 1])) == 1


@given(st.dictionaries(st.sampled_from(["prompt", "max_tokens"]), st.integers()), st.booleans())
def test_a_routed_request_is_otherwise_unchanged(request: dict[str, object], has_nvext: bool) -> None:
    body = request | ({"nvext": {"ignore_eos": True}} if has_nvext else {})
    routed = json.loads(route(json.dumps(body).encode(), WorkerPair(3, 4)))
    nvext = routed.pop("nvext")
    assert routed == request
    assert nvext.pop("ignore_eos", has_nvext) == has_nvext
    assert nvext == {"prefill_worker_id": 3, "decode_worker_id": 4, "extra_fields": ["worker_id"]}


EVENT = (
    b'data: {"choices":[{"text":" a"}],"nvext":{"worker_id":{"prefill_worker_id":7668682567119365899,'
    b'"decode_worker_id":5}}}\n\n'
)
"""The form of Dynamo 1.6.1."""


@pytest.mark.parametrize("cut", [0, 40, 100, len(EVENT) - 1])
def test_the_pair_is_read_however_the_bytes_arrive(cut: int) -> None:
    response = RoutedResponse()
    for part in (EVENT[:cut], EVENT[cut:] + EVENT):
        response.feed(part, 1)
    assert response.served_by == WorkerPair(7668682567119365899, 5)
    assert response.first_token_ns == 1


def test_a_frontend_that_says_nothing_leaves_the_pair_unknown() -> None:
    response = RoutedResponse()
    response.feed(b'data: {"choices":[{"text":" a"}]}\n\n', 1)
    assert response.served_by is None
