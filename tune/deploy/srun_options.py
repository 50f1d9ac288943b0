"""Check the options of srun that a user adds to every step (`cluster.srun_options`).

Source: Slurm, srun(1); pyxis, README.
"""

from __future__ import annotations

from tune.deploy.option_names import meant_options
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

_ELSEWHERE = "a step runs on the nodes of its job that the plan gives it"
_ENVIRONMENT = "a step gets the variables that prefill.env, cluster.srun_env and the like name, and no others"
_OTHER_COMMAND = "a step runs the command of the plan"

REFUSED_OPTIONS = {
    **dict.fromkeys(("cluster", "clusters", "het-group", "pack-group"), _ELSEWHERE),
    **dict.fromkeys(("no-allocate", "nodefile", "relative"), _ELSEWHERE),
    **dict.fromkeys(("export", "export-file"), _ENVIRONMENT),
    **dict.fromkeys(("autocomplete", "help", "multi-prog", "usage", "version"), _OTHER_COMMAND),
}
"""Options that are refused, and why."""

_BEGIN_OTHERS = frozenset({"container", "gpus"})
"""Options of srun with which the names of options above begin, and which are meant by their own name."""


def step_options(facts: ClusterFacts) -> tuple[str, ...]:
    """Return the further options of every step.

    Raises ConfigurationError for anything but a long option, for one that is refused or that tune sets
    itself, for a shortened name of such a one, and for one of pyxis without an image.
    """
    for option in facts.srun_options:
        name = option.removeprefix("--").partition("=")[0]
        if not option.startswith("--") or not name or any(character.isspace() for character in name):
            raise _error(option, "a long option of srun, --NAME=VALUE or --NAME (--cpu-bind=verbose,none)")
        plain = name.replace("_", "-")
        for whole in meant_options(plain, REFUSED_OPTIONS, _BEGIN_OTHERS):
            raise _error(option, f"no --{whole}: {REFUSED_OPTIONS[whole]}")
        for whole in meant_options(plain, OPTIONS_OF_TUNE, _BEGIN_OTHERS):
            raise _error(option, f"none that tune sets itself: --{whole} follows from plan and cluster")
        if "container-" in name and facts.container_image is None:
            raise _error(option, "no option of an image without cluster.container_image")
        reject_unbindable("cluster.srun_options", option)
    return facts.srun_options


def _error(option: str, expected: str) -> ConfigurationError:
    return ConfigurationError(
        f"cluster.srun_options: found {option!r}, expected {expected}. Change it or leave it out."
    )
