"""Test that a study keeps its question: what may change when its command is run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.composed import composed
from support.studies import (
    CountingSimulator,
    ignore_submission,
    run_composed_study,
)

from tune.config import compose_overrides
from tune.errors import ConfigurationError
from tune.records.confirmation import confirm_overrides
from tune.records.folders import StudyFolder
from tune.spec.cluster import CommandPrefix
from tune.spec.settings import Settings
from tune.study.identity import merge_on_resume, require_same_backend, study_record
from tune.study.loop import open_study

SHORT = ("load.min_duration_s=120.0", "load.concatenate_permutation=false", "study.parallel=4")
SPLIT = ("+sweep=pd_split", "study.n_trials=10", *SHORT)


@pytest.mark.slow
def test_single_trial_does_not_replace_a_study(tmp_path: Path) -> None:
    run_composed_study(tmp_path, SPLIT)
    before = (tmp_path / "pd_split-sim" / "study.json").read_text()
    settings = composed(*SHORT)
    with (
        pytest.raises(ConfigurationError, match=r"sweep.space: the study has \{"),
        open_study(tmp_path / "pd_split-sim", study_record(settings, "pd_split-sim", ())),
    ):
        pass
    assert (tmp_path / "pd_split-sim" / "study.json").read_text() == before


def test_recorded_study_keeps_its_parallel_trials_where_the_command_leaves_them_open(tmp_path: Path) -> None:
    record = study_record(composed(*SPLIT), "one", ())
    with open_study(tmp_path / "one", record.model_copy(update={"parallel": 16})):
        pass
    with open_study(tmp_path / "one", record, keeps_parallel=True) as folder:
        study = folder.read_study()
        assert study
        assert study.parallel == 16
    with pytest.raises(ConfigurationError, match=r"study.parallel"), open_study(tmp_path / "one", record):
        pass


@pytest.mark.slow
def test_larger_n_trials_continues_the_study(tmp_path: Path) -> None:
    run_composed_study(tmp_path, SPLIT)
    longer = CountingSimulator(compose_overrides(SPLIT), ignore_submission)
    assert len(run_composed_study(tmp_path, (*SPLIT, "study.n_trials=12"), longer)) == 12
    assert longer.submitted == 2


@pytest.mark.slow
def test_smaller_n_trials_keeps_every_trial(tmp_path: Path) -> None:
    run_composed_study(tmp_path, SPLIT)
    assert len(run_composed_study(tmp_path, (*SPLIT, "study.n_trials=4"))) == 4
    record = StudyFolder(tmp_path / "pd_split-sim").read_study()
    assert record is not None
    assert record.n_trials == 10
    assert "study.n_trials=10" in record.command


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("study.seed=1", "study.seed: the study has 0, this command says 1"),
        ("study.parallel=2", "study.parallel"),
        ("study.baseline=false", "study.baseline"),
        ("search=random", "search"),
        ("slo.ttft_p99_s=6.0", "slo.ttft_p99_s: the study has 4.5, this command says 6.0"),
        ("stack=dynamo_v1", "stack.engine_yaml: the study has 'flat', this command says 'nested'"),
        ("cluster.calibration.decode_scale=1.5", "cluster.calibration.decode_scale: the study has"),
    ],
)
def test_resumed_study_must_ask_the_same(tmp_path: Path, changed: str, message: str) -> None:
    run_composed_study(tmp_path, (*SPLIT, "study.n_trials=1"))
    before = (tmp_path / "pd_split-sim" / "study.json").read_text()
    with pytest.raises(ConfigurationError) as caught:
        run_composed_study(tmp_path, (*SPLIT, changed))
    assert message in str(caught.value)
    assert "study.name=NAME" in str(caught.value)
    assert (tmp_path / "pd_split-sim" / "study.json").read_text() == before


GIVEN = {"ENROOT_ALLOW_DEV": "yes", "ENROOT_CACHE_PATH": None}


def with_facts(settings: Settings, **facts: Any) -> Settings:
    cluster = settings.cluster.model_copy(update=facts)
    return settings.model_copy(update={"cluster": cluster})


@pytest.mark.parametrize("sweep", [("+sweep=pd_split",), ()])
def test_variables_of_srun_are_pinned(sweep: tuple[str, ...]) -> None:
    plain = composed("cluster=slurm", "stack=dynamo_v1", *sweep)
    settings = with_facts(plain, srun_env=GIVEN)
    recorded = study_record(settings, "one", ())
    assert merge_on_resume(recorded, study_record(settings, "one", ())) == recorded
    for variables, difference in [
        (GIVEN | {"ENROOT_ALLOW_DEV": "no"}, "ENROOT_ALLOW_DEV: the study has 'yes', this command says 'no'"),
        (
            GIVEN | {"ENROOT_CACHE_PATH": "/c"},
            "ENROOT_CACHE_PATH: the study has 'set', this command says '/c'",
        ),
        (GIVEN | {"UCX_TLS": "rc"}, "UCX_TLS: the study has None, this command says 'rc'"),
    ]:
        other = with_facts(plain, srun_env=variables)
        with pytest.raises(ConfigurationError) as resumed:
            merge_on_resume(recorded, study_record(other, "one", ()))
        with pytest.raises(ConfigurationError) as confirmed:
            require_same_backend(recorded, other, ())
        assert f"cluster.srun_env.{difference}" in str(resumed.value)
        assert f"cluster.srun_env.{difference}" in str(confirmed.value)
    with pytest.raises(ConfigurationError, match=r"cluster\.srun_env: the study has \{"):
        merge_on_resume(recorded, study_record(plain, "one", ()))


LAUNCHED = {
    "command_prefix": CommandPrefix(decode=("numactl", "-m", "0,1")),
    "srun_options": ("--cpu-bind=none",),
}


@pytest.mark.parametrize("sweep", [("+sweep=pd_split",), ()])
def test_what_is_added_to_commands_is_pinned(sweep: tuple[str, ...]) -> None:
    plain = composed("cluster=slurm", "stack=dynamo_v1", *sweep)
    settings = with_facts(plain, **LAUNCHED)
    recorded = study_record(settings, "one", ())
    assert merge_on_resume(recorded, study_record(settings, "one", ())) == recorded
    for name, value, difference in [
        (
            "command_prefix",
            CommandPrefix(decode=("env", "UCX_TLS=rc")),
            ".decode: the study has 'numactl -m 0,1', this command says 'env UCX_TLS=rc'",
        ),
        (
            "command_prefix",
            CommandPrefix(decode=("numactl", "-m", "0,1"), frontend=("nice",)),
            ".frontend: the study has None, this command says 'nice'",
        ),
        ("srun_options", (), ": the study has '--cpu-bind=none', this command says None"),
        ("mpi", "none", ": the study has None, this command says 'none'"),
    ]:
        other = with_facts(settings, **{name: value})
        with pytest.raises(ConfigurationError) as resumed:
            merge_on_resume(recorded, study_record(other, "one", ()))
        with pytest.raises(ConfigurationError) as confirmed:
            require_same_backend(recorded, other, ())
        assert f"cluster.{name}{difference}" in str(resumed.value)
        assert f"cluster.{name}{difference}" in str(confirmed.value)


def test_commands_as_they_are_planned_leave_the_hash_of_a_study() -> None:
    """Studies on record, whose hashes know of the calibration alone, are resumed."""
    settings = composed("cluster=slurm", "cluster.mpi=pmix", "cluster.srun_options=[]")
    assert study_record(settings, "one", ()).cluster_hash == study_record(composed(), "one", ()).cluster_hash


def test_the_command_that_confirms_a_study_has_its_variables_of_srun() -> None:
    words = ("+sweep=pd_split", "cluster=slurm", "+cluster.srun_env.ENROOT_ALLOW_DEV=yes")
    record = study_record(composed("+sweep=pd_split"), "one", words)
    assert confirm_overrides(record) == ["action=confirm", "study.name=one", *words[1:]]


def test_a_simulated_rack_has_no_srun() -> None:
    settings = composed()
    assert study_record(with_facts(settings, srun_env=GIVEN), "one", ()) == study_record(settings, "one", ())


def test_default_parallel_is_pinned_as_a_number() -> None:
    left_open = study_record(
        composed(
            "+sweep=pd_split",
        ),
        "one",
        (),
    )
    parallel = f"study.parallel={left_open.parallel}"
    said = study_record(composed("+sweep=pd_split", parallel), "one", ())
    assert left_open == said
