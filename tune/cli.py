"""Actions of the command line. The only place that prints and sets exit codes."""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tune.config import Composition, compose_command_line, trial_overrides
from tune.errors import AnswerIsNo, FixCommand, RunAgain, TuneError
from tune.spec.findings import Finding, errors, render_findings
from tune.spec.rules import check, check_cluster
from tune.spec.settings import Settings

if TYPE_CHECKING:
    from tune.clusters.place import Place
    from tune.results.folder import StudyFolder
    from tune.results.outcome import Outcome
    from tune.results.record import StudyRecord

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
        return RunAgain.exit_code
    return 0


def _run(composition: Composition) -> None:
    if composition.settings.sweep:
        _run_study(composition)
    else:
        _run_trial(composition)


def _run_trial(composition: Composition) -> None:
    from tune.report.text import render_outcome
    from tune.study.question import pin
    from tune.study.study import opened, run_trial

    settings = composition.settings
    findings = _check(settings)
    if errors(findings):
        raise FixCommand(
            f"{render_findings(errors(findings))}\nThe configuration breaks rules; nothing was run."
        )
    _warn(findings)
    root = _study_root(composition)
    asked = pin(settings, composition.study_name, ())
    with opened(root, asked) as folder, _place(settings, processes=1) as place:
        outcome, fresh = run_trial(folder, settings, place, partial(trial_overrides, settings=settings))
    print(render_outcome(outcome, settings.slo, asked.place))
    print(
        f"record    {root / outcome.trial_id}" + ("" if fresh else "  (on record; rerun=true measures again)")
    )
    if outcome.status == "infeasible":
        raise AnswerIsNo(f"The configuration cannot run: {outcome.reason}")
    if outcome.status == "failed":
        raise RunAgain(f"The trial failed: {outcome.reason}\nThe same command tries it again.")


def _run_study(composition: Composition) -> None:
    from tune.report.text import render_outcome
    from tune.results.frame import rank
    from tune.study.question import pin
    from tune.study.study import opened, run_study

    settings = composition.settings
    _warn(_check(settings))
    root = _study_root(composition)
    asked = pin(settings, composition.study_name, composition.overrides)
    place = _place(settings, settings.cluster.processes or len(os.sched_getaffinity(0)))
    with opened(root, asked) as folder:
        with place as running, _progress(asked.n_trials, asked.name) as recorded:
            run_study(folder, settings, running, partial(trial_overrides, settings=settings), recorded)
        outcomes = folder.outcomes()
    best = next((row["trial_id"] for row in rank(outcomes) if row["feasible"]), None)
    for outcome in outcomes:
        if outcome.trial_id == best:
            print(render_outcome(outcome, settings.slo, asked.place))
            print(f"again     {_command(outcome)}")
    _write_report(composition)
    if best is None:
        raise AnswerIsNo("No configuration of this study holds its SLO; the report says how far each missed.")


def _plan(composition: Composition) -> None:
    from tune.deploy.plan import render, write_plan
    from tune.results.folder import StudyFolder

    settings = composition.settings
    spec = settings.trial_spec
    findings = _check(settings)
    if errors(findings):
        raise FixCommand(
            f"{render_findings(errors(findings))}\nThe configuration breaks rules; nothing was written."
        )
    _warn(findings)
    folder = StudyFolder(_study_root(composition)).trial(spec.trial_id)
    folder.write_spec(spec)
    plan = render(spec, settings.cluster)
    write_plan(plan, folder.plan)
    for process in plan.processes:
        nodes = f"node {process.node_index:>2}"
        print(f"{nodes}  {process.name:<12}  {shlex.join(process.argv)}")
    print(f"\nplan      {folder.plan}")


def _preflight(composition: Composition) -> None:
    findings = _check(composition.settings)
    print(render_findings(findings) or "No findings.")
    broken = errors(findings)
    if broken:
        raise AnswerIsNo(f"{len(broken)} broken rules, {len(findings) - len(broken)} warnings.")
    print(f"The configuration can run; {len(findings)} warnings.")


