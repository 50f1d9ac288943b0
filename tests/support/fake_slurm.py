"""Replace Slurm's programs at the outermost edge: small programs on the PATH that share one JSON file.

As a program, `fake_slurm.py STATE PROGRAM ARGUMENT ...` is one of them.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("sbatch", "squeue", "scontrol", "sacct", "scancel", "srun", "sinfo")
_SHOWN = ("PENDING", "RUNNING", "COMPLETING")
PARTITION = (
    "PartitionName=rack State=UP Default=YES MaxNodes=UNLIMITED MaxTime=1-00:00:00 TotalNodes=18\n"
    "PartitionName=small State=UP Default=NO MaxNodes=4 MaxTime=00:30:00 TotalNodes=18\n"
)
HIDDEN = (
    "PartitionName=hidden State=UP Default=NO Hidden=YES MaxNodes=UNLIMITED MaxTime=UNLIMITED TotalNodes=18\n"
)


class FakeSlurm:
    """Control a Slurm that does what a test says. `path` goes in front of PATH."""

    def __init__(self, root: Path) -> None:
        self.state = root / "slurm.json"
        self.path = root / "slurm-bin"
        self.path.mkdir()
        for program in PROGRAMS:
            script = self.path / program
            script.write_text(
                f'#!/bin/sh\nexec {sys.executable} -SE {__file__} {self.state} {program} "$@"\n'
            )
            script.chmod(0o755)
        self.state.write_text(json.dumps({"jobs": {}, "fails": {}, "kill_at": None, "asked": []}))

    def fail(self, program: str, words: str | None) -> None:
        """Have `program` refuse with these words; None lets it answer again."""
        with _held(self.state) as state:
            state["fails"][program] = words

    def talk(self, words: str, after: str | None = "") -> None:
        """Have sbatch print words before its answer and after it, as a wrapper may; None: it answers not."""
        with _held(self.state) as state:
            state["talk"], state["after"] = words, after

    def kill_caller_at(self, instant: str | None) -> None:
        """Kill the caller with -9 at an instant.

        "sbatch" and "registered" are before and after a job is submitted, "squeue" is when its state is
        asked.
        """
        with _held(self.state) as state:
            state["kill_at"] = instant

    def set(self, job_id: str, **facts: Any) -> None:
        with _held(self.state) as state:
            state["jobs"][job_id] |= facts

    def account(self, *lines: str) -> None:
        """Have the accounting print these lines; before, the cluster has none."""
        with _held(self.state) as state:
            state["accounts"] = lines

    def forget(self, job_id: str) -> None:
        """Forget a job, as a controller does some minutes after its end."""
        with _held(self.state) as state:
            del state["jobs"][job_id]

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        with _held(self.state) as state:
            return dict(state["jobs"])

    @property
    def asked(self) -> list[str]:
        """Return the programs in the order in which they were called."""
        with _held(self.state) as state:
            return [words[0] for words in state["asked"]]

    def folder(self, job_id: str) -> Path:
        """Return the allocation's folder, which a job carries in its comment."""
        return Path(self.jobs[job_id]["options"]["comment"].removeprefix("tune:"))


@contextmanager
def _held(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        state = json.load(file)
        yield state
        file.seek(0)
        file.truncate()
        json.dump(state, file)


def _refuse(words: str) -> None:
    print(words, file=sys.stderr)
    sys.exit(1)


def _kill(state: dict[str, Any], instant: str) -> bool:
    if state["kill_at"] != instant:
        return False
    state["kill_at"] = None
    os.kill(os.getppid(), signal.SIGKILL)
    return True


def _options(script: str) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.M)
    return {name: value.strip("'") for name, value in found}


def sbatch(state: dict[str, Any], arguments: list[str]) -> None:
    if "--test-only" in arguments:
        return
    if _kill(state, "sbatch"):
        return
    job_id = str(101 + len(state["jobs"]))
    options = _options(Path(arguments[-1]).read_text())
    facts = {"state": "PENDING", "reason": "Resources", "nodes": "", "exit_code": "0:0", "held": "0:00"}
    options_of_a_shell = ("SBATCH_", "SQUEUE_", "SLURM_ARRAY_", "TMPDIR")
    own = sorted(name for name in os.environ if name.startswith(options_of_a_shell))
    state["jobs"][job_id] = facts | {"end": "N/A", "options": options, "inherited": own}
    if not _kill(state, "registered"):
        print(state.get("talk", ""), end="")
        if (after := state.get("after", "")) is not None:
            print(f"Submitted batch job {job_id}{after}")


def squeue(state: dict[str, Any], arguments: list[str]) -> None:
    _kill(state, "squeue")
    for job_id, job in state["jobs"].items():
        fields = (job["state"], job["reason"], job["nodes"], job["held"], job["end"])
        print("|".join((job_id, *fields, job["options"].get("comment", "(null)"))))


def scontrol(state: dict[str, Any], arguments: list[str]) -> None:
    if "partition" in arguments:
        print(PARTITION + (HIDDEN if "--all" in arguments else ""), end="")
        return
    job = state["jobs"].get(arguments[-1])
    if job is None:
        _refuse("slurm_load_jobs error: Invalid job id specified")
    else:
        failed = f" FailedNode={job['failed']}" if "failed" in job else ""
        nodes = job["nodes"] or "(null)"
        print(
            f"JobId={arguments[-1]} JobName=x JobState={job['state']} Reason={job['reason']} ExitCode="
            f"{job['exit_code']} RunTime=00:0{job['held']} EndTime={job['end']} NodeList={nodes}"
            f"{failed} Comment={job['options'].get('comment')}"
        )


def sacct(state: dict[str, Any], arguments: list[str]) -> None:
    accounts = state.get("accounts")
    if accounts is None:
        _refuse("Slurm accounting storage is disabled")
    for line in accounts or []:
        print(line)


def scancel(state: dict[str, Any], arguments: list[str]) -> None:
    job = state["jobs"].get(arguments[-1])
    if job is None:
        _refuse("scancel: error: Kill job error on job id: Invalid job id specified")
    elif job["state"] in _SHOWN:
        job |= {"state": "CANCELLED", "reason": "None"}


def sinfo(state: dict[str, Any], arguments: list[str]) -> None:
    print("\n".join(state.get("down", [])))


def main(path: Path, program: str, arguments: list[str]) -> None:
    with _held(path) as state:
        state["asked"].append([program, *arguments])
        words = state["fails"].get(program)
    if words:
        _refuse(words)
    with _held(path) as state:
        globals()[program](state, arguments)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
