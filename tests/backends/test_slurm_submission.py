"""Test the submission to Slurm with replaced programs: options, refusals, patience."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.composed import composed
from support.slurm_study import FACTS, SPEC, WORDS, Study

from tune.backends.slurm.allocation import Allocation, allocation_of
from tune.backends.slurm.backend import SlurmBackend
from tune.backends.slurm.submission import submit_job
from tune.deploy.job_script import job_script, sbatch_options
from tune.errors import ConfigurationError
from tune.records.folders import TrialFolder


def directives(script: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH --")]
    return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["cluster.gpus_per_node_option=true", "cluster.exclusive=false", "cluster.qos=high"],
        ["cluster.reservation=mine", "cluster.extra_sbatch=['--constraint=gb200','--overcommit']"],
        ["cluster.partition='a b'", "cluster.account=null", "cluster.time_limit='1-00:00:00'"],
    ],
)
def test_submitit_submits_the_options_of_job_sbatch(study: Study, words: list[str]) -> None:
    facts = composed(*WORDS, *words).cluster
    handle = study.submit("a")
    allocation = allocation_of(Path(handle))
    assert allocation is not None
    job_id = submit_job(allocation, sbatch_options(facts, 18, 4), sys.executable)
    ours = directives(job_script(facts, 18, 4))
    theirs = directives((allocation.folder / f"{job_id}_submission.sh").read_text())
    del ours["output"]
    its_own = {name: theirs.pop(name) for name in ("output", "open-mode")}
    assert theirs == ours
    assert Path(its_own["output"]).parent == allocation.folder


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "study").write_text("a file where the study was")
    with pytest.raises(ConfigurationError, match="study/jobs/1: cannot be written"):
        submit_job(Allocation(tmp_path / "study" / "jobs" / "1"), {}, sys.executable)


def test_exported_sbatch_options_change_no_job(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """sbatch takes SBATCH_TIMELIMIT and the like before a script's directives, and hands all of them on; in a
    job with SLURM_ARRAY_JOB_ID submitit looks for the files of that job."""
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "55")
    monkeypatch.setenv("TMPDIR", str(study.root))
    study.submit("a")
    assert study.slurm.jobs["101"]["inherited"] == []
    assert os.environ["SBATCH_TIMELIMIT"] == "1", "the shell's own programs keep theirs"


@pytest.mark.parametrize("answer", ["", " on cluster rack"])
def test_talk_before_the_answer_of_sbatch_is_no_id(study: Study, answer: str) -> None:
    study.slurm.talk("Your job 7 of 9 this week.\nsubmitting batch job 8 ...\n", after=answer)
    handle = study.submit("a")
    allocation = allocation_of(Path(handle))
    assert allocation is not None
    record = allocation.read()
    assert record is not None
    assert record.job_id == "101"
    assert allocation.traces() == "101"
    assert study.said == ["job 101 (trial a): submitted"]


def test_job_without_an_answer_of_sbatch_is_found_by_its_comment(study: Study) -> None:
    study.slurm.talk("job 7\n", after=None)
    handle = study.submit("a")
    assert "expected a line 'Submitted batch job ID'" in study.said[0]
    study.slurm.talk("")
    assert study.backend.poll(handle) == "waiting"
    assert list(study.slurm.jobs) == ["101"], "submitted once"
    assert study.said[1].startswith("job 101 (trial a): ")


POLICY = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, "
    "user's size and/or time limits)"
)
"""Preceded, in Slurm 22.05, by a line with the limit."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "sbatch: error: Batch job submission failed: Invalid qos specification",
        "sbatch: error: Batch job submission failed: Requested node configuration",
        f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{POLICY}",
        f"sbatch: error: QOSMaxNodePerJobLimit\n{POLICY}",
    ],
)
def test_refusal_is_reported_in_slurms_words(study: Study, words: str) -> None:
    study.slurm.fail("sbatch", words)
    with pytest.raises(ConfigurationError) as refusal:
        study.submit("a")
    assert words in str(refusal.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "patience_s"),
    [
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect)", None),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", None),
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}", 24 * 3600),
        (f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}", 24 * 3600),
        (f"sbatch: error: AssocGrpSubmitJobsLimit\n{POLICY}", 24 * 3600),
        (POLICY, 1800),
    ],
)
def test_rejected_job_is_submitted_again_within_its_patience(
    study: Study, words: str, patience_s: float | None
) -> None:
    now = {"s": 0.0}
    study.backend = SlurmBackend(
        FACTS, 1, study.said.append, every_s=0.0, retry_s=30.0, clock=lambda: now["s"]
    )
    study.slurm.fail("sbatch", words)
    handle = study.submit("a")
    for now["s"] in (0.0, 10.0, 31.0, 40.0, patience_s or 1e6):
        assert study.backend.poll(handle) == "waiting"
    assert study.slurm.asked.count("sbatch") == 3, "every half minute"
    assert [line for line in study.said if words in line] == study.said, "said once"
    now["s"] += 61.0
    if patience_s:
        with pytest.raises(ConfigurationError, match=r"policy[\s\S]*It was tried for"):
            study.backend.poll(handle)
    study.slurm.fail("sbatch", None)
    now["s"] += 61.0
    assert study.backend.poll(handle) == "waiting"
    assert len(study.slurm.jobs) == 1
    study.nodes.work()
    assert study.backend.poll(handle) == "ended"


def test_refused_job_is_submitted_by_the_resumed_study(study: Study) -> None:
    study.slurm.fail("sbatch", "sbatch: error: Invalid account")
    attempt = study.attempt("a")
    with pytest.raises(ConfigurationError):
        study.backend.submit(SPEC, attempt)
    study.slurm.fail("sbatch", None)
    backend = study.again()
    handle = backend.resume(attempt)
    assert handle is not None
    assert backend.poll(handle) == "waiting"
    assert len(study.slurm.jobs) == 1


def test_path_that_sbatch_would_expand_is_refused(study: Study) -> None:
    trial = TrialFolder(study.root / "runs" / "50%j" / "a")
    trial.new_attempt().mkdir(parents=True)
    trial.write_spec(SPEC)
    with pytest.raises(ConfigurationError, match="holds a %"):
        study.backend.submit(SPEC, trial.attempts()[0])
    assert study.slurm.jobs == {}
