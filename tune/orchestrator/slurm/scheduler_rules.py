"""List what Slurm says of jobs, steps and containers that it ended, refused or could not start, and why."""

from __future__ import annotations

from tune.spec.failure import FailureRule

JOB_ENDED = (
    FailureRule(
        name="time_limit",
        pattern=r"DUE TO TIME LIMIT|ended as TIMEOUT|before the time limit of the job",
        cause="infrastructure",
        meaning="the time of the job was up",
        next_step="Raise cluster.time_limit, or lower study.trials_per_job.",
        source="Slurm, slurmstepd: JOB ... CANCELLED AT ... DUE TO TIME LIMIT (marbl/canu#1052)",
        repeats=False,
    ),
    FailureRule(
        name="preempted",
        pattern=r"DUE TO (?:PREEMPTION|JOB REQUEUE)|preempted at|ended as PREEMPTED",
        cause="infrastructure",
        meaning="a job of higher priority took the nodes",
        next_step="Nothing: the trial is run again. Choose a partition or QOS that is not preempted.",
        source="Slurm, slurmstepd: DUE TO PREEMPTION (SystemsGenetics/GEMmaker#242)",
    ),
    FailureRule(
        name="node_failed",
        pattern=r"DUE TO NODE FAILURE|NODE_FAIL|\bnode \S+ is down",
        cause="infrastructure",
        meaning="a node failed",
        next_step="Nothing: the trial is run again, without a node that failed twice. sinfo -R says why a "
        "node is down.",
        source="Slurm, src/api/step_launch.c and slurmstepd",
    ),
    FailureRule(
        name="cancelled",
        pattern=r"\bCANCELLED\b|scancel",
        cause="infrastructure",
        meaning="somebody cancelled the job",
        next_step="The same command runs the trial again.",
        source="Slurm, slurmstepd: JOB ... CANCELLED AT ...; sacct, state CANCELLED by UID",
        repeats=False,
    ),
)
"""Rules for a job that Slurm ended."""

STEP_REFUSED = (
    FailureRule(
        name="clocks_differ",
        pattern=r"Job credential expired",
        cause="infrastructure",
        meaning="the clocks of the nodes differ",
        next_step="Have the clocks of the nodes and of the controller synchronised.",
        source="Slurm, FAQ; c3nl-neuraldynamics/c3nl_cluster#18",
    ),
    FailureRule(
        name="step_refused",
        pattern=r"srun: error: Unable to create step for job",
        cause="infrastructure",
        meaning="Slurm did not start a process on its nodes",
        next_step="Nothing: the trial is run again. A restarted controller may have lost count of a job.",
        source="Slurm, src/srun/libsrun/create_job.c; seen in 22.05",
    ),
)
"""Rules for a step that Slurm did not start."""

CONTAINER_REFUSED = (
    FailureRule(
        name="image",
        pattern=r"pyxis: (?:failed to import docker image|couldn't start container)|enroot-\w+: failed",
        cause="infrastructure",
        meaning="the container image could not be started on a node",
        next_step="Try it on that node: srun --container-image=IMAGE true. A squash file has to be given by "
        "its absolute path.",
        source="NVIDIA/pyxis#12, #61 and #127",
    ),
)
"""Rules for a container that pyxis, Slurm's plugin, did not start."""

CREDENTIALS_REFUSED = r"Munge (?:decode|encode) failed|Protocol authentication error"
"""Pattern for credentials that Slurm refuses. Slurm, slurm_errno.c and auth/munge."""

OUT_OF_MEMORY = r"[Dd]etected \d+ oom[_-]kill event|OUT_OF_MEMORY"
"""Pattern for a process that ran out of memory. Slurm, slurmstepd: Detected 1 oom_kill event in StepId;
sacct, state OUT_OF_MEMORY."""
