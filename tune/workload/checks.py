"""Find workloads that contradict themselves, or the model that serves them."""

from __future__ import annotations

from collections.abc import Iterator

from tune.spec.dataset import Dataset, LognormalLengths, SyntheticInputs, SyntheticOutputs
from tune.spec.findings import Finding
from tune.spec.load import Load
from tune.spec.trial import TrialSpec
from tune.workload.length_summary import LengthSummary, clipped_frac, summarise_lengths

BENCHMARK_INPUTS = SyntheticInputs(
    kind="beta", mean_tokens=9400.0, sd_tokens=3800.0, min_tokens=200, max_tokens=20000
)
BENCHMARK_OUTPUTS = SyntheticOutputs(mean_tokens=629.9, cap_frac=0.006)
"""Lengths of conf/load/mlperf_interactive.yaml."""

CHANGED_FRAC = 0.1
"""Relative change of a benchmark's mean from which on its other values are doubtful. Chosen here:
calibrations move it by less."""

FAR_ABOVE = 2.0
"""Factor by which a stated longest length may exceed what is sent. Chosen here."""

CLIPPED_FRAC = 0.01
"""Share of lengths at an end of their range from which on the range decides the mean. Chosen here."""

LONG_PASSES = 2.0
"""Factor by which a pass over a file may outlast the minimum duration. Chosen here."""

_OWN = "load=lognormal, load=fixed or load=csv describe a workload of your own"
_SOURCE = "docs/how-to/your-deployment.md"


def check_workload(spec: TrialSpec) -> tuple[Finding, ...]:
    """Return what contradicts itself in the workload of `spec`; errors as of `draw_lengths`."""
    dataset = spec.load.dataset
    findings = [*_spread(dataset), *_beyond_longest(dataset)]
    if any(finding.severity == "error" for finding in findings):
        return tuple(findings)
    prompts, answers = summarise_lengths(dataset)
    return (
        *findings,
        *_left_from_benchmark(dataset),
        *_clipped(dataset),
        *_far_below_longest("longest_prompt_tokens", dataset.longest_prompt_tokens, prompts),
        *_far_below_longest("longest_answer_tokens", dataset.longest_answer_tokens, answers),
        *_context(spec, prompts, answers),
        *_long_pass(spec.load),
    )


def _benchmark_values(dataset: Dataset) -> str:
    """Return the values of changed prompt lengths that are still the benchmark's, in words; "" if none."""
    inputs = dataset.inputs
    if not isinstance(inputs, SyntheticInputs) or dataset.path is not None or inputs.kind == "fixed":
        return ""
    if abs(inputs.mean_tokens / BENCHMARK_INPUTS.mean_tokens - 1) <= CHANGED_FRAC:
        return ""
    names = ("sd_tokens", "max_tokens")
    left = [name for name in names if getattr(inputs, name) == getattr(BENCHMARK_INPUTS, name)]
    return " and ".join(f"{name} {getattr(inputs, name):g}" for name in left)


def _spread(dataset: Dataset) -> Iterator[Finding]:
    inputs = dataset.inputs
    if dataset.path is not None or not isinstance(inputs, SyntheticInputs) or inputs.kind == "fixed":
        return
    if inputs.sd_tokens > inputs.mean_tokens:
        left = _benchmark_values(dataset)
        origin = f"; {left} come from the benchmark's prompts" if left else ""
        yield Finding(
            "error",
            "load.dataset.inputs.sd_tokens",
            f"{inputs.sd_tokens:g}, with a mean of {inputs.mean_tokens:g}{origin}",
            f"at most the mean. Set sd_tokens, max_tokens and load.dataset.longest_prompt_tokens too; {_OWN}",
            f"a {inputs.kind} distribution so wide puts most prompts at the ends of "
            f"{inputs.min_tokens}..{inputs.max_tokens}, and the longest decide the highest rate",
            _SOURCE,
        )


def _beyond_longest(dataset: Dataset) -> Iterator[Finding]:
    if dataset.path is not None:
        return
    for group, setting in (("inputs", "longest_prompt_tokens"), ("outputs", "longest_answer_tokens")):
        lengths, limit = getattr(dataset, group), getattr(dataset, setting)
        if isinstance(lengths, SyntheticOutputs) or lengths.longest_tokens <= limit:
            continue
        name = "max_tokens" if hasattr(lengths, "max_tokens") else "tokens"
        yield Finding(
            "error",
            f"load.dataset.{group}.{name}",
            f"lengths up to {lengths.longest_tokens}",
            f"at most load.dataset.{setting}, {limit}",
            "the rules hold buffers and sequence lengths against the longest prompt and answer",
            "tune/spec/dataset.py",
        )


