"""Write the srun command of a process, up to the command that it runs.

Source of the options: Slurm, srun(1).
"""

from __future__ import annotations

from collections.abc import Sequence

from tune.manifest.process import Process

WITHOUT_SLURM = ("bash", "-c", 'unset "${!SLURM_@}"; exec "$@"', "bash")
"""Beginning of a command that removes the variables of the step. With them in a frontend the p99 of TPOT rose
from 14.8 to 16.4 ms in a run of gpt-oss, and DeepSeek-R1 lost 0.84 %. Source: NVIDIA, MLPerf Inference v6.1,
dynamo_disagg_loadgen.yaml."""

KEPT_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""Variables that describe the user and the node, not the deployment: a process gets them from the job."""

JOB_VARIABLES = (
    *("SLURM_CONF", "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES"),
    *("SLURM_CLUSTER_NAME", "SLURM_RESTART_COUNT"),
)
"""Variables by which srun finds the job. Others of the batch step (task counts, CPU masks, rank) would change
the step."""


def srun_words(
    process: Process,
    node_list: str,
    *,
    container: Sequence[str],
    gpus_per_node: int | None,
    srun_options: Sequence[str],
    mpi: str,
) -> list[str]:
    """Return the words of srun for a process.

    --overlap: steps share nodes. --overcommit: a job may have fewer CPUs than a worker has ranks.

    Parameters
    ----------
    process
        The process.
    node_list
        Its nodes, as --nodelist takes them.
    container
        Options of a step in the image; empty for a step on the node itself.
    gpus_per_node
        GPUs that a step with GPUs requests on each node, None where they are no generic resource.
    srun_options
        Further options; those of pyxis are for steps in the image alone.
    mpi
        What starts the ranks of a worker.

    Returns
    -------
    list[str]
        The words, srun first.
    """
    nodes = len(process.nodes)
    ranked = [f"--mpi={mpi if process.mpi else 'none'}"]
    if process.gpus and gpus_per_node is not None:
        ranked.append(f"--gpus-per-node={gpus_per_node}")
    further = [option for option in srun_options if container or not _is_of_pyxis(option)]
    return [
        *("srun", "--overlap", "--overcommit", "--kill-on-bad-exit=1", "--disable-status", "--input=none"),
        *(f"--job-name={process.name}", f"--nodes={nodes}", f"--nodelist={node_list}"),
        *(f"--ntasks={process.tasks}", f"--ntasks-per-node={process.tasks // nodes}"),
        *("--distribution=block", *ranked, *further, *container),
    ]


def _is_of_pyxis(option: str) -> bool:
    """Return whether an option of srun is for steps in an image alone."""
    return option.startswith(("--container-", "--no-container-"))
