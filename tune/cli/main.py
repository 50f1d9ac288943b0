"""Actions of the command line. The only place that sets exit codes and, beside cli_*.py, that prints."""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tune.cli.confirm_command import confirm
from tune.cli.recorded_commands import cancel, logs, recorded_study, repeat_command, status, study_root
from tune.config import Composition, compose_command_line, trial_overrides
from tune.engines.check import check, check_local, check_simulated
from tune.errors import ConfigurationError, NegativeResult, ResumableError, TuneError
from tune.spec.findings import Finding, only_errors, render_findings
from tune.spec.rules import check_cluster, check_timed_weights
from tune.spec.settings import Settings

if TYPE_CHECKING:
    from tune.backends.base import Backend
    from tune.spec.trial import TrialSpec

# What only some actions need (optuna, pandas, plotly, numba) is imported by them: --help stays quick.


def run() -> int:
    """Compose the command line, do what it asks, print, and return the exit code of the interface."""
    try:
        composition = compose_command_line()
        if composition is None:
            return 0
        _ACTIONS[composition.settings.action](composition)
    except TuneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. What is recorded stays; the same command goes on from there.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # a fault of ours: show it whole, and say that nothing is lost
        traceback.print_exc()
        print("tune is at fault here, not your configuration; records on disk are whole.", file=sys.stderr)
        return ResumableError.exit_code
    return 0


def _run(composition: Composition) -> None:
    if composition.settings.sweep:
        _run_study(composition)
    else:
        _run_trial(composition)


def _run_trial(composition: Composition) -> None:
    from tune.report.terminal import render_outcome
    from tune.study.identity import study_record
    from tune.study.loop import open_study, run_trial

    settings = composition.settings
    if settings.study.n_trials is not None:
        raise ConfigurationError(
            "study.n_trials: without a sweep there is one trial; expected +sweep=NAME beside it."
        )
    _require_runnable(settings)
    root = study_root(composition)
    backend = _place(settings, processes=1)
    asked = study_record(settings, composition.study_name, ())
    with open_study(root, asked) as folder, backend as running:
        outcome, fresh = run_trial(folder, settings, running, partial(trial_overrides, settings=settings))
    print(render_outcome(outcome, settings.slo, asked))
    print(f"record    {root / outcome.trial_id}{'' if fresh else '  (on record; rerun=true measures again)'}")
    if outcome.status == "infeasible":
        raise NegativeResult(f"The configuration cannot run: {outcome.reason}")
    if outcome.status == "failed":
        raise ResumableError(f"The trial failed: {outcome.reason}\nThe same command tries it again.")


def _run_study(composition: Composition) -> None:
    from tune.cli.progress import preparations_bar, trials_bar
    from tune.study.budget import forecast_gpu_hours
    from tune.study.identity import study_record
    from tune.study.loop import open_study, require_search, run_study

    settings = composition.settings
    require_search(settings)
    _warn(_check(settings))
    asked = study_record(settings, composition.study_name, composition.overrides)
    backend = _place(settings, settings.cluster.processes or len(os.sched_getaffinity(0)))
    with open_study(study_root(composition), asked) as folder, backend as running:
        n_trials = settings.study.n_trials or recorded_study(study_root(composition))[1].n_trials
        left = n_trials - len(folder.outcomes())
        if left > 0:
            hours = forecast_gpu_hours(settings, left)
            most = f", {asked.max_gpu_hours:,.0f} at most" if asked.max_gpu_hours else ""
            ahead = f"{left} of {n_trials} trials are ahead, about {hours:,.0f} GPU-hours{most}"
            print(ahead, file=sys.stderr)
        overrides = partial(trial_overrides, settings=settings)
        try:
            with preparations_bar() as prepared, trials_bar(n_trials, asked.name) as recorded:
                run_study(folder, settings, running, overrides, recorded, prepared=prepared)
        except ResumableError:
            if any(outcome.status == "measured" for outcome in folder.outcomes()):
                with suppress(NegativeResult):  # the study's own end is what is to be told
                    _report(composition)
            raise
    _report(composition)


