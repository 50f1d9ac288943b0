"""Render the check in which the software of the nodes validates a plan before any worker starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tune.engines.registry import engine_of
from tune.manifest.argument_check import ARGUMENT_CHECK_SCRIPT, ArgumentCheck, CommandCheck, Validators
from tune.manifest.process import PLACEHOLDERS, PLAN_DIR, Process, log_path
from tune.spec.cluster import ClusterFacts
from tune.spec.split import ALL_ROLES
from tune.spec.trial import TrialSpec

_NAME = "argument_check"
_OPEN = re.compile("|".join(re.escape(name) for name in PLACEHOLDERS if name != PLAN_DIR))


def argument_check(spec: TrialSpec, facts: ClusterFacts, processes: Sequence[Process]) -> ArgumentCheck:
    """Return what is to be validated of `processes`: the frontend, and the first worker of each pool."""
    validators = engine_of(spec).validators(spec, facts)
    first: dict[str, Process] = {}
    for process in processes:
        first.setdefault(process.role, process)
    commands = (_command(role, first[role], validators) for role in ("frontend", *ALL_ROLES) if role in first)
    return ArgumentCheck(
        commands=tuple(command for command in commands if command),
        files=validators.files,
        packages=validators.packages,
    )


def argument_check_process(check: ArgumentCheck, processes: Sequence[Process]) -> Process | None:
    """Return the process that runs `check`, one task of the first worker; None without checks."""
    if not check.commands and not check.files:
        return None
    worker = next(process for process in processes if process.role in ALL_ROLES)
    module = _module_option(worker.argv)
    python = worker.argv[module - 1] if module else "python3"
    return replace(
        worker,
        name=_NAME,
        role="check",
        gpus=worker.gpus[:1],
        argv=(python, f"{PLAN_DIR}/{ARGUMENT_CHECK_SCRIPT}"),
        log=log_path(_NAME),
        listens=(),
        metrics_port=None,
    )


def _module_option(argv: Sequence[str]) -> int:
    """Return the index of the -m of `python3 -m PROGRAM`, 0 without one; numactl has an -m too."""
    return next((i for i, word in enumerate(argv) if word == "-m" and argv[i - 1].endswith("python3")), 0)


def _command(role: str, process: Process, validators: Validators) -> CommandCheck | None:
    """Return the check of a command line `... python3 -m PROGRAM ARGUMENT ...`, None without a parser.

    Variables whose value the job fills in are left out: they are addresses and folders.
    """
    module = _module_option(process.argv) or len(process.argv)
    program, *arguments = process.argv[module + 1 :] or ("",)
    if program not in validators.parsers:
        return None
    env = {name: value for name, value in process.env.items() if not _OPEN.search(value)}
    return CommandCheck(
        name=f"command line of {role}",
        program=program,
        arguments=tuple(arguments),
        env=env,
        parsers=validators.parsers[program],
    )
