"""Check that a composed configuration can run, and build the backend that runs it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tune.backends.registry import BACKENDS
from tune.config import shipped_settings
from tune.engines.check import check
from tune.errors import ConfigurationError
from tune.report.formatting import plural
from tune.spec.findings import Finding, only_errors, render_findings
from tune.spec.settings import Settings
from tune.spec.timed_rules import check_timed

if TYPE_CHECKING:
    from tune.backends.base import Backend

_SURROGATE = "search=surrogate"


def check_configuration(settings: Settings) -> tuple[Finding, ...]:
    """Return every finding on the trial and its backend. Raises ConfigurationError for an invalid dataset."""
    from tune.workload.lengths import draw_lengths

    spec = settings.trial_spec
    draw_lengths(spec.load.dataset, 1, False, spec.load.shuffle_seed)
    if spec.load.accuracy:
        from tune.workload.mlperf_pickle import read_pickle_references

        read_pickle_references(spec.load.dataset)
    timed = _check_surrogate(settings) if _needs_simulator(settings) == _SURROGATE else ()
    backend = BACKENDS[settings.cluster.kind].check(settings)
    return tuple(dict.fromkeys((*check(spec), *backend, *timed, *_check_closed_loop(settings))))


def _check_closed_loop(settings: Settings) -> Iterator[Finding]:
    """Yield that the surrogate has no closed loop."""
    if settings.load.is_closed_loop and _needs_simulator(settings) == _SURROGATE:
        yield Finding(
            "error",
            "search.name",
            "surrogate with load.mode=concurrency",
            "another search, such as search=grid or search=tpe",
            "the surrogate learns the highest rate of a deployment, and a closed loop has no rate",
            "tune/surrogate/emulator.py",
        )


def _check_surrogate(settings: Settings) -> Iterator[Finding]:
    """Yield what the surrogate cannot time: it knows the roofline alone."""
    yield from check_timed(settings.trial_spec)
    for name in ("prefill_steps", "decode_steps", "step_source"):
        if getattr(settings.cluster.calibration, name, None):
            yield Finding(
                "error",
                f"cluster.calibration.{name}",
                "a table of step times with search=surrogate",
                "null, or another search such as search=tpe",
                "the surrogate scales the roofline's steps to other shapes, for which a table has no times",
                "tune/surrogate/emulator.py",
            )


def check_whole_sweep(settings: Settings) -> tuple[Finding, ...]:
    """Return what is wrong with the points of the sweep; none without a sweep.

    Raises ConfigurationError for a dimension that is no setting, or a value that does not fit its setting.
    """
    from tune.cli.progress import working
    from tune.study.sweep_check import check_sweep

    if settings.sweep is None:
        return ()
    with working("checking the sweep"):
        return check_sweep(settings.trial_spec, settings.sweep, settings.study.seed)


def _needs_simulator(settings: Settings) -> str | None:
    """Return the setting that makes live runs depend on the simulator's forecast, or None."""
    if settings.sweep and settings.search.traits.simulates:
        return _SURROGATE
    return "load.mode=capacity" if settings.load.mode == "capacity" else None


def require_runnable(settings: Settings, *, again: bool) -> None:
    """Print the warnings on a configuration, as `print_findings` does.

    Raises ConfigurationError with every broken rule.
    """
    findings = check_configuration(settings)
    broken = only_errors(findings)
    if broken:
        raise ConfigurationError(
            f"{render_findings(broken)}\nThe configuration breaks rules; nothing was run."
        )
    print_findings(findings, again=again)


def print_findings(findings: Sequence[Finding], *, again: bool) -> None:
    """Print one line a finding on stderr.

    Findings on what is shipped are counted in one line, and left out where the command runs `again`.
    """
    shipped = check_configuration(shipped_settings()) if findings else ()
    own = [finding for finding in findings if finding not in shipped]
    for finding in own:
        print(f"{finding.severity}: {finding.path}: {finding.why}", file=sys.stderr)
    if own:
        print("action=preflight says what was expected, and by which source\n", file=sys.stderr)
    others = len(findings) - len(own)
    if others and not again:
        print(
            f"{plural(others, 'warning')} on the reference configuration as shipped; action=preflight says "
            "more\n",
            file=sys.stderr,
        )


def cost_text(settings: Settings, gpu_hours: float) -> str:
    """Return the cost of trials; where a rack is simulated, what they would cost on a real one."""
    if BACKENDS[settings.cluster.kind].capabilities.real_time:
        return f"about {gpu_hours:,.0f} GPU-hours"
    return f"simulated: would cost about {gpu_hours:,.0f} GPU-hours on a rack"


def make_backend(settings: Settings, at_once: int) -> Backend:
    """Return the backend of the settings, for `at_once` trials at a time.

    Raises ConfigurationError where the settings need a capability that the backend lacks.
    """
    from tune.cli.output import print_progress

    kind = settings.cluster.kind
    if settings.study.once and not BACKENDS[kind].capabilities.detached:
        detached = " or ".join(name for name, entry in BACKENDS.items() if entry.capabilities.detached)
        raise ConfigurationError(
            f"study.once: found true with cluster={kind}, whose trials end with this "
            f"process; expected cluster={detached}, whose jobs go on."
        )
    needed_by = _needs_simulator(settings)
    if needed_by and settings.cluster.calibration is None:
        raise ConfigurationError(
            f"cluster.calibration: found none with cluster={kind}; expected one with "
            f"{needed_by}, which starts from it. Copy `calibration:` from conf/cluster/slurm.yaml."
        )
    return BACKENDS[kind].build(settings, at_once, print_progress)
