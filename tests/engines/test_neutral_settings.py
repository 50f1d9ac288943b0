"""Simulate an engine whose settings have other names: neutral code reads Engine's properties alone."""

from __future__ import annotations

import numpy as np
import pytest
from support.composed import composed
from support.other_engine import REFERENCE, OtherEngine

from tune.engines.trtllm.adapter import TrtLlm
from tune.sim.simulator import simulate_serving
from tune.spec.bind import with_graph_family
from tune.spec.engine import Engine
from tune.spec.engine_table import ENGINES

SHORT = (
    *("load.min_queries=200", "load.min_duration_s=2.0", "load.concatenate_permutation=false"),
    *("prefill.scheduler_config=null", "decode.scheduler_config=null"),
    *("prefill.disable_overlap_scheduler=false", "decode.enable_chunked_prefill=true"),
)


def under_other_names(engine: Engine) -> OtherEngine:
    return OtherEngine(
        ranks=engine.tensor_parallel,
        max_num_seqs=engine.max_sequences,
        max_num_batched_tokens=engine.token_budget,
        max_model_len=engine.max_sequence_tokens,
        graphs=engine.graph_batch_sizes,
    )


def test_the_same_settings_under_other_names_are_simulated_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "stand_in", REFERENCE)
    monkeypatch.setattr(TrtLlm, "kv_capacity_tokens", lambda *_: 1_000_000)
    settings = composed(*SHORT)
    spec, calibration = settings.trial_spec, settings.cluster.calibration
    assert calibration is not None
    pools = {"prefill": under_other_names(spec.prefill), "decode": under_other_names(spec.decode)}
    stack = spec.stack.model_copy(update={"engine": "stand_in"})
    renamed = spec.model_copy(update=pools | {"stack": stack})
    assert renamed.decode.gpus == spec.decode.gpus == 4
    ours, theirs = (simulate_serving(trial, calibration) for trial in (spec, renamed))
    assert (ours.first_token_ns > 0).all()
    np.testing.assert_array_equal(ours.first_token_ns, theirs.first_token_ns)
    np.testing.assert_array_equal(ours.done_ns, theirs.done_ns)


def test_a_graph_family_is_set_by_the_engine_itself() -> None:
    engine = OtherEngine(ranks=4, max_num_seqs=8, max_num_batched_tokens=64, max_model_len=100)
    assert with_graph_family(engine, "powers_of_two").graph_batch_sizes == (1, 2, 4, 8)
    assert with_graph_family(engine, "none").graph_batch_sizes == ()
