"""Check the options of srun that a user adds to every step (`cluster.srun_options`).

Source: Slurm, srun(1); pyxis, README.
"""

from __future__ import annotations

from tune.deploy.shell import reject_unbindable
from tune.errors import ConfigurationError
from tune.spec.cluster import ClusterFacts

OPTIONS_OF_TUNE = frozenset(
    {
        *("overlap", "overcommit", "kill-on-bad-exit", "disable-status", "input", "output", "error"),
        *("job-name", "jobid", "nodes", "nodelist", "exclude", "ntasks", "ntasks-per-node", "distribution"),
        *("mpi", "gpus-per-node", "container-image", "container-mounts", "container-workdir"),
        *("container-remap-root", "container-mount-home", "container-name", "pty", "test-only"),
    }
)
"""Options that tune gives a step itself, from the plan or from other facts of the cluster."""


def step_options(facts: ClusterFacts) -> tuple[str, ...]:
    """Return the further options of every step.

    Raises ConfigurationError for anything but a long option, for one that tune sets itself, and for one of
    pyxis without an image.
    """
    for option in facts.srun_options:
        name = option.removeprefix("--").partition("=")[0]
        if not option.startswith("--") or not name or any(character.isspace() for character in name):
            raise _error(option, "a long option of srun, --NAME=VALUE or --NAME (--cpu-bind=verbose,none)")
        if name in OPTIONS_OF_TUNE:
            raise _error(option, f"none that tune sets itself: --{name} follows from plan and cluster")
        if "container-" in name and facts.container_image is None:
            raise _error(option, "no option of an image without cluster.container_image")
        reject_unbindable("cluster.srun_options", option)
    return facts.srun_options


def _error(option: str, expected: str) -> ConfigurationError:
    return ConfigurationError(
        f"cluster.srun_options: found {option!r}, expected {expected}. Change it or leave it out."
    )