def _status(composition: Composition) -> None:
    from tune.report.text import render_outcome, render_status

    folder, record = _recorded_study(composition)
    trial_id = composition.settings.trial
    if trial_id is None:
        print(render_status(record, folder.read_proposals(), folder.outcomes()))
        return
    outcome, spec = folder.trial(trial_id).read_outcome(), folder.trial(trial_id).read_spec()
    if outcome is None or spec is None:
        known = ", ".join(trial.root.name for trial in folder.trials()) or "none"
        raise FixCommand(f"trial={trial_id}: no such outcome in {folder.root}; expected one of: {known}.")
    print(render_outcome(outcome, spec.slo, record.place))
    print(f"again     {_command(outcome)}")


def _report(composition: Composition) -> None:
    _recorded_study(composition)
    _write_report(composition)


def _compare(composition: Composition) -> None:
    from tune.report.compare import compare

    a, b = composition.settings.compare.a, composition.settings.compare.b
    if a is None or b is None:
        raise FixCommand(
            "action=compare needs compare.a and compare.b: two studies, or two trials as STUDY/TRIAL_ID."
        )
    print(compare(Path(composition.settings.runs_dir), a, b))


def _parse(composition: Composition) -> None:
    from tune.results.loadgen_figures import figures

    if composition.settings.logs is None:
        raise FixCommand("action=parse needs logs=DIR, a folder that holds mlperf_log_detail.txt.")
    print(json.dumps(figures(Path(composition.settings.logs)), indent=1))


def _study_root(composition: Composition) -> Path:
    return Path(composition.settings.runs_dir) / composition.study_name


def _recorded_study(composition: Composition) -> tuple[StudyFolder, StudyRecord]:
    from tune.results.folder import StudyFolder

    root = _study_root(composition)
    record = StudyFolder(root).read_study()
    if record is None:
        studies = ", ".join(sorted(path.parent.name for path in root.parent.glob("*/study.json"))) or "none"
        raise FixCommand(
            f"{root}: no study there; expected study.name=NAME with one of those in {root.parent}: {studies}."
        )
    return StudyFolder(root), record


def _write_report(composition: Composition) -> None:
    from tune.report.page import write_report

    folder, record = _recorded_study(composition)
    reports = Path(composition.settings.reports_dir) / composition.study_name
    print(f"report    {write_report(reports, record, folder.outcomes())}")


def _check(settings: Settings) -> tuple[Finding, ...]:
    findings = check(settings.trial_spec)
    return findings if settings.cluster.kind == "sim" else (*findings, *check_cluster(settings.cluster))


def _command(outcome: Outcome) -> str:
    return shlex.join(["python", "-m", "tune", *outcome.provenance["overrides"]])


def _place(settings: Settings, processes: int) -> Place:
    if settings.cluster.kind == "sim":
        from tune.clusters.simulated import SimulatedRack

        assert settings.cluster.calibration is not None
        return SimulatedRack(settings.cluster.calibration, processes)
    raise FixCommand(
        "cluster=slurm: tune renders the job but does not submit it yet. action=plan writes job.sbatch for "
        "sbatch; cluster=sim runs the trial on the simulated rack."
    )


@contextmanager
def _progress(n_trials: int, name: str) -> Iterator[Callable[[Outcome], None]]:
    from tqdm import tqdm

    best = 0.0
    with tqdm(total=n_trials, desc=name, unit="trial", file=sys.stderr) as bar:

        def recorded(outcome: Outcome) -> None:
            nonlocal best
            if outcome.feasible and (outcome.output_tps_per_gpu or 0.0) > best:
                best = outcome.output_tps_per_gpu or 0.0
                bar.set_postfix_str(f"best {best:.1f} tokens/s/GPU, trial {outcome.number}")
            bar.update()

        yield recorded


def _broken(findings: Sequence[Finding]) -> FixCommand:
    return FixCommand(
        f"{render_findings(errors(findings))}\nThe configuration breaks rules; nothing was run."
    )


def _warn(findings: Sequence[Finding]) -> None:
    for finding in findings:
        print(f"{finding.severity}: {finding.path}: {finding.why}", file=sys.stderr)
    if findings:
        print("action=preflight says what was expected, and by which source\n", file=sys.stderr)


_ACTIONS: dict[str, Callable[[Composition], None]] = {
    "run": _run,
    "plan": _plan,
    "preflight": _preflight,
    "status": _status,
    "report": _report,
    "compare": _compare,
    "parse": _parse,
}