def _left_from_benchmark(dataset: Dataset) -> Iterator[Finding]:
    inputs, outputs = dataset.inputs, dataset.outputs
    left = _benchmark_values(dataset)
    if left and isinstance(inputs, SyntheticInputs):
        yield Finding(
            "warning",
            "load.dataset.inputs.mean_tokens",
            f"{inputs.mean_tokens:g}, with {left} of the benchmark",
            f"sd_tokens, max_tokens and load.dataset.longest_prompt_tokens of your prompts; {_OWN}",
            f"{left} are those of the benchmark's prompts, whose mean is {BENCHMARK_INPUTS.mean_tokens:g}: "
            "the longest prompts decide the highest rate",
            _SOURCE,
        )
    if not isinstance(outputs, SyntheticOutputs) or dataset.path is not None or not outputs.cap_frac:
        return
    same_cap = outputs.cap_frac == BENCHMARK_OUTPUTS.cap_frac
    if same_cap and abs(outputs.mean_tokens / BENCHMARK_OUTPUTS.mean_tokens - 1) > CHANGED_FRAC:
        yield Finding(
            "warning",
            "load.dataset.outputs.mean_tokens",
            f"{outputs.mean_tokens:g}, while cap_frac {outputs.cap_frac:g} is that of the benchmark",
            f"load.dataset.outputs.cap_frac=0, or the share of your answers that are cut; {_OWN}",
            f"{outputs.cap_frac:.1%} of the answers have {dataset.longest_answer_tokens} tokens, as in the "
            f"benchmark, whose mean is {BENCHMARK_OUTPUTS.mean_tokens:g}",
            _SOURCE,
        )


def _clipped(dataset: Dataset) -> Iterator[Finding]:
    for group in ("inputs", "outputs"):
        lengths = getattr(dataset, group)
        if dataset.path is not None or not isinstance(lengths, LognormalLengths):
            continue
        shorter, longer = clipped_frac(lengths)
        for name, share, beyond, change in (
            ("min_tokens", shorter, "below", "lower"),
            ("max_tokens", longer, "above", "higher"),
        ):
            if share > CLIPPED_FRAC:
                yield Finding(
                    "warning",
                    f"load.dataset.{group}.{name}",
                    f"{getattr(lengths, name)}, with {share:.1%} of the lengths {beyond}",
                    f"a {change} {name}, or the figures of lengths that lie within",
                    "lengths beyond are clipped, so mean and spread of what is sent are not those stated",
                    _SOURCE,
                )


def _far_below_longest(setting: str, stated: int, sent: LengthSummary) -> Iterator[Finding]:
    if stated > FAR_ABOVE * sent.longest:
        yield Finding(
            "warning",
            f"load.dataset.{setting}",
            f"{stated}, while the longest that is sent has {sent.longest} tokens",
            f"load.dataset.{setting}={sent.longest}, or what your service allows",
            "rules, buffers and the KV cache count with the stated length",
            _SOURCE,
        )


def _context(spec: TrialSpec, prompts: LengthSummary, answers: LengthSummary) -> Iterator[Finding]:
    context, longest = spec.model.context_tokens, prompts.longest + answers.longest
    if context is not None and longest > context:
        yield Finding(
            "error",
            "model.context_tokens",
            f"{context}, of {spec.model.name}",
            f"at least the longest prompt and answer, {prompts.longest} and {answers.longest} tokens. "
            "Set shorter lengths in load.dataset, or choose another model",
            "the model has no positions beyond",
            "config.json of the model, max_position_embeddings",
        )


def _long_pass(load: Load) -> Iterator[Finding]:
    if load.target_qps is None:
        return
    pass_s = load.dataset.samples / load.target_qps
    is_whole = load.concatenate_permutation and load.dataset.path is not None and load.trace is None
    if is_whole and pass_s > LONG_PASSES * load.min_duration_s:
        yield Finding(
            "warning",
            "load.concatenate_permutation",
            f"true: a pass over {load.dataset.samples} samples lasts {pass_s / 60:.0f} min at "
            f"{load.target_qps:g} queries/s",
            "load.concatenate_permutation=false, or fewer rows",
            f"a run is whole passes, though load.min_duration_s is {load.min_duration_s:g}",
            "tune/spec/load.py",
        )
