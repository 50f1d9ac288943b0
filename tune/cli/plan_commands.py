"""Run action=plan and action=preflight: print the plan of a trial, and check whether it can run."""

from __future__ import annotations

from tune.backends.registry import BACKENDS
from tune.cli.output import show
from tune.cli.runnable import check_configuration, check_whole_sweep, require_runnable
from tune.cli.studies import study_root
from tune.config import ComposedConfig, shipped_option, shipped_options
from tune.engines.registry import adapter_named
from tune.errors import NegativeResult
from tune.spec.findings import only_errors, render_findings
from tune.spec.stack import GENERATIONS, Stack, generation_of


def plan_action(composition: ComposedConfig) -> None:
    """Write the launch plan of the composed trial and print its summary."""
    from tune.cli.plan_summary import summarise_plan
    from tune.core.files import make_folder
    from tune.deploy.plan import render, write_plan
    from tune.records.folders import StudyFolder

    settings = composition.settings
    spec = settings.trial_spec
    folder = StudyFolder(study_root(composition)).trial(spec.trial_id)
    require_runnable(settings, again=folder.root.exists())
    make_folder(folder.root, parents=True)
    folder.write_spec(spec)
    rendered = render(spec, settings.cluster)
    write_plan(rendered, folder.plan)
    show(f"{summarise_plan(rendered, settings)}\nplan      {folder.plan}")


_UNCOUNTED = (
    "With stack.system_port=null workers open no port for /health and /metrics, and their requests are not "
    "counted. From Dynamo 0.4 on: stack.system_port=9100"
)


def _describe_stack(stack: Stack) -> str:
    """Return which software the stack is for, what it cannot do, and which stacks other software needs."""
    own = _software(stack.generation, stack.engine)
    software = {
        name: _software(generation_of(option["name"]), option["engine"])
        for name in shipped_options("stack")
        for option in (shipped_option("stack", name),)
    }
    others = "\n".join(f"  stack={name}: {text}" for name, text in software.items() if text != own)
    uncounted = "" if stack.system_port else f"\n{_UNCOUNTED}"
    return f"stack {stack.name} is for {own}. For other software:\n{others}{uncounted}"


def _software(generation: str, engine: str) -> str:
    """Return the versions of Dynamo and of an engine that go together."""
    return f"{GENERATIONS[generation]} with {adapter_named(engine).versions.get(generation, engine)}"


def preflight_action(composition: ComposedConfig) -> None:
    """Print the workload and every finding on the composed trial, what its cluster answers included.

    Raises NegativeResult where one of them forbids the trial.
    """
    from tune.cli.output import print_progress
    from tune.workload.length_summary import describe_load

    settings = composition.settings
    backend = BACKENDS[settings.cluster.kind]
    findings = (
        *check_configuration(settings),
        *check_whole_sweep(settings),
        *backend.preflight(settings),
    )
    if not only_errors(findings):
        findings = tuple(dict.fromkeys((*findings, *backend.ask_node(settings, print_progress))))
    show(f"workload: {describe_load(settings.load)}")
    show(f"{_describe_stack(settings.trial_spec.stack)}\n")
    show(render_findings(findings) or "No findings.")
    broken = only_errors(findings)
    if broken:
        raise NegativeResult(
            f"The configuration cannot run. Errors: {len(broken)} of {len(findings)} findings."
        )
    show(f"The configuration can run. Warnings: {len(findings)}.")
