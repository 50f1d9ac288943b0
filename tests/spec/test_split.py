"""Place the workers of a split."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.composed import composed

from tune.engines.check import check
from tune.spec.findings import only_errors
from tune.spec.split import Role, Split, WorkerPlacement, filled_split, place_workers
from tune.spec.trial import TrialSpec

DEFAULT = composed().trial_spec

heads = st.sampled_from(("prefill", "decode", "none"))
sizes = st.sampled_from((1, 2, 4, 8))


def spec(prefill: int, decode: int, head: str, prefill_tp: int = 4, decode_tp: int = 4) -> TrialSpec:
    split = Split(prefill_workers=prefill, decode_workers=decode, head=head)  # type: ignore[arg-type]
    return DEFAULT.model_copy(
        update={
            "split": split,
            "prefill": DEFAULT.prefill.model_copy(update={"tensor_parallel_size": prefill_tp}),
            "decode": DEFAULT.decode.model_copy(update={"tensor_parallel_size": decode_tp}),
        }
    )


def placed(of: TrialSpec) -> tuple[WorkerPlacement, ...] | None:
    return place_workers(of.hardware, of.prefill, of.decode, of.split)


@given(prefill=st.integers(1, 18), decode=st.integers(1, 18), head=heads, tps=st.tuples(sizes, sizes))
def test_each_gpu_serves_one_worker_and_the_head_node_is_as_set(
    prefill: int, decode: int, head: str, tps: tuple[int, int]
) -> None:
    workers = placed(spec(prefill, decode, head, *tps))
    assume(workers is not None)
    assert workers is not None
    assert [(worker.role, worker.index) for worker in workers] == [
        *(("prefill", index) for index in range(prefill)),
        *(("decode", index) for index in range(decode)),
    ]
    taken = Counter(gpu for worker in workers for gpu in worker.gpus)
    assert set(taken.values()) == {1}
    on_head = [worker for worker in workers if 0 in worker.nodes]
    if head == "none":
        assert not on_head
    else:
        assert (head, 0) in {(worker.role, worker.index) for worker in on_head}


@pytest.mark.parametrize(("head", "role"), [("prefill", "prefill"), ("decode", "decode")])
def test_head_setting_changes_no_worker_count(head: str, role: Role) -> None:
    workers = placed(spec(14, 4, head))
    assert workers is not None
    assert next(worker for worker in workers if 0 in worker.nodes).role == role


def test_head_none_leaves_the_first_node_without_workers() -> None:
    assert placed(spec(14, 4, "none")) is None
    (finding,) = only_errors(check(spec(14, 4, "none")))
    assert "split.head=none keeps node 0 free" in finding.expected
    fewer = spec(14, 3, "none")
    assert not only_errors(check(fewer))
    assert filled_split(fewer.hardware, fewer.prefill, fewer.decode, fewer.split) == fewer.split


@given(prefill=st.integers(1, 17), head=heads)
def test_one_more_decode_worker_than_the_most_does_not_fit(prefill: int, head: str) -> None:
    trial = spec(prefill, 1, head)
    most = filled_split(trial.hardware, trial.prefill, trial.decode, trial.split).decode_workers
    assert placed(spec(prefill, most + 1, head)) is None
    assert most == (17 if head == "none" else 18) - prefill
