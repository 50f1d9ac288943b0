"""Choose what of the environment of this process reaches the processes that it starts.

A deployment must not depend on the shell that started it: variables of that shell would change what is
measured, and no record would say so. Whatever else a process needs is named in prefill.env, decode.env,
stack.env or cluster.srun_env.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tune.manifest.process import ProcessRole
from tune.manifest.srun_step import KEPT_VARIABLES

_OF_OUR_CLIENT = frozenset({"PYTHONPATH"})
"""Variables by which the client, a program of tune, finds its modules as this process does."""


def step_environment(
    environment: Mapping[str, str], role: ProcessRole, inherits: Iterable[str]
) -> dict[str, str]:
    """Return the part of `environment` that a process gets.

    Parameters
    ----------
    environment
        The environment of this process.
    role
        What the process is.
    inherits
        Names of further variables that it takes from there, where they are set.

    Returns
    -------
    dict[str, str]
        Variables of the user and the node, and those that are named.
    """
    names = set(KEPT_VARIABLES).union(inherits, _OF_OUR_CLIENT if role == "client" else ())
    return {name: value for name, value in environment.items() if name in names}
