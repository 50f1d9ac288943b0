"""Require that the software of the nodes accepts command lines and engine files before a worker starts.

A rejected setting then costs seconds, not the bring-up of the whole rack. Whatever hinders the check says
nothing about the settings and never ends the attempt.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from tune.manifest.argument_check import ArgumentAnswer, read_answer
from tune.manifest.process import Process
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed, last_lines
from tune.orchestrator.managed_process import POLL_S, ManagedProcess, PrintLine, describe_exit, stop_group

LIMIT_S = 300.0
"""Seconds for the check: software of several GB is imported from a file system that all nodes share."""


def require_accepted_arguments(deployment: Deployment, print_line: PrintLine) -> None:
    """Run the check of the plan and print its answer; does nothing where all workers run already.

    Raises AttemptFailed, its cause the configuration, with the words of the software that refuses it.
    """
    check = deployment.manifest.argument_check
    if check is None or all(deployment.is_running(worker) for worker in deployment.workers()):
        return
    began_s = time.monotonic()
    answer = ask_software(deployment, check, print_line)
    if isinstance(answer, str):
        print_line(f"arguments not checked, because {answer}")
        return
    for line in describe_answer(answer):
        print_line(line)
    if answer.refused:
        raise AttemptFailed(f"{refusal_text(answer)}\nNo worker was started.", "configuration")
    print_line(f"argument check took {time.monotonic() - began_s:.1f} s")


def ask_software(deployment: Deployment, check: Process, print_line: PrintLine) -> ArgumentAnswer | str:
    """Run the process `check`; return its answer, or why there is none."""
    running = deployment.start(check)
    code = _await_end(running, time.monotonic() + LIMIT_S)
    if code is None:
        stop_group([running], deployment.manifest.deadlines.stop_s, print_line)
    deployment.release(running)
    answer = read_answer(running.log)
    if answer is not None:
        return answer
    ended = f"no answer within {LIMIT_S:g} s" if code is None else f"it ended {describe_exit(code)}"
    return f"{ended}:\n{last_lines(running.log)}"


def describe_answer(answer: ArgumentAnswer) -> Iterator[str]:
    """Yield what was accepted, and what was not checked and why, each in one line."""
    if answer.accepted:
        yield f"{answer.software} accepts {', '.join(answer.accepted)}"
    for name, why in answer.not_checked.items():
        yield f"{name} not checked, because {why}"


def refusal_text(answer: ArgumentAnswer) -> str:
    """Return what the software refuses, with its words."""
    lines = [f"  {name}: {message}" for name, message in answer.refused.items()]
    return "\n".join([f"{answer.software} refuses the configuration:", *lines])


def _await_end(running: ManagedProcess, deadline_s: float) -> int | None:
    """Return the exit code of `running`, None where it has not ended by `deadline_s`."""
    while (code := running.handle.poll()) is None and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    return code