def _plan(composition: Composition) -> None:
    from tune.deploy.plan import render, write_plan
    from tune.records.folders import StudyFolder

    settings = composition.settings
    spec = settings.trial_spec
    _require_runnable(settings)
    folder = StudyFolder(study_root(composition)).trial(spec.trial_id)
    folder.write_spec(spec)
    plan = render(spec, settings.cluster)
    write_plan(plan, folder.plan)
    for process in plan.processes:
        gpus = " ".join(f"{node}:{gpu}" for node, gpu in process.gpus) or "-"
        print(f"node {process.node_index:>2}  {process.name:<12}  node:gpu {gpus}")
    print(f"\nplan      {folder.plan}")


def _preflight(composition: Composition) -> None:
    settings = composition.settings
    findings = _check(settings)
    if settings.cluster.kind == "slurm":
        from tune.backends.slurm.preflight import check_slurm

        findings = (*findings, *check_slurm(settings.cluster, settings.trial_spec))
    print(render_findings(findings) or "No findings.")
    broken = only_errors(findings)
    if broken:
        raise NegativeResult(
            f"The configuration cannot run. Errors: {len(broken)} of {len(findings)} findings."
        )
    print(f"The configuration can run. Warnings: {len(findings)}.")


def _report(composition: Composition) -> None:
    from tune.analysis.ranking import rank
    from tune.records.confirmation import read_confirmation
    from tune.records.posterior_summary import read_posterior
    from tune.report.page import write_report
    from tune.report.sections.confirmed import render_confirmation
    from tune.report.terminal import render_outcome, render_posterior

    folder, record = recorded_study(study_root(composition))
    outcomes, confirmation = folder.outcomes(), read_confirmation(folder.root)
    belief = read_posterior(folder.root)
    ranked = rank(outcomes, belief)
    best = next((o for o in outcomes if ranked and o.trial_id == ranked[0]["trial_id"] and o.feasible), None)
    if best:
        print(render_outcome(best, record.slo, record))
        print(f"again     {repeat_command(best)}")
    if belief:
        print(render_posterior(belief))
    if confirmation:
        print(render_confirmation(record, outcomes, confirmation))
    reports = Path(composition.settings.reports_dir) / composition.study_name
    page = write_report(
        reports,
        record,
        outcomes,
        confirmation=confirmation,
        belief=belief,
        proposals=folder.read_proposals(),
    )
    print(f"report    {page}")
    if best is None:
        raise NegativeResult(
            "No configuration of this study holds its SLO; the report says how far each missed."
        )


def _compare(composition: Composition) -> None:
    from tune.report.compare import compare_named

    a, b = composition.settings.compare.a, composition.settings.compare.b
    if a is None or b is None:
        raise ConfigurationError(
            "action=compare needs compare.a and compare.b: two studies, or two trials as STUDY/TRIAL_ID."
        )
    print(compare_named(Path(composition.settings.runs_dir), a, b))


def _parse(composition: Composition) -> None:
    from tune.loadgen.log_reader import log_figures

    if composition.settings.logs is None:
        raise ConfigurationError("action=parse needs logs=DIR, a folder that holds mlperf_log_detail.txt.")
    try:
        found = log_figures(Path(composition.settings.logs))
    except ResumableError as error:
        raise ConfigurationError(str(error)) from None
    print(json.dumps(found, indent=1))


def _calibrate(composition: Composition) -> None:
    from tune.calibrate.calibration import (
        calibrate,
        learned_calibration,
        read_measured_runs,
        starting_calibration,
    )
    from tune.cli.progress import evaluations_bar
    from tune.config import compose_overrides, shipped_options

    def described(overrides: Sequence[str]) -> TrialSpec:
        words = (*composition.overrides, *overrides)
        settings = compose_overrides(words, composition.config_dirs).settings
        _require_runnable(settings)
        return settings.trial_spec

    asked = composition.settings.calibrate
    calibration = starting_calibration(composition.settings, shipped_options("cluster"))
    if asked.learned is not None:
        root = Path(composition.settings.runs_dir) / asked.learned
        found = learned_calibration(asked, calibration, recorded_study(root, "calibrate.learned")[0])
        print(f"{found.text}\nuse       {shlex.join(['python', '-m', 'tune', *found.words])}")
        return
    study = None
    if asked.study is not None:
        root = Path(composition.settings.runs_dir) / asked.study
        study, _ = recorded_study(root, "calibrate.study")
    try:
        runs = read_measured_runs(asked, study, described)
    except ResumableError as error:
        raise ConfigurationError(str(error)) from None
    with evaluations_bar() as progress:
        found = calibrate(asked, calibration, runs, progress)
    print(f"{found.text}\nuse       {shlex.join(['python', '-m', 'tune', *found.words])}")


