"""Check the options of sbatch that a user adds (`cluster.extra_sbatch`).

Names that sbatch does not know may be those of a site's plugins. Source: Slurm 26.05, src/sbatch/opt.c,
src/common/slurm_opt.c.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from tune.deploy.option_names import meant_options
from tune.deploy.shell import reject_line_break
from tune.errors import ConfigurationError

_TWICE = "a job runs its attempts once"
_HIDDEN = "a job is found again by what tune gives it and by what sbatch answers"
_ELSEWHERE = "tune looks for its jobs on this cluster, among those of this user"
_NO_JOB = "sbatch would not submit the job's script"
_ENVIRONMENT = "job.sbatch would hold the values; prefill.env and the like set variables, also secret ones"
_FOLDER = "the paths that tune gives a job begin in the folder where it submits it"
_OWN_SETTINGS = ("account", "partition", "qos", "reservation")
_EXCLUDED = "cluster.exclude names such nodes, and nodes that fail twice in a study join them"

REFUSED = {
    **dict.fromkeys(("array", "requeue"), _TWICE),
    **dict.fromkeys(("comment", "error", "output", "parsable", "quiet", "wait"), _HIDDEN),
    **dict.fromkeys(("cluster", "cluster-constraint", "clusters", "gid", "uid"), _ELSEWHERE),
    **dict.fromkeys(("export", "export-file"), _ENVIRONMENT),
    "exclude": _EXCLUDED,
    "chdir": _FOLDER,
    **{name: f"cluster.{name} is its setting, also where that is null" for name in _OWN_SETTINGS},
    **dict.fromkeys(("autocomplete", "external", "help", "test-only", "usage", "version", "wrap"), _NO_JOB),
}
"""Options that are refused, and why."""

BEGIN_OTHERS = frozenset({"bb", "container", "extra", "gpus", "gres", "mem", "ntasks", "time", "wait"})
"""Options of sbatch with which the names of further ones begin, and which are meant by their own name."""


def parse_extra_option(directive: str, taken: Collection[str]) -> tuple[str, str | Literal[True]]:
    """Return name and value of a long option of sbatch; True for an option without a value.

    Parameters
    ----------
    directive
        One entry of `cluster.extra_sbatch`, such as --constraint=gb200.
    taken
        Names of the options that the job has already.

    Returns
    -------
    The name without dashes, and the value.

    Raises
    ------
    ConfigurationError
        For anything but a long option, for one that is refused or taken, and for a shortened name of such a
        one.
    """
    reject_line_break("cluster.extra_sbatch", directive)
    name, equals, value = directive.removeprefix("--").partition("=")
    if not directive.startswith("--") or not name or any(character.isspace() for character in name):
        raise _error(directive, "a long option of sbatch, --NAME=VALUE or --NAME (--constraint=gb200)")
    if "_" in name and (meant := meant_options(name.replace("_", "-"), {*REFUSED, *taken}, BEGIN_OTHERS)):
        raise _error(directive, f"no _ in a name: sbatch knows --{meant[0]} only")
    for whole in meant_options(name, REFUSED, BEGIN_OTHERS):
        raise _error(directive, f"no --{whole}: {REFUSED[whole]}. Leave it out")
    for whole in meant_options(name, taken, BEGIN_OTHERS):
        raise _error(
            directive, f"each option once: --{whole} is asked for already. Change the setting of that name"
        )
    return name, value if equals else True


def _error(directive: str, expected: str) -> ConfigurationError:
    return ConfigurationError(f"cluster.extra_sbatch: found {directive!r}; expected {expected}.")
