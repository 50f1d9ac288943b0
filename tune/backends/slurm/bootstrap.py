"""Make the Python environment of the nodes, in a job of one node: theirs may be another architecture."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from tune.backends.slurm.one_node_job import NotRun, OneNodeJob, run_on_one_node
from tune.core.files import make_folder
from tune.errors import ConfigurationError, ResumableError
from tune.spec.settings import Settings

_SCRIPT = Path(__file__).with_name("bootstrap.sh")
_LONGEST = "1:00:00"
"""Time limit of the job: seconds where every package has a wheel, minutes where LoadGen is compiled."""
_LACKS = "4:0"
"""Exit code of the script where the node lacks something, as Slurm prints it."""


def make_node_environment(settings: Settings, say: Callable[[str], None]) -> str:
    """Make the environment of `cluster.python` on a node; return what the job said last.

    `say` receives the states of the job. Raises ConfigurationError for a path that names no environment to
    make and for a node that lacks what it takes, ResumableError where the job did not run or failed.
    """
    folder, checkout = _environment_folder(settings.cluster.python), _checkout()
    runs = Path(settings.runs_dir).absolute()
    make_folder(runs, parents=True)
    log = runs / "bootstrap.log"
    arguments = shlex.join((str(folder), str(checkout)))
    say(f"making {folder} on a node; its output goes to {log}")
    try:
        one_node = OneNodeJob(settings.cluster, settings.hardware, _LONGEST, say)
        job = run_on_one_node(one_node, f"set -- {arguments}\n{_SCRIPT.read_text()}\n", log)
    except NotRun as reason:
        raise ResumableError(f"action=bootstrap: {reason}. Nothing was made; try again later.") from reason
    said = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    if job.state == "COMPLETED":
        return said[-1] if said else ""
    tail = "\n".join(f"  | {line}" for line in said[-12:])
    if job.exit_code == _LACKS:
        raise ConfigurationError(f"action=bootstrap: nothing was made.\n{tail}")
    raise ResumableError(
        f"action=bootstrap: the job ended as {job.text}; the last lines of {log}:\n{tail}\nThe same command "
        "begins anew."
    )


def _environment_folder(python: str | None) -> Path:
    """Return the folder of the environment whose interpreter is `python`."""
    path = Path(python or "/")
    if path.name not in ("python", "python3") or path.parent.name != "bin":
        raise ConfigurationError(
            f"cluster.python: found {python or 'null'}, expected the interpreter of the environment to make, "
            "FOLDER/bin/python3, in a folder that the nodes share. Name it."
        )
    return path.parents[1]


def _checkout() -> Path:
    """Return the folder of tune's source."""
    root = Path(__file__).resolve().parents[3]
    if not (root / "pyproject.toml").exists():
        raise ConfigurationError(
            f"action=bootstrap: found tune installed in {root}, expected a checkout, which the nodes install "
            "from. Run it from there, or make the environment on a node by hand, with venv and pip."
        )
    return root