def _check(settings: Settings) -> tuple[Finding, ...]:
    """Every finding on the trial and its place. Raises ConfigurationError for a dataset that cannot be."""
    from tune.workload.lengths import draw_lengths

    spec = settings.trial_spec
    draw_lengths(spec.load.dataset, 1, False, spec.load.shuffle_seed)
    backend = {
        "sim": partial(check_simulated, spec),
        "local": partial(check_local, spec),
        "slurm": partial(check_cluster, settings.cluster),
    }[settings.cluster.kind]
    forecast = settings.cluster.kind != "sim" and _begins_with_simulator(settings) is not None
    unique = dict.fromkeys((*check(spec), *backend(), *(check_timed_weights(spec) if forecast else ())))
    return tuple(unique)


def _begins_with_simulator(settings: Settings) -> str | None:
    """Return the setting for which the simulator forecasts what is then measured; None where it does not."""
    if settings.sweep and settings.search.name == "surrogate":
        return "search=surrogate"
    return "load.mode=capacity" if settings.load.mode == "capacity" else None


def _require_runnable(settings: Settings) -> None:
    """Raises ConfigurationError with every broken rule; says what the rest costs."""
    findings = _check(settings)
    broken = only_errors(findings)
    if broken:
        raise ConfigurationError(
            f"{render_findings(broken)}\nThe configuration breaks rules; nothing was run."
        )
    _warn(findings)


def _place(settings: Settings, processes: int) -> Backend:
    if settings.study.once and settings.cluster.kind != "slurm":
        raise ConfigurationError(
            f"study.once: found true with cluster={settings.cluster.kind}, whose trials end with this "
            "process; expected cluster=slurm, whose jobs go on."
        )
    begins_with_it = _begins_with_simulator(settings)
    if begins_with_it and settings.cluster.calibration is None:
        raise ConfigurationError(
            f"cluster.calibration: found none with cluster={settings.cluster.kind}; expected one with "
            f"{begins_with_it}, which begins with it. Take that of conf/cluster/slurm.yaml."
        )
    if settings.cluster.kind == "sim":
        from tune.backends.simulated import SimulatorBackend
        from tune.core.jit import is_cold
        from tune.sim.decode_loop import decode

        if is_cold(decode):
            print("compiling the simulator: some ten seconds, on its first use only", file=sys.stderr)

        assert settings.cluster.calibration is not None
        return SimulatorBackend(settings.cluster.calibration, processes)
    if settings.cluster.kind == "local":
        from tune.backends.local import LocalBackend

        return LocalBackend(partial(print, file=sys.stderr, flush=True))
    from tune.backends.slurm.backend import SlurmBackend
    from tune.cli.progress import print_above_bar

    return SlurmBackend(settings.cluster, settings.study.trials_per_job, print_above_bar)


def _warn(findings: Sequence[Finding]) -> None:
    for finding in findings:
        print(f"{finding.severity}: {finding.path}: {finding.why}", file=sys.stderr)
    if findings:
        print("action=preflight says what was expected, and by which source\n", file=sys.stderr)


_ACTIONS: dict[str, Callable[[Composition], None]] = {
    "run": _run,
    "plan": _plan,
    "preflight": _preflight,
    "status": status,
    "logs": logs,
    "cancel": cancel,
    "report": _report,
    "confirm": partial(confirm, require_runnable=_require_runnable, make_place=_place),
    "compare": _compare,
    "parse": _parse,
    "calibrate": _calibrate,
}
